"""Which models a report shows if a folder has models of several conditions or commands, or several measurements."""

import dataclasses
import json
from pathlib import Path

import pytest

from pipelines.files.study_files import StudyFiles
from pipelines.reporting.facts import run_facts
from pipelines.reporting.headlines import headlines, lone_headlines
from pipelines.reporting.pairing import pairs
from pipelines.reporting.render import said
from pipelines.reporting.statistics import main_group, over_seeds, own_estimator
from pipelines.reporting.tables import internals, losses
from tests.support import fake_study
from uvb.models.capacity import widths_at


def test_main_group_has_the_last_commands_condition(tmp_path: Path) -> None:
    """The first command trains for eight epochs. The last command trains fewer models, for twenty epochs.

    A condition is a recipe, with the batch, the activation and the training images. Without study.json the main condition is
    the one that most models have. A tie goes to more epochs.
    """
    short, long = (fake_study.spec("uvb").recipe.changed(epochs=n) for n in (8, 20))
    specs = [dataclasses.replace(fake_study.spec(m, s), recipe=short) for m in ("uvb", "deen") for s in (0.5, 1.0)]
    last = [dataclasses.replace(fake_study.spec(m), recipe=long) for m in ("uvb", "deen")]
    for spec in (*specs, *last):
        fake_study.add_model(tmp_path, spec)
    files = StudyFiles(tmp_path)
    table = losses(files)
    assert set(main_group(table, files.asked)["epochs"]) == {8}  # most models have eight
    assert set(main_group(table[table["sigma"] == 1.0])["epochs"]) == {20}  # a tie goes to more epochs
    (tmp_path / "study.json").write_text(json.dumps({"specs": [spec.spec_id for spec in last]}))
    again = StudyFiles(tmp_path)
    assert set(main_group(table, again.asked)["epochs"]) == {20}
    assert "on digits" in said(headlines(table, pairs(again), again.asked)[0])[0]
    assert set(pairs(again).query("first_id == @last[0].spec_id")["second_id"]) == {last[1].spec_id}


def test_over_seeds_keeps_two_rates_of_a_recipe_apart(tmp_path: Path) -> None:
    spec = fake_study.spec("uvb")
    for rate in (1e-3, 2e-3, 4e-3):
        fake_study.add_model(tmp_path, dataclasses.replace(spec, recipe=spec.recipe.changed(learning_rate=rate)))
    table = over_seeds(own_estimator(losses(StudyFiles(tmp_path)))).query("split == 'test'")
    assert set(table["recipe"]) == {"fast", "fast, learning_rate=0.001", "fast, learning_rate=0.004"}
    assert (table["seeds"] == 1).all()


def test_own_estimator_of_the_sigma_vae_is_its_decoder(tmp_path: Path) -> None:
    """The σ-VAE is trained on clean images and denoises by encoder and decoder (Sec. 2.2). The VAE on Y uses its energy."""
    for model in ("sigma_vae", "vae", "deen"):
        fake_study.add_model(tmp_path, fake_study.spec(model))
    files = StudyFiles(tmp_path)
    table = losses(files)
    own = own_estimator(table).query("split == 'test'").set_index("model")
    assert own["estimator"].to_dict() == {"sigma_vae": "decoder", "vae": "energy", "deen": "energy"}
    pair = pairs(files).query("split == 'test'").set_index("first")["difference"]
    for model in ("sigma_vae", "vae"):
        assert pair[model] == pytest.approx(own.loss[model] - own.loss["deen"], abs=1e-5)


def test_losses_leave_out_the_papers_figure_for_other_widths(tmp_path: Path) -> None:
    narrow = fake_study.spec("uvb", dataset="mnist", widths=widths_at("uvb", (1, 28, 28), 0.5))
    fake_study.add_model(tmp_path, narrow)
    assert losses(StudyFiles(tmp_path))["paper_loss"].isna().all()


def test_losses_leave_out_images_that_have_changed(tmp_path: Path) -> None:
    """Losses on old and new images cannot be compared, so the tables have only losses on the last command's images."""
    old = fake_study.spec("uvb")
    new = dataclasses.replace(old, data=dataclasses.replace(old.data, checksum="other"))
    for spec in (old, new):
        fake_study.add_model(tmp_path, spec)
    for last, before in ((old, new), (new, old)):
        (tmp_path / "study.json").write_text(json.dumps({"specs": [last.spec_id]}))
        files = StudyFiles(tmp_path)
        assert files.superseded == {before.spec_id}
        assert set(losses(files)["spec_id"]) == set(internals(files)["spec_id"]) == {last.spec_id}


def test_main_group_breaks_ties_by_images_and_unchanged_recipe(tmp_path: Path) -> None:
    """The headline of a search is about the unchanged recipe, and names it."""
    base = fake_study.spec("uvb")
    less = dataclasses.replace(base.data, train_images=500)
    conditions = [base, *(dataclasses.replace(base, recipe=base.recipe.changed(learning_rate=rate)) for rate in (1e-3, 9e-3))]
    conditions += [dataclasses.replace(base, data=less, recipe=base.recipe.changed(epochs=99))]
    for spec in conditions:
        fake_study.add_model(tmp_path, spec)
    table = losses(StudyFiles(tmp_path))
    assert set(main_group(table)["spec_id"]) == {base.spec_id}
    (lone,) = lone_headlines(table)
    assert (
        "This headline is about one of 4 conditions in this study: fast, silu, batch 64, 1,500 images, 11 epochs"
        in said(lone)[1]
    )


def test_headline_of_a_search_speaks_of_held_out_images(tmp_path: Path) -> None:
    for model in ("uvb", "deen"):
        spec = fake_study.spec(model)
        fake_study.add_model(tmp_path, dataclasses.replace(spec, data=dataclasses.replace(spec.data, name="digits-validation")))
    files = StudyFiles(tmp_path)
    (headline,) = headlines(losses(files), pairs(files))
    sentence, detail = said(headline)
    assert "has a lower held-out loss than" in sentence
    assert "the same 200 held-out images and noise" in detail


def test_main_group_has_the_last_commands_widths(tmp_path: Path) -> None:
    """The folder has models of half and of full width. Tables and headline show the width that was asked for last."""
    by_size = [[fake_study.spec(m, widths=widths_at(m, (1, 8, 8), f)) for m in ("uvb", "deen")] for f in (0.5, 1.0)]
    for spec in (*by_size[0], *by_size[1]):
        fake_study.add_model(tmp_path, spec)
    for last in by_size:
        (tmp_path / "study.json").write_text(json.dumps({"specs": [spec.spec_id for spec in last]}))
        files = StudyFiles(tmp_path)
        table = losses(files)
        assert set(main_group(table, files.asked)["spec_id"]) == {spec.spec_id for spec in last}
        assert len(headlines(table, pairs(files), files.asked)) == 1


def test_tables_leave_out_what_was_measured_with_other_settings(tmp_path: Path) -> None:
    """A mean over seeds must not mix losses that were measured with different settings."""
    specs = [fake_study.spec("uvb", seed=seed) for seed in range(3)]
    for spec, settings in zip(specs, "aab", strict=True):
        fake_study.add_model(tmp_path, spec)
        for task in ("losses", "internals"):
            path = tmp_path / "tasks" / task / spec.spec_id / "result.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"settings": settings}))
    assert len(set(losses(StudyFiles(tmp_path))["spec_id"])) == 3  # no settings.json says which are wanted
    (tmp_path / "tasks" / "settings.json").write_text(json.dumps({"losses": "b", "internals": "b"}))
    files = StudyFiles(tmp_path)
    assert set(losses(files)["spec_id"]) == set(internals(files)["spec_id"]) == {specs[2].spec_id}
    assert files.left_out("losses") == 2
    assert dict(run_facts(files))["left out"] == "the losses of 2 models, measured with other settings or other weights"


def test_losses_leave_out_results_of_weights_that_are_gone(tmp_path: Path) -> None:
    spec = fake_study.spec("uvb")
    fake_study.add_model(tmp_path, spec)
    result = tmp_path / "tasks" / "losses" / spec.spec_id / "result.json"
    done = tmp_path / "models" / spec.spec_id / "done.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"trained": 1.0}))
    for time, rows in ((1.0, 4), (2.0, 0)):
        done.write_text(json.dumps(json.loads(done.read_text()) | {"time": time}))
        assert len(losses(StudyFiles(tmp_path))) == rows
