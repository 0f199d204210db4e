"""The files of results that a benchmark appends to."""

from pathlib import Path

from benchmarks.training import append_json_line, json_lines


def test_json_lines_leaves_out_a_line_that_a_kill_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert json_lines(path) == []
    append_json_line(path, {"a": 1})
    with path.open("a") as file:
        file.write('{"a": 2, "b"')
    assert json_lines(path) == [{"a": 1}]
    append_json_line(path, {"a": 3})
    append_json_line(path, {"a": 4})
    assert json_lines(path) == [{"a": 1}, {"a": 3}, {"a": 4}]
