"""A result names the commit of the code that made it, not the commit of another repository around that code."""

import subprocess
from pathlib import Path

import pytest

from pipelines.study import provenance


def commit(folder: Path) -> str:
    """Make `folder` a repository with one commit of all its files."""
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for what in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(folder), *what], check=True)
    asked = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return asked.stdout.strip()


def test_git_revision_is_of_the_checkout_that_holds_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The revision says whether files have changed. Code that is installed inside another repository has no revision."""
    for code in (tmp_path / "checkout" / "pipelines" / "study", tmp_path / "other" / "venv" / "pipelines" / "study"):
        code.mkdir(parents=True)
        (code / "provenance.py").write_text("1\n")
    revision = commit(tmp_path / "checkout")
    commit(tmp_path / "other")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "checkout" / "pipelines" / "study" / "provenance.py"))
    assert provenance.git_revision() == revision
    (tmp_path / "checkout" / "pipelines" / "study" / "provenance.py").write_text("2\n")
    assert provenance.git_revision() == f"{revision}+changes"
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "other" / "venv" / "pipelines" / "study" / "provenance.py"))
    assert provenance.git_revision() is None
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert provenance.git_revision() is None
