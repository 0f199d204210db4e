"""`report.py --same` calls two studies the same if all numbers in their tables are equal."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from pipelines.report import Args, report
from pipelines.reporting.same import differences
from pipelines.reporting.tables import build_tables
from tests.support import fake_study
from uvb.errors import UserError


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    for model in ("uvb", "deen"):
        fake_study.add_model(tmp_path / "a", fake_study.spec(model))
    build_tables(tmp_path / "a")
    return tmp_path / "a", shutil.copytree(tmp_path / "a", tmp_path / "b")


def change(study: Path, name: str, column: str, by: float) -> None:
    path = study / "tables" / f"{name}.parquet"
    table = pd.read_parquet(path)
    table.loc[0, column] += by
    table.to_parquet(path)


def test_same_leaves_out_times_and_run_ids(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    change(two[1], "curves", "seconds", 1.0)
    fake_study.write(two[1] / "mlflow.json", {"runs": {fake_study.spec("uvb").spec_id: "run"}})
    assert differences(*two) == []
    assert report(Args(two, same=True)) == 0
    assert capsys.readouterr().out == "the same to the last bit\n"


def test_same_names_a_number_that_differs_in_its_last_bit(two: tuple[Path, Path]) -> None:
    change(two[1], "losses", "loss", 1e-15)
    (line,) = differences(*two)
    assert line.startswith("losses.loss: 1 of 6 rows differ: ")
    assert report(Args(two, same=True)) == 1


def test_same_names_rows_and_tables_of_one_study_only(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_parquet(two[1] / "tables" / "losses.parquet")
    table.drop(columns="floor").iloc[1:].to_parquet(two[1] / "tables" / "losses.parquet")
    (two[1] / "tables" / "pairs.parquet").unlink()
    of_pairs, of_losses = differences(*two)
    assert of_pairs == "pairs: only one of the studies has this table"
    assert of_losses.startswith("losses: rows in one study only: 1, such as ")
    assert report(Args(two, same=True)) == 1
    assert "only one of the studies has it: losses.floor\n" in capsys.readouterr().out
    with pytest.raises(UserError, match="has no tables"):
        differences(two[0], two[0] / "nowhere")
    with pytest.raises(UserError, match="--same compares two studies; 1 are given"):
        report(Args(two[:1], same=True))
