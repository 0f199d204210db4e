"""The links in the documentation's pages, with and without an address of the project on the web."""

import runpy
from types import SimpleNamespace

import pytest

from tests.support.builders import ROOT

HOOKS = runpy.run_path(str(ROOT / "docs" / "site_hooks.py"))


def page(uri: str) -> SimpleNamespace:
    return SimpleNamespace(file=SimpleNamespace(src_uri=uri))


def test_site_links_colab_and_files_if_the_project_has_an_address() -> None:
    notebook, results = page("notebooks/your_own_energy.ipynb"), page("results.md")
    config = HOOKS["on_config"]({"repo_url": "https://github.com/somebody/uvb-study/"})
    html = HOOKS["on_page_content"]("<h1>own</h1>", page=notebook, config=config)
    colab = "https://colab.research.google.com/github/somebody/uvb-study/blob/main/docs/notebooks/your_own_energy.ipynb"
    assert f'href="{colab}"' in html
    assert html.endswith("<h1>own</h1>")
    assert HOOKS["on_page_content"]("<h1>results</h1>", page=results, config=config) == "<h1>results</h1>"
    linked = HOOKS["on_page_markdown"]("[keep](../pipelines/keep.py)", page=results, config=config)
    assert linked == "[keep](https://github.com/somebody/uvb-study/blob/main/pipelines/keep.py)"


def test_site_links_no_repository_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    config = HOOKS["on_config"]({"repo_url": None})
    assert HOOKS["on_page_content"]("<p>", page=page("notebooks/sample_and_denoise.ipynb"), config=config) == "<p>"
    told = "[keep](../pipelines/keep.py), [cifar10](../results/studies/cifar10/README.md)"
    assert HOOKS["on_page_markdown"](told, page=page("results.md"), config=config) == "keep (`pipelines/keep.py`), cifar10"


def test_site_takes_the_address_from_githubs_own_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_REPOSITORY", "somebody/uvb-study")
    assert HOOKS["on_config"]({"repo_url": ""})["repo_url"] == "https://github.com/somebody/uvb-study"
