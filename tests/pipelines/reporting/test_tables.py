"""Tables: the contract that others read, and the figures in them against what the files hold."""

import dataclasses
import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.files.study_files import StudyFiles
from pipelines.reporting.facts import run_facts
from pipelines.reporting.headlines import headlines, lone_headlines
from pipelines.reporting.pairing import pairs
from pipelines.reporting.render import said
from pipelines.reporting.schemas import SCHEMAS, frame, read_table, write_table
from pipelines.reporting.statistics import main_group, over_seeds, own_estimator
from pipelines.reporting.tables import build_tables, capacity, curves, internals, losses, sampling
from tests.support import fake_study
from uvb import paper
from uvb.errors import UserError
from uvb.models.capacity import widths_at

DESCRIPTION = [
    "dataset", "model", "sigma", "seed", "recipe", "activation", "batch_size", "train_images", "widths", "parameters",
    "epochs",
]  # fmt: skip


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    for model in ("uvb", "deen"):
        fake_study.add_model(tmp_path, fake_study.spec(model, dataset="mnist"))
    return tmp_path


def test_contract_of_the_three_tables_others_read(study: Path) -> None:
    """Names and order as promised: a change here breaks the readers of these files."""
    build_tables(study)
    promised = {
        "losses": [
            "spec_id",
            "split",
            "estimator",
            *DESCRIPTION,
            "loss",
            "stderr",
            "floor",
            "nonparametric",
            "mean_image",
            "noisy_image",
            "paper_loss",
            "run_id",
        ],
        "internals": ["spec_id", "quantity", *DESCRIPTION, "value", "stderr", "paper_value", "run_id"],
        "curves": [
            *("spec_id", "epoch", "train_loss", "test_loss", "kl", "recon", "images_per_s", "seconds", "time", "train_probe")
        ],
    }
    keys = {"losses": 3, "internals": 2, "curves": 2}
    for name, columns in promised.items():
        table = pd.read_parquet(study / "tables" / f"{name}.parquet")
        assert list(table.columns) == columns
        assert list(SCHEMAS[name].key) == columns[: keys[name]]
        assert len(table)
        assert not table.duplicated(columns[: keys[name]]).any()
        assert table[columns[: keys[name]]].apply(tuple, axis=1).is_monotonic_increasing


def test_every_table_is_written_with_its_schema(study: Path) -> None:
    built = build_tables(study)
    assert set(built) == set(SCHEMAS)
    for name, table in built.items():
        assert len(table), name
        pd.testing.assert_frame_equal(read_table(study / "tables" / f"{name}.parquet", name), table)


def test_same_files_give_the_same_bytes(study: Path) -> None:
    build_tables(study)
    first = {p.name: p.read_bytes() for p in (study / "tables").iterdir()}
    build_tables(study)
    assert {p.name: p.read_bytes() for p in (study / "tables").iterdir()} == first
    assert set(first) == {f"{name}.parquet" for name in SCHEMAS}


def test_losses_stand_beside_the_exact_references(study: Path) -> None:
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
    assert len(table) == 6  # two splits of UVB's energy and decoder, and of DEEN's energy
    assert table["floor"].isna().all()
    assert table["nonparametric"].isna().all()


def test_losses_stand_beside_the_paper(mnist: Path) -> None:
    table = losses(StudyFiles(mnist)).set_index(["model", "split", "estimator"])["paper_loss"]
    assert table["uvb", "test", "energy"] == 15.0
    assert table["deen", "train", "energy"] == 20.1
    assert math.isnan(table["uvb", "test", "decoder"])  # the paper's figure is of y - sigma^2 grad f alone


def test_the_papers_figure_is_not_put_beside_another_activation(tmp_path: Path) -> None:
    fake_study.add_model(tmp_path, fake_study.spec("uvb", dataset="mnist", activation="relu"))
    assert losses(StudyFiles(tmp_path))["paper_loss"].isna().all()
    assert internals(StudyFiles(tmp_path))["paper_value"].isna().all()


def test_internals_stand_beside_tables_4_and_5(mnist: Path) -> None:
    values = internals(StudyFiles(mnist)).set_index("quantity")["paper_value"].dropna().to_dict()
    assert values == {"kl_noisy": 692.0, "recon_clean_y_half": 103.0}


def test_a_floor_is_that_of_the_images_trained_on(tmp_path: Path) -> None:
    """Fewer images, another floor: the reference of the same data, number of images and noise level, or none."""
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


def test_of_several_uvbs_the_nearest_in_size_is_the_measure(tmp_path: Path) -> None:
    for model, factor in (("uvb", 1.0), ("uvb", 0.5), ("deen", 1.0)):
        fake_study.add_model(tmp_path, fake_study.spec(model, widths=widths_at(model, (1, 8, 8), factor)))
    table = capacity(StudyFiles(tmp_path))
    small, large = sorted(table.query("model == 'uvb'")["parameters"])
    (deen,) = table.query("model == 'deen'")["parameters"]
    assert small < 0.5 * deen  # far from it
    assert table.set_index("parameters")["ratio"].to_dict() == {small: 1.0, large: 1.0, deen: deen / large}


def test_curves_of_unfinished_models_are_kept_and_their_capacity_is_not(tmp_path: Path) -> None:
    of = fake_study.spec("uvb")
    fake_study.add_model(tmp_path, of)
    (tmp_path / "models" / of.spec_id / "done.json").unlink()
    assert len(curves(StudyFiles(tmp_path))) == 12
    assert capacity(StudyFiles(tmp_path)).empty


def test_parameters_are_counted_where_not_stored(tmp_path: Path) -> None:
    of = fake_study.spec("uvb", dataset="mnist")
    fake_study.add_model(tmp_path, of)
    fake_study.write(tmp_path / "models" / of.spec_id / "done.json", {"seconds": 1.0})
    assert capacity(StudyFiles(tmp_path))["parameters"].tolist() == [26_777_528]  # Table 1's 2.7e7


def test_sampling_has_a_row_a_variant(study: Path) -> None:
    table = sampling(StudyFiles(study))
    assert sorted(table["variant"]) == ["jump", "jump", "second_jump", "second_jump"]
    stored = [result.values for _, result in StudyFiles(study).of_models("walk_jump")]
    assert set(table["diverged"]) == {len(values["diverged"]) for values in stored}
    assert set(table["chains"]) == {values["chains"] for values in stored}


def test_run_ids_come_from_the_projection(mnist: Path) -> None:
    spec_id = fake_study.spec("uvb", dataset="mnist").spec_id
    fake_study.write(mnist / "mlflow.json", {"runs": {spec_id: "run-1"}})
    table = losses(StudyFiles(mnist))
    assert set(table.loc[table["model"] == "uvb", "run_id"]) == {"run-1"}
    assert table.loc[table["model"] == "deen", "run_id"].isna().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surplus": 1}, "surplus"),
        ({"sigma": "one"}, "references"),
        ({"floor": None}, "floor is null"),
        ({}, "appears twice"),
    ],
)
def test_a_broken_row_is_refused(change: dict[str, object], message: str) -> None:
    row = dict.fromkeys(SCHEMAS["references"].names, 1.0) | {"dataset": "d", "checksum": "c", "train_images": 1}
    assert len(frame("references", [row])) == 1
    with pytest.raises(ValueError, match=message):
        frame("references", [row, row | change] if not change else [row | change])


def test_a_table_with_other_columns_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="columns"):
        write_table(tmp_path / "losses.parquet", "losses", pd.DataFrame({"loss": [1.0]}))
    assert not list(tmp_path.iterdir())


def test_no_study_and_damaged_files_are_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no study"):
        build_tables(tmp_path)
    folder = tmp_path / "models" / "abc"
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text('{"half')
    with pytest.raises(UserError, match="not valid JSON"):
        build_tables(tmp_path)


def test_damaged_arrays_are_told_in_a_line(mnist: Path) -> None:
    path = mnist / "tasks" / "losses" / fake_study.spec("uvb", dataset="mnist").spec_id / "arrays.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match="damaged"):
        build_tables(mnist)


def test_empty_study_gives_empty_tables_of_the_right_schema(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for name, table in build_tables(tmp_path).items():
        assert table.empty
        assert list(table.columns) == SCHEMAS[name].names
        assert read_table(tmp_path / "tables" / f"{name}.parquet", name).empty


def test_paper_lookups() -> None:
    assert paper.loss("mnist", "uvb", 0.7, "test") == 9.27
    assert paper.loss("cifar10", "deen", 1.0, "test") == 52.7
    assert paper.loss("mnist", "uvb_laplace", 1.0, "train") == 58.4
    assert paper.loss("mnist", "uvb_laplace", 1.0, "test") is None
    assert paper.loss("mnist", "uvb", 0.75, "test") is None
    assert paper.loss("digits", "uvb", 1.0, "test") is None
    assert paper.parameters("cifar10", "uvb") == 4.1e7
    assert paper.parameters("digits", "uvb") is None
    assert paper.internal("mnist", "vae", 1.0, "kl_noisy") == 3.70
    assert paper.internal("mnist", "vae", 0.5, "kl_noisy") is None
    assert paper.internal("cifar10", "vae", 1.0, "kl_noisy") is None


def test_the_papers_gap_grows_with_the_noise() -> None:
    """A slip in typing Tables 2 and 3 would show: losses rise with sigma, and DEEN's lead over UVB too from 0.5 on."""
    for row in paper.LOSSES.values():
        assert len(row) == len(paper.SIGMAS)
        assert list(row) == sorted(row)
    for dataset in ("mnist", "cifar10"):
        for split in ("train", "test"):
            gap = np.subtract(paper.LOSSES[dataset, "deen", split], paper.LOSSES[dataset, "uvb", split])[2:]
            assert (np.diff(gap) > -0.2).all()
            assert gap[-1] > 4.8


def test_the_papers_figures_are_the_papers(shared: Path) -> None:
    """Tables 1 to 5, Remark 4 and Fig. 2's caption as typed in `uvb.paper`, against the paper's own text."""
    text = (shared / "paper" / "unnormalized_variational_bayes.md").read_text()

    def numbers(line: str) -> list[float]:
        return [float(n) for n in re.findall(r"\d+\.?\d*", re.sub(r"\$.*?\$|<.*?>|\([a-z]+\)", " ", line))]

    def rows(caption: str) -> list[list[float]]:
        block = text[: text.index(caption)].rstrip().split("\n\n")[-1]
        return [numbers(line) for line in block.splitlines()]

    header, *mnist = rows("Table 2: MNIST")
    assert tuple(header) == paper.SIGMAS
    for (split, model), row in zip(itertools.product(("train", "test"), ("uvb", "deen")), mnist, strict=True):
        assert tuple(row) == paper.LOSSES["mnist", model, split]
    header, *cifar = rows("Table 3: CIFAR10")  # each cell holds UVB's and DEEN's
    assert tuple(header) == paper.SIGMAS
    for split, row in zip(("train", "test"), cifar, strict=True):
        assert tuple(row[::2]) == paper.LOSSES["cifar10", "uvb", split]
        assert tuple(row[1::2]) == paper.LOSSES["cifar10", "deen", split]
    for caption, quantity in (("Table 4: The encoder", "kl_noisy"), ("Table 5: The reconstruction", "recon_clean_y_half")):
        assert rows(caption)[-1] == [paper.INTERNALS[model, quantity] for model in ("uvb", "vae")]
    (line,) = [line for line in text.splitlines() if line.startswith("MNIST CIFAR10")]
    uvb, deen = ([float(n) for n in re.findall(r"(\d\.\d) \\times", cell)] for cell in line.split("\t")[1:3])
    for i, data in enumerate(("mnist", "cifar10")):
        assert (paper.parameters(data, "uvb"), paper.parameters(data, "deen")) == (uvb[i] * 1e7, deen[i] * 1e7)
    assert f"the training loss saturated at {paper.LAPLACE_TRAIN_LOSS}" in text
    assert f"{paper.ONE_Z_BOUND}" in text[text.index("Figure 2: (denoising") :].splitlines()[0]


def test_json_result_of_the_study_is_what_was_written(study: Path) -> None:
    """`StudyFiles` keys results by folder and orders models as the paper does: UVB before DEEN, sigma ascending."""
    files = StudyFiles(study)
    shown = [(m.spec.model, m.spec.sigma) for m, _ in files.of_models("losses")]
    assert shown[:3] == [("uvb", 0.3), ("uvb", 0.4), ("uvb", 0.5)]
    assert shown[8] == ("deen", 0.3)
    some = next(iter(files.results("losses").values()))
    assert dict(some.values) == json.loads((some.folder / "result.json").read_text())


def test_a_folder_of_two_commands_shows_the_last_one(tmp_path: Path) -> None:
    """Eight epochs, then twenty; or more models first, then fewer. Without a study.json, the longer training."""
    short, long = (fake_study.spec("uvb").recipe.changed(epochs=n) for n in (8, 20))
    specs = [dataclasses.replace(fake_study.spec(m, s), recipe=short) for m in ("uvb", "deen") for s in (0.5, 1.0)]
    last = [dataclasses.replace(fake_study.spec(m), recipe=long) for m in ("uvb", "deen")]
    for spec in (*specs, *last):
        fake_study.add_model(tmp_path, spec)
    files = StudyFiles(tmp_path)
    table = losses(files)
    assert set(main_group(table, files.asked)["epochs"]) == {8}  # nobody asked: most are so
    assert set(main_group(table[table["sigma"] == 1.0])["epochs"]) == {20}  # as many: the longer
    (tmp_path / "study.json").write_text(json.dumps({"specs": [spec.spec_id for spec in last]}))
    again = StudyFiles(tmp_path)
    assert set(main_group(table, again.asked)["epochs"]) == {20}
    assert "on digits" in said(headlines(table, pairs(again), again.asked)[0])[0]
    assert set(pairs(again).query("first_id == @last[0].spec_id")["second_id"]) == {last[1].spec_id}


def test_two_rates_of_one_recipe_are_not_taken_for_two_seeds(tmp_path: Path) -> None:
    spec = fake_study.spec("uvb")
    for rate in (1e-3, 2e-3, 4e-3):
        fake_study.add_model(tmp_path, dataclasses.replace(spec, recipe=spec.recipe.changed(learning_rate=rate)))
    table = over_seeds(own_estimator(losses(StudyFiles(tmp_path)))).query("split == 'test'")
    assert set(table["recipe"]) == {"fast", "fast, learning_rate=0.001", "fast, learning_rate=0.004"}
    assert (table["seeds"] == 1).all()


def test_the_sigma_vae_is_judged_by_its_decoder(tmp_path: Path) -> None:
    """Sec. 2.2: trained on clean images, it denoises through encoder and decoder; the VAE on Y has an energy of Y."""
    for model in ("sigma_vae", "vae", "deen"):
        fake_study.add_model(tmp_path, fake_study.spec(model))
    files = StudyFiles(tmp_path)
    table = losses(files)
    own = own_estimator(table).query("split == 'test'").set_index("model")
    assert own["estimator"].to_dict() == {"sigma_vae": "decoder", "vae": "energy", "deen": "energy"}
    pair = pairs(files).query("split == 'test'").set_index("first")["difference"]
    for model in ("sigma_vae", "vae"):
        assert pair[model] == pytest.approx(own.loss[model] - own.loss["deen"], abs=1e-5)


def test_the_papers_figure_is_of_the_papers_widths(tmp_path: Path) -> None:
    narrow = fake_study.spec("uvb", dataset="mnist", widths=widths_at("uvb", (1, 28, 28), 0.5))
    fake_study.add_model(tmp_path, narrow)
    assert losses(StudyFiles(tmp_path))["paper_loss"].isna().all()


def test_images_that_changed_under_one_name_are_not_averaged(tmp_path: Path) -> None:
    """Losses on the old and on the new images do not compare: the last command's are shown."""
    old = fake_study.spec("uvb")
    new = dataclasses.replace(old, data=dataclasses.replace(old.data, checksum="other"))
    for spec in (old, new):
        fake_study.add_model(tmp_path, spec)
    for last, before in ((old, new), (new, old)):
        (tmp_path / "study.json").write_text(json.dumps({"specs": [last.spec_id]}))
        files = StudyFiles(tmp_path)
        assert files.superseded == {before.spec_id}
        assert set(losses(files)["spec_id"]) == set(internals(files)["spec_id"]) == {last.spec_id}


def test_of_equally_many_conditions_the_unchanged_recipe_with_most_images_is_shown(tmp_path: Path) -> None:
    """A search's headline is of the recipe it began with, and says which that is."""
    base = fake_study.spec("uvb")
    less = dataclasses.replace(base.data, train_images=500)
    conditions = [base, *(dataclasses.replace(base, recipe=base.recipe.changed(learning_rate=rate)) for rate in (1e-3, 9e-3))]
    conditions += [dataclasses.replace(base, data=less, recipe=base.recipe.changed(epochs=99))]
    for spec in conditions:
        fake_study.add_model(tmp_path, spec)
    table = losses(StudyFiles(tmp_path))
    assert set(main_group(table)["spec_id"]) == {base.spec_id}
    (lone,) = lone_headlines(table)
    assert "One of 4 conditions in this study: fast, silu, batch 64, 1,500 images, 11 epochs" in said(lone)[1]


def test_a_search_speaks_of_held_out_images(tmp_path: Path) -> None:
    for model in ("uvb", "deen"):
        spec = fake_study.spec(model)
        fake_study.add_model(tmp_path, dataclasses.replace(spec, data=dataclasses.replace(spec.data, name="digits-validation")))
    files = StudyFiles(tmp_path)
    (headline,) = headlines(losses(files), pairs(files))
    sentence, detail = said(headline)
    assert "a held-out loss of" in sentence
    assert "the same 200 held-out images and noise" in detail


def test_a_folder_of_two_widths_shows_the_last_ones(tmp_path: Path) -> None:
    """Half as wide first, then as wide as the paper's: the main tables and the headline are of the second, and the reverse."""
    by_size = [[fake_study.spec(m, widths=widths_at(m, (1, 8, 8), f)) for m in ("uvb", "deen")] for f in (0.5, 1.0)]
    for spec in (*by_size[0], *by_size[1]):
        fake_study.add_model(tmp_path, spec)
    for last in by_size:
        (tmp_path / "study.json").write_text(json.dumps({"specs": [spec.spec_id for spec in last]}))
        files = StudyFiles(tmp_path)
        table = losses(files)
        assert set(main_group(table, files.asked)["spec_id"]) == {spec.spec_id for spec in last}
        assert len(headlines(table, pairs(files), files.asked)) == 1


def test_what_was_measured_otherwise_than_the_last_command_is_left_out(tmp_path: Path) -> None:
    """Else two seeds measured on other images would be averaged as if they were alike."""
    specs = [fake_study.spec("uvb", seed=seed) for seed in range(3)]
    for spec, settings in zip(specs, "aab", strict=True):
        fake_study.add_model(tmp_path, spec)
        for task in ("losses", "internals"):
            path = tmp_path / "tasks" / task / spec.spec_id / "result.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"settings": settings}))
    assert len(set(losses(StudyFiles(tmp_path))["spec_id"])) == 3  # nothing says which are wanted
    (tmp_path / "tasks" / "settings.json").write_text(json.dumps({"losses": "b", "internals": "b"}))
    files = StudyFiles(tmp_path)
    assert set(losses(files)["spec_id"]) == set(internals(files)["spec_id"]) == {specs[2].spec_id}
    assert files.left_out("losses") == 2
    assert dict(run_facts(files))["left out"] == "the losses of 2 models, measured with other settings or of other weights"


def test_results_of_weights_that_are_gone_are_in_no_table(tmp_path: Path) -> None:
    spec = fake_study.spec("uvb")
    fake_study.add_model(tmp_path, spec)
    result, done = (
        tmp_path / "tasks" / "losses" / spec.spec_id / "result.json",
        tmp_path / "models" / spec.spec_id / "done.json",
    )
    result.write_text(json.dumps(json.loads(result.read_text()) | {"trained": 1.0}))
    for time, rows in ((1.0, 4), (2.0, 0)):
        done.write_text(json.dumps(json.loads(done.read_text()) | {"time": time}))
        assert len(losses(StudyFiles(tmp_path))) == rows
