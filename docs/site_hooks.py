"""Let pages link to files of the repository outside docs/, which MkDocs cannot do by itself."""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
GITHUB = "https://github.com/"
COLAB = "https://colab.research.google.com/github/"
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")
SHOWN = (".svg", ".png", ".gif", ".html")  # copied into the site; anything else is linked in the repository
COPIES = "repository/"


def target(page: str, link: str) -> str:
    """The file that `link` on the page docs/`page` names, as a path from the repository's root.

    Return "" if the file is in docs/, or if `link` is a URL or absolute.
    """
    if "://" in link or link.startswith(("mailto:", "/")):
        return ""
    path = os.path.normpath(os.path.join("docs", os.path.dirname(page), link))
    return "" if path.startswith("docs/") else path


def on_config(config: Any, **_: Any) -> Any:
    """If mkdocs.yml has no `repo_url`, set it from GITHUB_REPOSITORY of GitHub's CI. The hooks below read it."""
    if not config["repo_url"] and (name := os.environ.get("GITHUB_REPOSITORY")):
        config["repo_url"] = GITHUB + name
    return config


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


def on_page_content(html: str, page: Any, config: Any, **_: Any) -> str:
    """Above a notebook put a link that opens the notebook in Colab, if the project has an address at GitHub."""
    address, uri = (config["repo_url"] or "").rstrip("/"), page.file.src_uri
    if not (uri.endswith(".ipynb") and address.startswith(GITHUB)):
        return html
    link = f"{COLAB}{address.removeprefix(GITHUB)}/blob/main/docs/{uri}"
    first = f'%pip install "uvb-study[study] @ git+{address}"'
    return f'<p><a href="{link}">Open in Colab</a>. There, run this first: <code>{first}</code></p>{html}'


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Let links that leave docs/ lead to the copy in the site, or else to the repository.

    If the repository has no address, replace the link by its text and the file's name.
    """
    uri = page.file.src_uri
    up = "../" * uri.count("/")
    address = (config["repo_url"] or "").rstrip("/")

    def outside(match: re.Match[str]) -> str:
        picture, text, link, anchor = match[1], match[2], match[3], match[4] or ""
        path = target(uri, link)
        if not path:
            return match[0]
        if path.endswith(SHOWN) and (ROOT / path).is_file():
            return f"{picture}[{text}]({up}{COPIES}{path}{anchor})"
        if address:
            return f"[{text}]({address}/blob/main/{path}{anchor})"
        known = path in text or Path(path).parent.name == text  # a study's README, by the study's name
        return text if known else f"{text} (`{path}`)"

    return LINK.sub(outside, markdown)
