"""Spaces, the held-out images that rank their models, and the commands that train them. These tests need no Ray cluster."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from pipelines.files.store import Store
from pipelines.study.config import StudyConfig
from pipelines.study.leaderboard import leaderboard, ranking, varied
from pipelines.study.session import run_study
from pipelines.study.specs import build_recipe, build_specs, sweep_specs
from pipelines.sweep import SweepConfig, sweep
from tests.support import fake_study
from tests.support.builders import ROOT
from tune_spaces import Base, get_space, space_names
from uvb.data import ImageSet, load_dataset
from uvb.errors import UserError
from uvb.models.capacity import default_widths, parameters
from uvb.spec import DataRef


@pytest.fixture
def base(digits: ImageSet) -> Base:
    data = DataRef(digits.name, digits.checksum, digits.shape, 1500)
    return Base(data, ("uvb", "deen"), (0.5, 1.0), (0,), build_recipe(StudyConfig(epochs=2)))


def test_every_space_gives_distinct_specs_that_vary_alike_for_each_model(base: Base) -> None:
    assert {"sigma_grid", "capacity", "recipe", "activation"} <= set(space_names())
    for name in ("sigma_grid", "capacity", "recipe", "recipe_details", "activation"):
        specs = get_space(name).specs(base)
        assert len({s.spec_id for s in specs}) == len(specs)
        varied = {m: sorted(str((s.sigma, s.recipe, s.activation)) for s in specs if s.model == m) for m in base.models}
        assert varied["uvb"] == varied["deen"]  # the same search for both
        assert get_space(name).specs.__doc__


def test_capacity_space_matches_counts(base: Base) -> None:
    counts: dict[str, list[int]] = {"uvb": [], "deen": []}
    for spec in get_space("capacity").specs(base):
        counts[spec.model].append(parameters(spec.model, spec.data.shape, spec.widths))
    assert sorted(counts["uvb"]) == counts["uvb"]
    assert counts["uvb"][0] < counts["uvb"][1] < counts["uvb"][2]
    for ours, theirs in zip(counts["uvb"], counts["deen"], strict=True):
        assert abs(theirs / ours - 1) <= 0.01


def test_get_space_refuses_an_unknown_name() -> None:
    with pytest.raises(UserError, match="unknown space 'nowhere'"):
        get_space("nowhere")


def test_full_study_refuses_bad_input_in_one_line_and_writes_nothing(tmp_path: Path) -> None:
    """The command runs in its own process. tests/pipelines/test_bad_input.py has all other refusals."""
    command = [sys.executable, str(ROOT / "pipelines" / "full_study.py"), "--sigmas", "0"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert "--sigmas 0: it must be" in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_dry_run_says_what_and_how_long_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    few = {"train_images": 64, "eval_images": 20, "eval_test_images": 20, "eval_draws": 1, "address": "local"}
    last, failures = run_study(StudyConfig(sigmas=(1.0,), epochs=2, dry_run=True, **few))
    said = capsys.readouterr().out
    assert not failures
    for model in ("uvb", "deen", "vae"):
        count = parameters(model, (1, 8, 8), default_widths(model, (1, 8, 8)))
        assert re.search(rf"^{model} σ=1 .*{count:,}", said, re.M)
    for experiment, models in (("losses", 3), ("likelihood", 3), ("jump_quality", 3)):
        assert re.search(rf"^{experiment} +{models} +[\d,]+ +[\d,.]+$", said, re.M)
    assert re.search(r"3 models: about .* of training, .* of measurements", last)
    assert not list(tmp_path.iterdir())
    uvb = build_specs(StudyConfig(sigmas=(1.0,), epochs=2, **few), load_dataset("digits"))[0]
    Store(tmp_path / "outputs" / "digits").write_json(f"models/{uvb.spec_id}/done.json", {})
    last, _ = run_study(StudyConfig(sigmas=(1.0,), epochs=2, dry_run=True, **few))
    assert "1 of 3 models are trained already" in capsys.readouterr().out
    assert last.startswith("2 models: about")


@pytest.mark.parametrize(
    ("space", "chosen"),
    [("sigma_grid", False), ("recipe_details", True), ("recipe", True)],
)
def test_sweep_chooses_by_held_out_images_and_never_by_the_test_set(
    space: str, chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_study = Mock(return_value=("", []))
    monkeypatch.setattr("pipelines.study.session.run_study", run_study)
    monkeypatch.setattr("pipelines.study.leaderboard.ranking", lambda store: [])
    assert sweep(SweepConfig(space=space)) == 0
    (*_, search), options = run_study.call_args
    assert (options["held_out"], search is not None) == (chosen, space == "recipe")


@pytest.mark.parametrize(("held_out", "name", "count"), [(False, "digits", 1500), (True, "digits-validation", 1200)])
def test_run_study_holds_out_training_images(
    held_out: bool, name: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test looks at the images that `run_study` gives to the space."""
    specs_of = Mock(side_effect=build_specs)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipelines.study.session.dry_run", Mock(return_value=""))
    run_study(StudyConfig(dry_run=True, address="local"), specs_of, held_out=held_out)
    images = specs_of.call_args.args[1]
    assert (images.name, len(images.train)) == (name, count)


def test_sweep_specs_refuses_models_that_the_space_does_not_train(digits: ImageSet) -> None:
    """The spaces `questions` and `remark4` fix their models."""
    own = sweep_specs(SweepConfig(space="questions"), digits)
    assert sweep_specs(SweepConfig(space="questions", models=tuple({spec.model for spec in own})), digits) == own
    for models in (("uvb",), ("uvb", "vae")):
        with pytest.raises(UserError, match=r"--models uvb.*: the space questions trains its own"):
            sweep_specs(SweepConfig(space="questions", models=models), digits)


def test_ranking_sorts_the_trainings_of_each_model(tmp_path: Path) -> None:
    """The best training is first, and trainings without a loss are last. Each line names the settings that differ."""
    specs = [
        dataclasses.replace(fake_study.spec(model), recipe=fake_study.spec(model).recipe.changed(batch_size=batch))
        for model in ("uvb", "deen")
        for batch in (32, 64, 128)
    ]
    for number, spec in enumerate(specs):
        fake_study.add_model(tmp_path, spec)
        path = tmp_path / "tasks" / "losses" / spec.spec_id / "result.json"
        blob = json.loads(path.read_text())
        for row in blob["rows"]:
            row["loss"] = 10.0 - number
        fake_study.write(path, blob)
    for name in ("models/{}/done.json", "tasks/losses/{}/result.json"):
        (tmp_path / name.format(specs[0].spec_id)).unlink()
    Store(tmp_path).write_json(f"models/{specs[0].spec_id}/stopped.json", {})
    (tmp_path / "study.json").write_text(json.dumps({"specs": [spec.spec_id for spec in specs]}))
    leaderboard(tmp_path, "batches")
    head, *lines = ranking(Store(tmp_path))
    assert head == "deen σ=1 on digits:"
    assert [re.sub(r" ± \S+ +", ", ", line.strip()) for line in lines] == [
        "1. 5.000, batch size 128", "2. 6.000, batch size 64", "3. 7.000, batch size 32", "uvb σ=1 on digits:",
        "1. 8.000, batch size 128", "2. 9.000, batch size 64", "3. stopped early    batch size 32",
    ]  # fmt: skip


def test_varied_names_every_setting_in_which_trainings_of_one_model_differ() -> None:
    spec = fake_study.spec("uvb")
    rates = [dataclasses.replace(spec, recipe=spec.recipe.changed(learning_rate=rate, beta2=0.9)) for rate in (1e-3, 4e-3)]
    assert list(varied(rates)[rates[0].spec_id].items()) == [("learning_rate", 1e-3)]
    sizes = [dataclasses.replace(spec, data=dataclasses.replace(spec.data, train_images=n), sigma=n / 100) for n in (50, 100)]
    others = [*sizes, dataclasses.replace(spec, widths=dataclasses.replace(spec.widths, hidden=7))]
    assert varied(others)[sizes[1].spec_id] == {"train_images": 100, "widths": str(spec.widths)}
    assert varied([spec, fake_study.spec("deen")]) == {spec.spec_id: {}, fake_study.spec("deen").spec_id: {}}


def test_build_specs_matches_narrower_models_too(digits: ImageSet) -> None:
    counts = {s.model: parameters(s.model, s.data.shape, s.widths) for s in build_specs(StudyConfig(width=0.5), digits)}
    assert counts["uvb"] == counts["vae"] < 0.5 * parameters("uvb", digits.shape, default_widths("uvb", digits.shape))
    assert counts["deen"] == pytest.approx(counts["uvb"], rel=0.01)
    with pytest.raises(UserError, match=r"--width 0"):
        StudyConfig(width=0.0)
