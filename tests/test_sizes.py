"""No Python file has more than 400 lines, and no function more than 60."""

import ast

import pytest

from tests.support.builders import ROOT

FOLDERS = ("uvb", "pipelines", "tune_spaces", "benchmarks", "tests", "docs", "examples")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def too_long(source: str) -> list[str]:
    """The functions of `source` with more than 60 lines, and "file" if it has more than 400."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [node.name for node in found if (node.end_lineno or 0) - node.lineno + 1 > 60]
    return long + ["file"] * (len(source.splitlines()) > 400)


def test_project_has_only_short_files_and_functions() -> None:
    assert len(FILES) > 300
    found = {str(path.relative_to(ROOT)): too_long(path.read_text()) for path in FILES}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(("lines", "expected"), [(60, []), (61, ["f"]), (401, ["f", "file"])])
def test_too_long_names_long_functions_and_long_files(lines: int, expected: list[str]) -> None:
    assert too_long("def f():\n" + "    a = 1\n" * (lines - 1)) == expected
