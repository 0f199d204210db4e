"""Every experiment runs on each model that it applies to, depends on its seed, and appears in the report."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipelines.files.study_files import StudyFiles
from pipelines.reporting.figures import Study, drawings
from pipelines.reporting.tables import build_tables
from tests.support import fake_study
from tests.support.builders import tiny_spec
from tests.uvb.experiments.helpers import Gaussian, context_of, run
from uvb.data import ImageSet
from uvb.errors import UserError
from uvb.experiments import experiment_names, get_experiment
from uvb.models import build_model, model_names
from uvb.models.base import Energy, LatentEnergy
from uvb.sampling import sampler_names

pytestmark = pytest.mark.usefixtures("short_grids")


def test_experiment_names_contain_the_papers() -> None:
    default = experiment_names(default_only=True)
    figures = {"denoise_rows", "walk_jump", "energies", "nebula", "decoder_samples", "one_z"}
    assert {"losses", "internals", *figures} <= set(default)
    assert {"convexity", "score_error", "walk_jump_baoab"} <= set(experiment_names()) - set(default)
    with pytest.raises(UserError, match="walk_jump"):
        get_experiment("nonsense")


@pytest.mark.parametrize("model", sorted(model_names()))
def test_experiments_run_on_exactly_the_models_they_apply_to(images: ImageSet, model: str) -> None:
    built = build_model(tiny_spec(images, model)).double()
    ran = []
    for name in experiment_names():
        experiment = get_experiment(name)
        if not experiment.applies(type(built), images.name):
            assert experiment.data == "mixture" or not isinstance(built, experiment.needs)
            continue
        result = experiment.run(built, tiny_spec(images, model), context_of(images, scale=0.01))
        json.dumps(result.scalars, allow_nan=False)
        assert all(bool(array.isfinite().all()) for array in result.arrays.values()), name
        ran.append(name)
    assert {"losses", "denoise_rows", "score_error"} <= set(ran)
    assert ("one_z" in ran) == isinstance(built, LatentEnergy)
    assert ("walk_jump" in ran) == isinstance(built, Energy)


class Counted(Gaussian):
    """A Gaussian that counts its gradients, one for each image. A call that needs no gradient counts as half a gradient."""

    count = 0.0

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        Counted.count += len(y) * (1.0 if y.requires_grad else 0.5)
        return super().energy(y, eps)

    def gradient(self, y: Tensor, eps: Tensor) -> Tensor:
        Counted.count += len(y)
        return (y - self.mean) / self.variance

    def value_and_gradient(self, y: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        return super().energy(y, eps), self.gradient(y, eps)


@pytest.mark.parametrize("name", [n for n in experiment_names() if get_experiment(n).applies(Gaussian, "digits")])
def test_experiment_takes_about_as_many_gradients_as_it_declares(images: ImageSet, name: str) -> None:
    """`--dry-run` estimates the time from the declared number. NEBULA may take fewer, because its flow may end early."""
    Counted.count, context = 0.0, context_of(images, scale=0.3)
    get_experiment(name).run(Counted(variance=1.2), tiny_spec(images), context)
    declared = get_experiment(name).gradients(tiny_spec(images), context)
    assert (0.0 if name == "nebula" else 0.6) < Counted.count / declared < 1.6


def test_experiments_are_keyed_by_their_seed(images: ImageSet) -> None:
    """The same seed gives the same bits twice. Another seed gives other images, noise or chains."""
    spec = tiny_spec(images)
    model = build_model(spec).double()
    for name in experiment_names():
        if get_experiment(name).applies(type(model), images.name):
            one, two, other = (get_experiment(name).run(model, spec, context_of(images, scale=0.01, seed=s)) for s in (0, 0, 1))
            assert one.scalars == two.scalars, name
            assert all(torch.equal(one.arrays[k], two.arrays[k]) for k in one.arrays), name
            if name not in ("losses", "internals", "score_error", "energies"):  # these use the seed of the evaluation
                same_scalars = one.scalars == other.scalars
                assert not (same_scalars and all(torch.equal(one.arrays[k], other.arrays[k]) for k in one.arrays)), name


def test_report_shows_what_experiments_return(images: ImageSet, tmp_path: Path) -> None:
    """Results in a study's files are read into tables and drawn."""
    drawn = {"walk_jump", "nebula", "energies", "decoder_samples", "one_z", "convexity", "denoise_rows"}
    for model in ("uvb", "deen", "vae"):
        spec = tiny_spec(images, model)
        fake_study.write(tmp_path / "models" / spec.spec_id / "spec.json", spec.to_json())
        fake_study.write(tmp_path / "models" / spec.spec_id / "done.json", {"seconds": 1.0})
        built = build_model(spec).double()
        for name in experiment_names():
            if get_experiment(name).applies(type(built), images.name):
                result = get_experiment(name).run(built, spec, context_of(images, scale=0.05))
                arrays = {k.replace("/", "__"): v.float().numpy() for k, v in result.arrays.items()}
                fake_study.result(tmp_path, name, spec.spec_id, result.scalars, **arrays)
    tables = build_tables(tmp_path)
    suffixes = ["", *(f"_{name}" for name in sampler_names() if name != "langevin")]
    assert set(tables["sampling"]["variant"]) == {f"{jump}{suffix}" for jump in ("jump", "second_jump") for suffix in suffixes}
    study = Study(StudyFiles(tmp_path), tables)
    pictures = {d.needs: [p.name for p in d.pictures(study)] for d in drawings() if d.needs in drawn}
    assert all(pictures[name] for name in drawn)
    names = "\n".join(name for group in pictures.values() for name in group)
    assert all(part in names for part in ("jumps_", "jumps2_", "classes_", "transitions_", "_baoab", "decoder_rows_"))


def test_mixture_applies_only_to_its_data_set(images: ImageSet) -> None:
    experiment = get_experiment("mixture")
    assert experiment.applies(Gaussian, "mixture")
    assert not experiment.applies(Gaussian, "digits")
    with pytest.raises(UserError, match="mixture"):
        run("mixture", Gaussian(), images)
