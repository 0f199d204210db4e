"""Tables: their columns, and whether their numbers are those in the study's files."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.files.study_files import StudyFiles
from pipelines.reporting.schemas import SCHEMAS, frame, read_table, write_table
from pipelines.reporting.tables import build_tables, capacity, curves, internals, losses, make_tables, sampling
from tests.support import fake_study
from tests.support.builders import ROOT
from uvb.errors import UserError
from uvb.models.capacity import widths_at

DESCRIPTION = "dataset model sigma seed recipe activation batch_size train_images widths parameters epochs"


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    for model in ("uvb", "deen"):
        fake_study.add_model(tmp_path, fake_study.spec(model, dataset="mnist"))
    return tmp_path


def test_tables_keep_the_columns_that_others_read(study: Path) -> None:
    """Programs that read these files rely on the names and the order of the columns."""
    build_tables(study)
    promised = {
        "losses": (
            "spec_id split estimator",
            f"{DESCRIPTION} loss stderr floor nonparametric mean_image noisy_image paper_loss run_id",
        ),
        "internals": ("spec_id quantity", f"{DESCRIPTION} value stderr paper_value run_id"),
        "curves": ("spec_id epoch", "train_loss test_loss kl recon images_per_s seconds time train_probe"),
    }
    for name, (key, others) in promised.items():
        table, keys = pd.read_parquet(study / "tables" / f"{name}.parquet"), key.split()
        assert list(table.columns) == [*keys, *others.split()]
        assert list(SCHEMAS[name].key) == keys
        assert len(table)
        assert not table.duplicated(keys).any()
        assert table[keys].apply(tuple, axis=1).is_monotonic_increasing


def test_build_tables_writes_every_table_with_its_schema(study: Path) -> None:
    built = build_tables(study)
    assert set(built) == set(SCHEMAS)
    for name, table in built.items():
        assert len(table), name
        pd.testing.assert_frame_equal(read_table(study / "tables" / f"{name}.parquet", name), table)


def test_build_tables_gives_the_same_bytes_for_the_same_files(study: Path) -> None:
    build_tables(study)
    first = {p.name: p.read_bytes() for p in (study / "tables").iterdir()}
    build_tables(study)
    assert {p.name: p.read_bytes() for p in (study / "tables").iterdir()} == first
    assert set(first) == {f"{name}.parquet" for name in SCHEMAS}


def test_losses_hold_the_exact_references(study: Path) -> None:
    table = losses(StudyFiles(study))
    train, test = table[table["split"] == "train"], table[table["split"] == "test"]
    assert test["floor"].isna().all()
    assert train["nonparametric"].isna().all()
    np.testing.assert_allclose(train["floor"], [fake_study.floor(s) for s in train["sigma"]])
    assert (test["nonparametric"] > 0).all()
    # Digits are not in the paper.
    assert table["paper_loss"].isna().all()


def test_losses_without_a_reference_have_no_floor(mnist: Path) -> None:
    table = losses(StudyFiles(mnist))
    assert len(table) == 6  # UVB's energy, UVB's decoder and DEEN's energy, each on two splits
    assert table["floor"].isna().all()
    assert table["nonparametric"].isna().all()


def test_losses_hold_the_papers_figures(mnist: Path) -> None:
    table = losses(StudyFiles(mnist)).set_index(["model", "split", "estimator"])["paper_loss"]
    assert table["uvb", "test", "energy"] == 15.0
    assert table["deen", "train", "energy"] == 20.1
    assert math.isnan(table["uvb", "test", "decoder"])  # the paper's figure is of the energy's estimator, y - σ²∇f


def test_losses_leave_out_the_papers_figure_for_another_activation(tmp_path: Path) -> None:
    fake_study.add_model(tmp_path, fake_study.spec("uvb", dataset="mnist", activation="relu"))
    assert losses(StudyFiles(tmp_path))["paper_loss"].isna().all()
    assert internals(StudyFiles(tmp_path))["paper_value"].isna().all()


def test_internals_hold_the_papers_tables_4_and_5(mnist: Path) -> None:
    values = internals(StudyFiles(mnist)).set_index("quantity")["paper_value"].dropna().to_dict()
    assert values == {"kl_noisy": 692.0, "recon_clean_y_half": 103.0}


def test_losses_take_the_floor_of_the_images_trained_on(tmp_path: Path) -> None:
    """A reference, such as the floor, counts only for the same data, number of images and noise level."""
    uvb = fake_study.spec("uvb")
    fewer = dataclasses.replace(uvb, data=dataclasses.replace(uvb.data, train_images=1000))
    for of, value in ((uvb, 3.25), (fewer, 3.0)):
        fake_study.add_model(tmp_path, of)
        blob = {"data": of.to_json()["data"], "sigma": 1.0, "floor": value, "nonparametric": value + 0.1}
        fake_study.result(tmp_path, "reference", f"{of.data.train_images}", blob)
    other = dataclasses.replace(uvb, data=dataclasses.replace(uvb.data, checksum="other"))
    fake_study.add_model(tmp_path, other)
    table = losses(StudyFiles(tmp_path)).query("estimator == 'energy'").set_index(["spec_id", "split"])
    assert (table.loc[(uvb.spec_id, "train"), "floor"], table.loc[(fewer.spec_id, "train"), "floor"]) == (3.25, 3.0)
    assert table.loc[(fewer.spec_id, "test"), "nonparametric"] == pytest.approx(3.1)
    assert table.loc[other.spec_id, ["floor", "nonparametric"]].isna().all(axis=None)


def test_capacity_is_relative_to_uvb(study: Path) -> None:
    ratio = capacity(StudyFiles(study)).set_index("model")["ratio"]
    assert ratio["uvb"] == 1.0
    assert ratio["deen"] == pytest.approx(1, abs=0.01)


def test_capacity_compares_with_the_uvb_nearest_in_size(tmp_path: Path) -> None:
    for model, factor in (("uvb", 1.0), ("uvb", 0.5), ("deen", 1.0)):
        fake_study.add_model(tmp_path, fake_study.spec(model, widths=widths_at(model, (1, 8, 8), factor)))
    table = capacity(StudyFiles(tmp_path))
    small, large = sorted(table.query("model == 'uvb'")["parameters"])
    (deen,) = table.query("model == 'deen'")["parameters"]
    assert small < 0.5 * deen  # so the small UVB is not DEEN's match
    assert table.set_index("parameters")["ratio"].to_dict() == {small: 1.0, large: 1.0, deen: deen / large}


def test_curves_include_unfinished_models_and_capacity_does_not(tmp_path: Path) -> None:
    of = fake_study.spec("uvb")
    fake_study.add_model(tmp_path, of)
    (tmp_path / "models" / of.spec_id / "done.json").unlink()
    assert len(curves(StudyFiles(tmp_path))) == 12
    assert capacity(StudyFiles(tmp_path)).empty


def test_capacity_counts_parameters_that_are_not_stored(tmp_path: Path) -> None:
    of = fake_study.spec("uvb", dataset="mnist")
    fake_study.add_model(tmp_path, of)
    fake_study.write(tmp_path / "models" / of.spec_id / "done.json", {"seconds": 1.0})
    assert capacity(StudyFiles(tmp_path))["parameters"].tolist() == [26_777_528]  # Table 1's 2.7e7


def test_sampling_has_a_row_for_each_variant(study: Path) -> None:
    table = sampling(StudyFiles(study))
    assert sorted(table["variant"]) == ["jump", "jump", "second_jump", "second_jump"]
    stored = [result.values for _, result in StudyFiles(study).of_models("walk_jump")]
    assert set(table["diverged"]) == {len(values["diverged"]) for values in stored}
    assert set(table["chains"]) == {values["chains"] for values in stored}


def test_losses_take_run_ids_from_mlflow_json(mnist: Path) -> None:
    spec_id = fake_study.spec("uvb", dataset="mnist").spec_id
    fake_study.write(mnist / "mlflow.json", {"runs": {spec_id: "run-1"}})
    table = losses(StudyFiles(mnist))
    assert set(table.loc[table["model"] == "uvb", "run_id"]) == {"run-1"}
    assert table.loc[table["model"] == "deen", "run_id"].isna().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"surplus": 1}, "surplus"), ({"sigma": "one"}, "references"), ({"floor": None}, "floor is null"), ({}, "appears twice")],
)
def test_frame_refuses_a_broken_row(change: dict[str, object], message: str) -> None:
    row = dict.fromkeys(SCHEMAS["references"].names, 1.0) | {"dataset": "d", "checksum": "c", "train_images": 1}
    assert len(frame("references", [row])) == 1
    with pytest.raises(ValueError, match=message):
        frame("references", [row | change] if change else [row, row])


def test_read_table_reads_every_table_that_is_kept() -> None:
    """Older versions wrote the copies in results/."""
    paths = sorted((ROOT / "results" / "studies").glob("*/tables/*.parquet"))
    assert len(paths) > 40
    for path in paths:
        if path.stem in SCHEMAS:
            assert list(read_table(path, path.stem).columns) == SCHEMAS[path.stem].names


def test_write_table_refuses_other_columns(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="columns"):
        write_table(tmp_path / "losses.parquet", "losses", pd.DataFrame({"loss": [1.0]}))
    assert not list(tmp_path.iterdir())


def test_build_tables_refuses_a_folder_that_is_no_study_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a study"):
        build_tables(tmp_path)
    folder = tmp_path / "models" / "abc"
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text('{"half')
    with pytest.raises(UserError, match="not valid JSON"):
        build_tables(tmp_path)


def test_build_tables_refuses_damaged_arrays_in_one_line(mnist: Path) -> None:
    path = mnist / "tasks" / "losses" / fake_study.spec("uvb", dataset="mnist").spec_id / "arrays.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match="damaged"):
        build_tables(mnist)


def test_tables_of_an_old_copy_are_read_from_the_copy() -> None:
    """The old copy lacks the numbers of experiments, so its tables cannot be made again."""
    files = StudyFiles(ROOT / "results" / "studies" / "mnist-uvb-vae-1-epoch")
    assert not (files.root / "tasks").exists()
    made = make_tables(files)
    for name in ("losses", "references", "internals", "sampling"):
        assert made[name].equals(read_table(files.root / "tables" / f"{name}.parquet", name))
    assert len(made["losses"]) == 8


def test_build_tables_of_an_empty_study_are_empty(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for name, table in build_tables(tmp_path).items():
        assert table.empty
        assert list(table.columns) == SCHEMAS[name].names
        assert read_table(tmp_path / "tables" / f"{name}.parquet", name).empty


def test_study_files_order_models_as_the_paper_does(study: Path) -> None:
    """UVB comes before DEEN, and smaller sigma before larger. `results` has the content of each result.json."""
    files = StudyFiles(study)
    shown = [(m.spec.model, m.spec.sigma) for m, _ in files.of_models("losses")]
    assert shown[:3] == [("uvb", 0.3), ("uvb", 0.4), ("uvb", 0.5)]
    assert shown[8] == ("deen", 0.3)
    some = next(iter(files.results("losses").values()))
    assert dict(some.values) == json.loads((some.folder / "result.json").read_text())
