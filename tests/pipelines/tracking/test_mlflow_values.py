"""The values that MLflow gets from a study's tables. These tests need no MLflow."""

import pandas as pd
import pytest

from pipelines.tracking.values import (
    curve_points,
    experiment_values,
    first_page,
    in_a_line,
    lines_over_sigma,
    model_values,
    plain_names,
    readable,
    worker_points,
)


def test_lines_over_sigma_keep_lengths_of_training_apart():
    """Trainings of different length are not averaged. Trainings that differ only in the seed are averaged."""
    row = {"dataset": "digits", "model": "uvb", "recipe": "fast", "split": "test", "estimator": "energy", "seed": 0}
    rows = [
        row
        | {"spec_id": f"{epochs}-{sigma}-{seed}", "epochs": epochs, "sigma": sigma, "seed": seed, "loss": epochs + sigma + seed}
        for epochs in (8, 20)
        for sigma in (0.5, 1.0)
        for seed in (0, 1)
    ]
    lines = lines_over_sigma(rows)
    at = [("loss_over_sigma", 50), ("loss_over_sigma", 100)]  # the mean over seeds 0 and 1 adds 0.5
    assert lines == {f"UVB {n} epochs": dict(zip(at, (n + 1.0, n + 1.5), strict=True)) for n in (8, 20)}
    assert lines_over_sigma(rows[:4]).keys() == {"UVB"}


@pytest.mark.parametrize(
    ("sigmas", "metric", "steps"),
    [
        ((0.1, 0.29, 0.3, 1.1, 10.0), "loss_over_sigma", (10, 29, 30, 110, 1000)),  # 100 σ is whole only up to rounding
        ((0.001, 0.004, 1.0), "loss_over_1000_sigma", (1, 4, 1000)),
        ((0.125, 0.5), "loss_over_1000_sigma", (125, 500)),
        ((1e-8, 1.0), "loss_over_100000000_sigma", (1, 100_000_000)),
        ((1 / 3, 1.0), "loss_over_1000000000_sigma", (333_333_333, 1_000_000_000)),
    ],
)
def test_lines_over_sigma_give_every_noise_level_a_step(sigmas, metric, steps):
    row = {"dataset": "digits", "model": "uvb", "split": "test", "estimator": "energy", "seed": 0}
    rows = [row | {"spec_id": str(sigma), "sigma": sigma, "loss": sigma} for sigma in sigmas]
    rows += [r | {"split": "train"} for r in rows]
    line = dict(zip(steps, sigmas, strict=True))
    expected = {(name, step): loss for name in (metric, f"train_{metric}") for step, loss in line.items()}
    assert lines_over_sigma(rows) == {"UVB": expected}


def test_curve_points_name_losses_by_their_unit():
    """An MLflow chart has one unit. The VAE's losses are in nats, so they need another chart."""
    rows = [{"epoch": 1, "test_loss": 33.0, "kl": 0.9, "time": 2.0}]
    for objective, loss in (("denoise", "epoch/test_loss"), ("elbo_y", "epoch/test_loss_elbo_y")):
        assert [name for name, *_ in curve_points(rows, None, objective)] == [loss, "epoch/kl"]


def test_model_values_put_references_beside_the_judged_loss():
    """UVB is judged by its energy. The decoder's loss has another name, and no references beside it."""
    row = {"spec_id": "a", "model": "uvb", "objective": "denoise", "split": "test", "stderr": 0.1, "paper_loss": 15.0}
    row |= {"floor": 3.0, "nonparametric": None, "parameters": 27}
    losses = [row | {"estimator": "energy", "loss": 16.0}, row | {"estimator": "decoder", "loss": 130.0, "paper_loss": 1.0}]
    internals = [{"spec_id": "a", "quantity": "kl_noisy", "value": 640.0, "stderr": 0.5, "paper_value": 692.0}]
    assert model_values(losses, internals) == {
        "a": {
            "test_loss": 16.0, "test_loss_stderr": 0.1, "paper_test_loss": 15.0, "floor": 3.0, "parameters": 27.0,
            "test_loss_decoder": 130.0, "test_loss_decoder_stderr": 0.1,
            "kl_noisy": 640.0, "kl_noisy_stderr": 0.5, "paper_kl_noisy": 692.0,
        }
    }  # fmt: skip


def test_plain_names_keep_the_id_where_two_models_share_a_name():
    names = {"aaa": "uvb σ=0.5", "bbb": "uvb σ=1 seed=2"}
    assert plain_names("jumps_aaa_baoab.svg", names) == "jumps_uvb_sigma_0.5_baoab.svg"
    assert plain_names("jumps_bbb.svg", names) == "jumps_uvb_sigma_1_seed_2.svg"
    assert plain_names("jumps_aaa.svg", names | {"ccc": "uvb σ=0.5"}) == "jumps_uvb_sigma_0.5_aaa.svg"
    assert plain_names("loss.svg", names) == "loss.svg"


def test_plain_names_stay_in_their_folder():
    """A model's name comes from a file or from a server."""
    assert plain_names("jumps_aaa.svg", {"aaa": "/../../uvb σ=1"}) == "jumps_.._.._uvb_sigma_1.svg"


def test_readable_puts_varying_columns_first_and_keeps_all():
    table = pd.DataFrame({"spec_id": ["a", "b"], "recipe": "fast", "sigma": [1.0, 2.0], "epochs": [3, 4], "loss": [1.0, 2.0]})
    assert list(readable(table).columns) == ["sigma", "loss", "epochs", "spec_id", "recipe"]


def test_worker_points_name_each_workers_machine_and_time():
    progress = {"time": 12.5, "began": 9.0, "machine": {"cpu_percent": 50.0, "memory_percent": None}}
    second = {"time": 13.5, "machine": {"cpu_percent": 70.0}}
    points = [("system/worker_0_cpu_percent", 50.0, 3, 12500), ("system/worker_1_cpu_percent", 70.0, 4, 13500)]
    assert worker_points(progress, {1: second}) == points
    assert worker_points({}, {}) == []


def test_experiment_values_name_numbers_by_experiment_and_row():
    walk = {"sigma": 1.0, "acceptance": 0.8, "message": "", "variants": {"jump": {"iat": 3.0, "split_rhat": None}}}
    found = experiment_values("walk_jump_mala", walk | {"trained": 9.0})
    assert found == {"walk_jump_mala/acceptance": 0.8, "walk_jump_mala/variants.jump.iat": 3.0}
    likelihood = {"log_z": 5.0, "lower": 4.9, "rows": [{"density": "model", "nll": 60.0, "stderr": None}]}
    assert experiment_values("likelihood", likelihood) == {
        "likelihood/log_z": 5.0, "likelihood/lower": 4.9, "likelihood/nll model": 60.0,
    }  # fmt: skip
    mixing = {"rows": [{"sampler": "mala", "settings": {"delta": 0.4}, "ess_per_gradient": 0.1, "message": "no"}]}
    assert experiment_values("mixing", mixing) == {"mixing/ess_per_gradient mala delta 0.4": 0.1}
    quality = {"rows": [{"images": "second jumps", "frechet": 2.0, "frechet_stderr": float("nan")}]}
    assert experiment_values("jump_quality", quality) == {"jump_quality/frechet second jumps": 2.0}
    rows = [{"set": "uniform noise", "input": "noisy", "energy": "model", "auroc": 0.99}]
    assert experiment_values("detection", {"rows": rows}) == {"detection/auroc uniform noise noisy model": 0.99}
    assert experiment_values("losses", {"rows": [{"split": "test", "loss": 1.0}]}) == {}


def loss(dataset: str, sigma: float, model: str, seed: int, value: float) -> dict[str, object]:
    at = {"spec_id": f"{dataset}-{sigma}-{model}-{seed}", "dataset": dataset, "sigma": sigma, "model": model, "seed": seed}
    return at | {"split": "test", "estimator": "energy", "loss": value}


def pair(dataset: str, sigma: float, seed: int, difference: float, split: str = "test") -> dict[str, object]:
    ends = {"difference": difference, "low": difference - 1, "high": difference + 1}
    return {"dataset": dataset, "sigma": sigma, "seed": seed, "first": "uvb", "second": "deen", "split": split, **ends}


def test_first_page_has_the_difference_of_the_first_seed():
    losses = [loss("digits", 1.0, m, seed, v + seed) for m, v in (("uvb", 3.0), ("deen", 4.0)) for seed in (1, 2)]
    pairs = [pair("digits", 1.0, 2, -9.0), pair("digits", 1.0, 1, -1.0), pair("digits", 1.0, 0, -7.0, "train")]
    assert first_page(losses, pairs)[0] == {
        "test_loss/UVB": 4.5, "test_loss/DEEN": 5.5,
        "difference/UVB-DEEN": -1.0, "difference/UVB-DEEN_low": -2.0, "difference/UVB-DEEN_high": 0.0,
    }  # fmt: skip


def test_first_page_keeps_data_sets_apart_each_at_its_own_largest_sigma():
    at = {("digits", 0.5): 1.0, ("digits", 1.0): 3.0, ("mnist", 0.3): 10.0, ("mnist", 0.5): 20.0}
    losses = [loss(*key, model, 0, value + more) for key, value in at.items() for model, more in (("uvb", 0.0), ("deen", 1.0))]
    pairs = [pair(*key, 0, -value) for key, value in at.items()]
    values, _ = first_page(losses, pairs)
    assert values == {
        "test_loss/UVB digits": 3.0, "test_loss/DEEN digits": 4.0, "test_loss/UVB mnist": 20.0, "test_loss/DEEN mnist": 21.0,
        "difference/UVB-DEEN digits": -3.0, "difference/UVB-DEEN digits_low": -4.0, "difference/UVB-DEEN digits_high": -2.0,
        "difference/UVB-DEEN mnist": -20.0, "difference/UVB-DEEN mnist_low": -21.0, "difference/UVB-DEEN mnist_high": -19.0,
    }  # fmt: skip
    assert in_a_line("both", losses, values) == "UVB digits 3, UVB mnist 20, DEEN digits 4, DEEN mnist 21 (both, σ = 0.5, 1)"


def test_first_page_averages_models_trained_in_several_ways():
    losses = [loss("digits", 1.0, "uvb", 0, 3.0), loss("digits", 1.0, "uvb", 0, 5.0) | {"spec_id": "longer"}]
    values, _ = first_page(losses, [pair("digits", 1.0, 0, -1.0), pair("digits", 1.0, 0, -3.0)])
    assert (values["test_loss/UVB"], values["difference/UVB-DEEN"], values["difference/UVB-DEEN_low"]) == (4.0, -2.0, -3.0)
