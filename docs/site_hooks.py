"""What MkDocs cannot do by itself: pages link files of the repository that lie outside docs/."""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = os.environ.get("GITHUB_REPOSITORY", "")  # owner/name; GitHub's own CI sets it
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")
SHOWN = (".svg", ".png", ".gif", ".html")  # copied into the site; anything else is linked in the repository
COPIES = "repository/"


def target(page: str, link: str) -> str:
    """What `link` on the page docs/`page` points to, from the repository's root; "" for what lies in docs/ or elsewhere."""
    if "://" in link or link.startswith(("mailto:", "/")):
        return ""
    path = os.path.normpath(os.path.join("docs", os.path.dirname(page), link))
    return "" if path.startswith("docs/") else path


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pictures and reports outside docs/ that pages show."""
    wanted = {
        path
        for page in files.documentation_pages()
        if page.src_uri.endswith(".md")
        for match in LINK.finditer(Path(page.abs_src_path).read_text())
        if (path := target(page.src_uri, match[3])).endswith(SHOWN) and (ROOT / path).is_file()
    }
    for path in sorted(wanted):
        files.append(File.generated(config, COPIES + path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links that leave docs/ at the copies, else at the repository. Where there is none, keep the text and the name."""
    uri = page.file.src_uri
    up = "../" * uri.count("/")

    def outside(match: re.Match[str]) -> str:
        picture, text, link, anchor = match[1], match[2], match[3], match[4] or ""
        path = target(uri, link)
        if not path:
            return match[0]
        if path.endswith(SHOWN) and (ROOT / path).is_file():
            return f"{picture}[{text}]({up}{COPIES}{path}{anchor})"
        if REPOSITORY:
            return f"[{text}](https://github.com/{REPOSITORY}/blob/main/{path}{anchor})"
        return text if path in text else f"{text} (`{path}`)"

    return LINK.sub(outside, markdown)
