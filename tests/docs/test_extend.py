"""The package of docs/extend.md adds a data set, a loss, a sampler, an experiment and a sweep."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.builders import ROOT, tiny_spec
from tune_spaces.registry import SPACES, Base, get_space
from uvb.data import ImageSet, load_dataset
from uvb.data.registry import DATASETS
from uvb.experiments import Context, get_experiment
from uvb.experiments.registry import EXPERIMENTS
from uvb.measure.losses import EvalConfig
from uvb.models import build_model, get_model
from uvb.models.base import Energy
from uvb.models.registry import MODELS
from uvb.noise import normal
from uvb.plan import Plan
from uvb.sampling import get_sampler
from uvb.sampling.chains import begin
from uvb.sampling.registry import SAMPLERS
from uvb.spec import RECIPES, DataRef
from uvb.training.objectives import OBJECTIVES, build_objective

PAGE = (ROOT / "docs" / "extend.md").read_text()


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's package, laid out as pip lays out an installed one."""
    for registry in (DATASETS, OBJECTIVES, MODELS, SAMPLERS, EXPERIMENTS, SPACES):
        monkeypatch.setattr(registry, "known", dict(registry.known))
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "plugins.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.S)))
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    points = tomllib.loads(toml)["project"]["entry-points"]
    groups = (f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in named.items()) for group, named in points.items())
    info = tmp_path / "my_package-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("".join(groups))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.startswith("my_package")]:
        del sys.modules[name]


def test_data_set_of_the_page_loads() -> None:
    images = load_dataset("stripes")
    assert (images.train.shape, images.test.shape) == ((2000, 1, 8, 8), (500, 1, 8, 8))
    assert (images.train == images.train[..., :1]).all()


def test_loss_of_the_page_is_the_huber_loss(digits: ImageSet) -> None:
    model = build_model(tiny_spec(digits, "uvb"))
    x, noise = digits.to_unit(digits.test[:3]), normal((3, *digits.shape), 0, "n")
    eps, weight = torch.zeros(3, model.noise_dim), torch.tensor([0.5, 0.5, 0.0])
    apart = (model(x + model.sigma * noise, eps) - x).abs()
    huber = torch.where(apart < 1, apart.square() / 2, apart - 0.5).flatten(1).sum(1)
    assert get_model("huber_uvb").objective == "huber"
    torch.testing.assert_close(build_objective("huber", model)(x, noise, eps, weight), huber[:2].mean())


def test_sampler_of_the_page_lowers_the_energy(digits: ImageSet) -> None:
    model = build_model(tiny_spec(digits, "deen"))
    assert isinstance(model, Energy)
    state, sampler = begin(4, digits.shape, 0), get_sampler("noiseless")
    after = sampler.step(model, state, 0, **sampler.settings(1.0))
    eps = torch.zeros(4, model.noise_dim)
    assert (model.energy(after.y, eps) < model.energy(state.y, eps)).all()


def test_sampler_of_the_page_is_an_experiment_of_a_new_process(tmp_path: Path) -> None:
    code = "from uvb.experiments import get_experiment; print(get_experiment('walk_jump_noiseless').where)"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, check=True).stdout == b"largest\n"
    )


def test_experiment_of_the_page_measures_a_model(digits: ImageSet) -> None:
    spec = tiny_spec(digits, "uvb")
    context = Context(digits, Plan(), EvalConfig())
    found = get_experiment("brightness").run(build_model(spec), spec, context).scalars
    assert found["clean"] == pytest.approx(context.shown_images(spec)[0].mean().item())
    assert found.keys() == {"clean", "denoised"}


def test_sweep_of_the_page_varies_the_batch_and_holds_images_out(digits: ImageSet) -> None:
    data = DataRef(digits.name, digits.checksum, digits.shape, len(digits.train))
    space = get_space("batch_sizes")
    specs = space.specs(Base(data, ("uvb", "deen"), (1.0,), (0,), RECIPES["fast"]))
    assert [(spec.model, spec.recipe.batch_size) for spec in specs] == [(m, b) for m in ("uvb", "deen") for b in (32, 64, 128)]
    assert space.kind == "choice"
