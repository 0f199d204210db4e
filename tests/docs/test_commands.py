"""The commands that README and docs show are accepted, with every option that they use."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import tyro

from pipelines import denoise, export, keep, report, restore, sample
from pipelines.cli import without_preset
from pipelines.console import COMMANDS
from pipelines.study.config import StudyConfig, SweepConfig
from tests.support.builders import ROOT

CONFIGS: dict[str, Any] = {
    "study": StudyConfig, "sweep": SweepConfig, "sample": sample.Sample, "denoise": denoise.Denoise,
    "restore": restore.Restore, "report": report.Args, "export": export.Export, "keep": keep.Keep,
}  # fmt: skip
FILES = {f"pipelines/{module}.py": name for name, (module, _) in COMMANDS.items()}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "tests" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def shown(page: Path) -> list[str]:
    """The commands in a page's code blocks and in its sentences."""
    text = page.read_text().replace("\\\n", " ")
    blocks = [block for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.S | re.M) if kind in ("", "bash")]
    lines = [line for block in blocks for line in block.splitlines()] + re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
    return [line.strip() for line in lines if re.match(r" *(uvb|make|python|python3|PYTHONUNBUFFERED=1 python3) [a-z-]", line)]


LINES = sorted({line for page in PAGES for line in shown(page)})


@pytest.mark.parametrize("line", LINES)
def test_command_in_the_docs_is_accepted(line: str) -> None:
    program, *words = shlex.split(line.removeprefix("PYTHONUNBUFFERED=1 "), comments=True)
    if program == "make":
        assert {word for word in words if "=" not in word} <= TARGETS
    elif words[0] == "-m":
        module = ROOT / words[1].replace(".", "/")
        assert words[1] in ("pip", "tests.support.browser") or module.with_suffix(".py").is_file() or module.is_dir()
    elif program == "uvb" or words[0] in FILES:
        name = words[0] if program == "uvb" else FILES[words[0]]
        rest, _ = without_preset(words[1:])
        tyro.cli(CONFIGS[name], args=rest)
    else:
        assert (ROOT / words[0]).is_file()


def test_pages_show_every_command() -> None:
    used = {line.split()[1] for line in LINES if line.startswith("uvb ")} | {
        name for line in LINES for file, name in FILES.items() if file in line
    }
    assert used >= set(COMMANDS) - {"restore", "keep"}
