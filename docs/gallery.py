"""Write docs/gallery.md: one figure of each kind from the committed results. `python docs/gallery.py`."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ROOT / "results" / "studies"
KIND = re.compile(r"(_[0-9a-f]{12}|_(mnist|digits|cifar10)(_.*)?)$")  # what follows the kind in a figure's name
HEAD = """# Gallery

One figure of each kind that a report draws, from the committed studies. `python docs/gallery.py` writes this page.
"""


def page() -> str:
    """The gallery's text. It shows the figure with the largest file of each kind.

    It leaves out CIFAR-10. It also leaves out studies without `tasks/`, because their figures cannot be drawn again.
    """
    kept = [study for study in STUDIES.glob("[!c]*") if (study / "tasks").is_dir()]
    figures = [path for study in kept for path in study.glob("figures/*.svg") if (path.parent / "captions.json").is_file()]
    figures.sort(key=lambda path: (KIND.sub("", path.stem), -path.stat().st_size, path))
    kinds: dict[str, Path] = {}
    for path in figures:
        kinds.setdefault(KIND.sub("", path.stem), path)
    parts = [HEAD]
    for kind, path in kinds.items():
        captions = json.loads((path.parent / "captions.json").read_text())["captions"]
        caption = next(of_kind[path.stem] for of_kind in captions.values() if path.stem in of_kind)
        study = path.parents[1]
        parts.append(
            f"\n![{kind.replace('_', ' ')}](../{path.relative_to(ROOT).as_posix()})\n\n"
            f"*{caption}* [{study.name}](../{study.relative_to(ROOT).as_posix()}/README.md)\n"
        )
    return "".join(parts)


if __name__ == "__main__":
    (ROOT / "docs" / "gallery.md").write_text(page())
