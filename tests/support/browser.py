"""MLflow's pages of a study in a headless Chromium, for tests and for the pictures in docs/.

Draw docs/mlflow_*.png from a finished study: `python -m tests.support.browser outputs/digits`.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.mlflow_server import PATIENCE, MlflowServer

LINES = ".js-plotly-plot .scatterlayer path.js-line"


def chromium() -> str | None:
    """The path of an installed Chromium or Chrome."""
    return next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless browser. Its pages can reach only this machine."""
    with sync_playwright() as playwright:
        # In a container the user is root, for whom Chromium has no sandbox. There is no GPU.
        launched = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


def open_page(launched: Browser, problems: list[str], **options: Any) -> Page:
    """A page in a fresh profile. Errors in the page's scripts and on its console are appended to `problems`."""
    context = launched.new_context(**options)
    context.set_default_timeout(1000 * PATIENCE)
    context.route(lambda url: not url.startswith(("http://127.0.0.1", "file:")), lambda route: route.abort())
    page = context.new_page()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    return page


def open_view(page: Page, address: str, path: str, runs: int) -> None:
    """Open a shared view, wait for its runs, and close the assistant, which covers a third of the page."""
    page.goto(address + path)
    page.get_by_text(f"{runs} matching runs").wait_for()
    close_assistant(page)


def close_assistant(page: Page) -> None:
    if page.get_by_role("button", name="Close").count():
        page.get_by_role("button", name="Close").last.click()


def take_pictures(study: Path, store: Path, docs: Path) -> None:
    """Draw mlflow_runs.png and mlflow_sigma.png from a finished study."""
    from pipelines.tracking.views import view_paths

    said = json.loads((study / "mlflow.json").read_text())
    paths = view_paths(said)
    models = {spec["model"] for spec in (json.loads(p.read_text()) for p in study.glob("models/*/spec.json"))}
    with MlflowServer(store, store.resolve().parent) as server, browser() as launched:
        page = open_page(launched, [], viewport={"width": 1500, "height": 760})
        open_view(page, server.address, paths["models"], len(said["runs"]))
        page.wait_for_timeout(2000)
        page.screenshot(path=docs / "mlflow_runs.png")
        page = open_page(launched, [], viewport={"width": 1500, "height": 760})
        page.goto(server.address + paths["sigma"])
        page.locator(LINES).nth(len(models & {"uvb", "deen"})).wait_for()
        close_assistant(page)
        page.wait_for_timeout(3000)
        page.screenshot(path=docs / "mlflow_sigma.png")


if __name__ == "__main__":
    take_pictures(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "mlflow.db"), Path("docs"))
