"""The report refuses a study with damaged files, in one line and without waiting."""

import io
import json
import os
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pytest

from pipelines.files.formats import read_object
from pipelines.reporting.page import build_report
from tests.support import fake_study
from tests.support.builders import ROOT
from uvb.errors import UserError

DAMAGE = {
    "models/{}/spec.json": [b'{"data": 3}', b"[1]", b"[" * 100_000, b"\xff\xfe"],
    "models/{}/curves.json": [b'{"rows": {"a": 1}}', b'{"rows": [{"epoch": "one"}]}', b'{"rows": [7]}'],
    "models/{}/done.json": [b'{"parameters": "many"}', b'{"time": [1]}'],
    "tasks/losses/{}/result.json": [b'{"rows": 3}', b'{"rows": [{"split": "valid"}]}', b'{"rows": [null]}', b"{}"],
    "tasks/internals/{}/result.json": [b'{"rows": [{"quantity": 1, "value": 2.0, "stderr": 1.0}]}'],
    "tasks/walk_jump/{}/result.json": [b'{"variants": []}'],
    "tasks/settings.json": [b'{"losses": 3}'],
    "study.json": [b'{"specs": 5}', b'{"provenance": []}', b"null"],
    "timings.json": [b'{"stages": [1]}', b'{"total_seconds": "long"}'],
    "mlflow.json": [b'{"runs": []}'],
}


@pytest.mark.parametrize(("name", "content"), [(name, content) for name, some in DAMAGE.items() for content in some])
def test_report_refuses_files_of_other_types_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    spec = fake_study.spec("uvb")
    fake_study.add_model(tmp_path, spec)
    path = tmp_path / name.format(spec.spec_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(path))) as error:
        build_report(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        '{"undefined": [[]]}',
        '{"undefined": [["absent"]]}',
        '{"a": 1, "undefined": [["a", "b"]]}',
        '{"a": 1, "undefined": [["a"]]}',
        '{"a": [null], "undefined": [["a", "b"]]}',
        '{"a": [null], "undefined": [["a", 1]]}',
        '{"undefined": [["undefined"]]}',
    ],
)
def test_read_object_refuses_a_place_that_has_no_null(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(UserError, match=r"result\.json.*undefined.*run the study again"):
        read_object(tmp_path / "result.json")


@pytest.mark.parametrize("name", ["study.json", "models/{}/curves.json", "tasks/losses/{}/arrays.safetensors"])
def test_report_does_not_wait_for_a_pipe(tmp_path: Path, name: str) -> None:
    for model in ("uvb", "deen"):
        fake_study.add_model(tmp_path, fake_study.spec(model))
    path = tmp_path / name.format(fake_study.spec("uvb").spec_id)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(UserError, match="not a regular file"):
        build_report(tmp_path)


def test_report_follows_no_name_of_a_figure_out_of_its_folder(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(ROOT / "results" / "studies" / "mnist-uvb-vae-1-epoch", tmp_path / "copy"))
    outside = tmp_path / "outside.svg"
    outside.write_text("<svg></svg>")
    # An absolute path is read as a path below the folder. No such file is there, so the report lacks the figure.
    for name, said in (("../../outside", "leads out of its folder"), (str(outside.with_suffix("")), None)):
        (copy / "figures" / "captions.json").write_text(json.dumps({"captions": {"paired_difference": {name: ""}}}))
        with pytest.raises(UserError, match=said) if said else nullcontext():
            build_report(copy)
        assert outside.read_text() == "<svg></svg>"


def test_report_of_a_copy_refuses_a_damaged_table_in_one_line(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(ROOT / "results" / "studies" / "mnist-uvb-vae-1-epoch", tmp_path / "copy"))
    table = copy / "tables" / "losses.parquet"
    whole = table.read_bytes()
    for content, said in (
        (whole[:-20], "is damaged ("),
        (b"", "is damaged ("),
        (_other_columns(), "does not have the columns"),
    ):
        table.write_bytes(content)
        with pytest.raises(UserError, match=re.escape(f"{table} {said}")) as error:
            build_report(copy)
        assert "\n" not in str(error.value)


def _other_columns() -> bytes:
    file = io.BytesIO()
    pd.DataFrame({"loss": ["low"]}).to_parquet(file)
    return file.getvalue()
