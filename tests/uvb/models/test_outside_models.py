"""Models of another package. They have their own config and prior, and are matched to UVB's number of parameters."""

import dataclasses
import json
import sys
from dataclasses import dataclass

import pytest
import torch

from tests.support.builders import TINY, tiny_spec
from tests.uvb.test_registry import install
from uvb.config import UnknownConfig, Widths
from uvb.errors import UserError
from uvb.measure.internals import measure_internals
from uvb.measure.losses import EvalConfig, NoisyImages
from uvb.models import base, build_model, get_model
from uvb.models.capacity import default_widths, matched_widths, parameters, widths_at
from uvb.models.deen import DEEN
from uvb.models.io import load, save_model
from uvb.models.registry import MODELS, Model, register_model
from uvb.noise import generator
from uvb.plan import Plan
from uvb.spec import RunSpec
from uvb.training.loop import fit
from uvb.training.state import TrainState

FP64 = Plan(precision="fp64")
MODULE = "tests.support.outside_models"


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """An installed package. Its one entry point names the module of the models. The fixture removes the module at the end."""
    install(tmp_path, "outside", "outside_of_a_test", "", **{"uvb.models": f"outside = {MODULE}"})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(MODELS, "known", dict(MODELS.known))
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    yield sys.modules
    sys.modules.pop(MODULE, None)


def outside_spec(digits, name: str) -> RunSpec:
    spec = tiny_spec(digits, "uvb")
    widths = dataclasses.replace(get_model(name).widths, channels=(3, 4), joined=5) if name == "outside_unet" else TINY
    return dataclasses.replace(spec, model=name, widths=widths)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("name", ["outside_unet", "uvb_learned_mean", "uvb_mixture"])
def test_outside_models_match_uvb_within_one_percent(outside, name, shape):
    target = parameters("uvb", shape, get_model("uvb").widths)
    assert parameters(name, shape, default_widths(name, shape)) == pytest.approx(target, rel=0.01)
    half = parameters("uvb", shape, widths_at("uvb", shape, 0.5))
    assert parameters(name, shape, widths_at(name, shape, 0.5)) == pytest.approx(half, rel=0.01)


def test_default_widths_counts_the_plugins_own_parameters(outside):
    """DEEN's parameter count would be wrong here: this model is two DEENs, so its widths must be smaller."""

    @register_model("two_deens", widths=Widths((128, 256, 512), 100), match=("conv", "hidden"))
    class TwoDeens(DEEN):
        def __init__(self, shape, widths, activation, sigma):
            super().__init__(shape, widths, activation, sigma)
            self.other = DEEN(shape, widths, activation, sigma)

    for shape in ((1, 8, 8), (1, 28, 28)):
        target = parameters("uvb", shape, get_model("uvb").widths)
        assert parameters("two_deens", shape, default_widths("two_deens", shape)) == pytest.approx(target, rel=0.01)


@pytest.mark.parametrize("name", ["outside_unet", "uvb_learned_mean", "uvb_mixture"])
def test_outside_models_train_and_load_with_their_own_config(outside, digits, tmp_path, name):
    spec = outside_spec(digits, name)
    again = RunSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert type(again.widths) is type(get_model(name).widths)
    state = TrainState.fresh(spec, FP64)
    first, last = [p.metrics.train_loss for p in fit(spec, FP64, state, digits) if p.metrics]
    assert last < first
    loaded = load(save_model(state.averaged, spec, tmp_path / "model"))
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in state.averaged.state_dict().items())


def test_spec_outlives_the_package_of_its_model(outside, digits, monkeypatch):
    """Without the package the spec keeps its identity. Only building the model is refused."""
    spec = outside_spec(digits, "outside_unet")
    blob = json.loads(json.dumps(spec.to_json()))
    monkeypatch.setattr(MODELS, "group", "uvb.models.none")
    MODELS.known.pop("outside_unet")
    stranger = RunSpec.from_json(blob)
    assert isinstance(stranger.widths, UnknownConfig)
    assert (stranger.spec_id, str(stranger.widths)) == (spec.spec_id, "channels=[3, 4], joined=5")
    assert spec.differences(stranger) == []
    with pytest.raises(UserError, match="unknown model 'outside_unet'"):
        build_model(stranger)


def test_kl_of_a_mixture_prior_is_the_integral(outside):
    """In one dimension the mean of the estimates over z ~ q equals ∫ q log q/p, within five standard errors."""
    model = get_model("uvb_mixture").build((1, 8, 8), Widths((2,), 3, 1, 4), "silu", 1.0).double()
    mu, lam = torch.tensor([[0.7]], dtype=torch.float64), torch.tensor([[-1.0]], dtype=torch.float64)
    q, normal = torch.distributions.Normal(mu, torch.exp(lam / 2)), torch.distributions.Normal
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64)[:, None]
    p = (normal(1.0, 1.0).log_prob(grid).exp() + normal(-1.0, 1.0).log_prob(grid).exp()) / 2
    expected = float(torch.trapezoid((q.log_prob(grid).exp() * (q.log_prob(grid) - p.log()))[:, 0], grid[:, 0]))
    z = mu + torch.exp(lam / 2) * torch.randn(40_000, 1, generator=generator(0, "z"), dtype=torch.float64)
    with torch.no_grad():
        found = model.kl(z, mu, lam)
    assert float(found.mean()) == pytest.approx(expected, abs=5 * float(found.std()) / 40_000**0.5)


def test_measure_internals_uses_the_models_own_prior(outside, digits):
    """Table 4 and the training curve measure the KL to the model's own prior N(m, I), not to N(0, I).

    torch.distributions gives the expected value.
    """
    spec = outside_spec(digits, "uvb_learned_mean")
    state = TrainState.fresh(spec, FP64)
    torch.nn.init.constant_(state.model.prior_mean, 3.0)
    for _ in fit(spec, FP64, state, digits):
        pass
    model, config = state.averaged, EvalConfig(test_images=20, draws=1)
    assert float(model.prior_mean.detach().mean()) > 0.5
    noisy = NoisyImages(digits.test[:20], digits.levels, float(model.sigma), "test", config, FP64)
    measured = measure_internals(model, noisy)
    with torch.no_grad():
        mu, lam = model.encode(digits.test[:20].double() / digits.levels)
    own = torch.distributions.Normal(model.prior_mean.detach(), 1.0)
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(mu, torch.exp(lam / 2)), own).sum(1)
    assert measured["kl_clean"].value == pytest.approx(float(kl.mean()), rel=1e-9)
    assert state.curves[-1].kl == pytest.approx(measured["kl_noisy"].value, rel=0.1)


@dataclass
class Thawed:
    width: int = 3


@dataclass(frozen=True)
class WithAList:
    widths: list[int] = dataclasses.field(default_factory=lambda: [1, 2])


@dataclass(frozen=True)
class NoNumber:
    kind: str = "wide"


@pytest.mark.parametrize(
    ("config", "match", "line"),
    [
        (Thawed(), (), r"config is Thawed\(width=3\); it must be an instance of a frozen dataclass"),
        (Widths, (), "must be an instance"),
        ({"width": 3}, (), "must be an instance"),
        (WithAList(), (), "its WithAList would change when it is stored as JSON and read again; its fields must be numbers"),
        (Widths((3,), 4), "channels", r"match=\('channels',\); name one field of Widths, or .* of: conv, hidden$"),
        (Widths((3,), 4), ("conv", "hidden", "conv"), "name one field of Widths"),
        (NoNumber(), "kind", r"of: \(none: a field must be a whole number above 0, or a tuple of such numbers\)$"),
    ],
)
def test_register_model_refuses_a_bad_config_in_one_line(config, match, line):
    with pytest.raises(UserError, match=f"^model 'mine': .*{line}") as told:
        register_model("mine", widths=config, match=match)(DEEN)
    assert "\n" not in str(told.value)


@dataclass(frozen=True)
class Heads:
    heads: int = 4


def test_configs_that_cannot_be_built_are_refused_in_one_line(outside, digits):
    def build(shape, config, activation, sigma):
        raise ValueError("8 channels do not\ndivide by 3 heads")

    MODELS.add("headed", Model("headed", build, Heads(), match=("heads",)))
    spec = tiny_spec(digits, "deen")
    for line, broken in [
        (r"^build cannot be built with Heads\(heads=4\) .*\(ValueError: 8 channels do not divide by 3 heads\)$",
         lambda: default_widths("headed", (1, 8, 8))),
        ("^model 'headed' takes a Heads, not Widths", lambda: build_model(dataclasses.replace(spec, model="headed"))),
        ("^Heads cannot be made wider or narrower: give it a method", widths_at_scale),
        ("no widths of direct .* name a second, finer field",
         lambda: matched_widths("direct", (1, 8, 8), 10)),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=line):
            broken()


def widths_at_scale():
    MODELS.add("headed", Model("headed", lambda *_: torch.nn.Linear(1, 1), Heads()))
    return widths_at("headed", (1, 8, 8), 2.0)


def test_parameters_counts_a_constructor_that_reads_values(outside):
    """The meta device has no values, so such a model is built on the CPU. This leaves the global generator alone."""

    def build(shape, widths, activation, sigma):
        return torch.nn.Linear(3, 1 + int(torch.ones(2).sum().item()))

    MODELS.add("reader", Model("reader", build, Widths((), 3)))
    before = torch.get_rng_state()
    assert parameters("reader", (1, 8, 8), Widths((), 3)) == 12
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("parent", "missing"), [("Energy", "energy"), ("LatentEnergy", "decode"), ("Estimator", "forward")])
def test_model_without_its_equations_is_refused_before_it_trains(digits, monkeypatch, parent, missing):
    """Matching a model to UVB's size builds it, and a class that lacks an abstract method cannot be built."""
    monkeypatch.setattr(MODELS, "known", dict(MODELS.known))
    register_model("unwritten", widths=TINY, match="hidden")(type("Unwritten", (getattr(base, parent),), {}))
    with pytest.raises(UserError, match=f"Unwritten cannot be built with .* abstract method.*{missing}"):
        default_widths("unwritten", (1, 8, 8))
