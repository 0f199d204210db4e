"""The mixture's images and experiment, where the true score is known."""

import pytest

from tests.support.builders import tiny_spec
from tests.support.mixtures import bayes_loss, mean_predictor_loss
from uvb.data import ImageSet, load_dataset
from uvb.data.mixture import true_mixture
from uvb.experiments import Context, get_experiment
from uvb.measure.losses import EvalConfig
from uvb.plan import Plan
from uvb.spec import DataRef, Recipe, RunSpec, Widths
from uvb.training.loop import fit
from uvb.training.state import TrainState

FP64 = Plan(precision="fp64")


@pytest.fixture(scope="module")
def mixture() -> ImageSet:
    return load_dataset("mixture")


def test_mixture_images_have_the_moments_of_the_mixture(mixture: ImageSet) -> None:
    """The moments agree within 5 standard errors, no pixel is clipped, and the labels are the components."""
    truth, n = true_mixture(), len(mixture.train)
    assert 0 < int(mixture.train.min()) < int(mixture.train.max()) < mixture.levels
    x = mixture.train.double() / mixture.levels
    for k in range(len(truth.weights)):
        own = x[mixture.train_labels == k]
        share = truth.weights[k].item()
        assert abs(len(own) / n - share) < 5 * (share * (1 - share) / n) ** 0.5
        error = (truth.variances[k] / len(own)).sqrt()
        assert (own.mean(0) - truth.means[k]).abs().max() < 5 * error
        spread = own.var(0).mean().item() / truth.variances[k].item()
        assert abs(spread - 1) < 5 * (2 / (64 * len(own))) ** 0.5


def test_mixture_excess_of_the_true_energy_is_zero(mixture: ImageSet) -> None:
    spec = tiny_spec(mixture, sigma=0.5)
    context = Context(mixture, FP64, EvalConfig(draws=2))
    truth = true_mixture()
    [row] = get_experiment("mixture").run(truth.energy(0.5), spec, context).scalars["rows"]
    assert row["loss"] == pytest.approx(row["optimum"], rel=1e-9)
    assert row["score_error"] < 1e-15
    assert row["estimator"] == "energy"
    best = bayes_loss(truth, 0.5)
    x = mixture.test.double() / mixture.levels
    center = (truth.weights.reshape(-1, 1, 1, 1) * truth.means).sum(0)
    assert row["mean_predictor"] == pytest.approx((x - center).square().flatten(1).sum(1).mean().item())
    spread = row["mean_predictor"] / len(mixture.test) ** 0.5  # the losses' standard deviation is at most about their mean
    assert row["optimum"] == pytest.approx(best.value, abs=5 * spread)
    assert row["mean_predictor"] == pytest.approx(mean_predictor_loss(truth), abs=5 * spread)


def test_uvb_learns_the_score_of_a_mixture(mixture: ImageSet) -> None:
    """UVB's excess loss falls to at most 5 % of (mean predictor - optimum). Before training it is above 100 %."""
    widths = Widths(conv=(4,), hidden=32, latent=8, decoder=64)
    recipe = Recipe("short", epochs=5, batch_size=100, learning_rate=1e-2, schedule="cosine", warmup=0.05, clip=100.0, ema=0.99)
    data = DataRef(mixture.name, mixture.checksum, mixture.shape, len(mixture.train))
    spec, plan = RunSpec(data, "uvb", widths, 0.5, "denoise", recipe), Plan()
    state, context = TrainState.fresh(spec, plan), Context(mixture, plan, EvalConfig(draws=2))
    [before] = get_experiment("mixture").run(state.averaged, spec, context).scalars["rows"]
    for _ in fit(spec, plan, state, mixture):
        pass
    [after] = get_experiment("mixture").run(state.averaged, spec, context).scalars["rows"]
    assert before["excess_share"] > 1
    assert 0 < after["excess_share"] <= 0.05
    # The excess is ‖x̂ - x̂*‖² up to a term of mean zero, and ‖x̂ - x̂*‖² = σ⁴ ‖score - score*‖² (Eq. 2).
    excess = after["loss"] - after["optimum"]
    assert excess == pytest.approx(0.5**4 * after["score_error"], abs=5 * after["stderr"])
