"""The table of best against best has the losses, the differences and the intervals of the stored comparison."""

import json
from pathlib import Path

import pytest

from benchmarks.cpu.answers import best, half_interval, trained


def comparison(folder: Path, trainings: int) -> Path:
    """Write a comparison of UVB (loss 2) and DEEN (loss 3) at σ = 0.5."""
    models = {
        name: {"choice": {}, "loss": loss, "half_interval_over_trainings": 0.3, "stderr_over_images": 0.04}
        for name, loss in (("uvb", 2.0), ("deen", 3.0))
    }
    apart = {"mean": -1.0, "half_interval_over_trainings": 0.3, "stderr_over_images": 0.04}
    row = {"recipes": "best against best", "sigma": 0.5, "trainings": trainings, "linear": 4.0, **models, "uvb - deen": apart}
    (folder / "comparison.json").write_text(json.dumps({"compared": [row]}))
    return folder


def test_best_of_one_training_has_errors_over_images(tmp_path: Path) -> None:
    last = best(comparison(tmp_path, 1)).splitlines()[-1]
    assert last == "| 0.5 | best against best | 2.000 ± 0.040 | 3.000 ± 0.040 | **−1.000 ± 0.078** | 4.000 |"
    assert (tmp_path / "difference_over_sigma.svg").stat().st_size > 1000


def test_half_interval_adds_the_variances_over_trainings_and_images() -> None:
    """With three trainings Student's t is 4.3027. So the variance over trainings is (0.3/4.3027)²."""
    apart = {"mean": -1.0, "half_interval_over_trainings": 0.3, "stderr_over_images": 0.04}
    assert half_interval(apart, 3) == pytest.approx((0.3**2 + (4.30265 * 0.04) ** 2) ** 0.5, rel=1e-5)


def test_trained_lists_the_test_losses_by_noise_level(tmp_path: Path) -> None:
    choice = {"optimizer": "muon_conv", "learning_rate": 0.016}
    made = [("uvb", 1.0, True, 9.0), ("uvb", 1.0, False, 5.0), ("deen", 1.0, False, 6.0), ("uvb", 0.3, False, 2.0)]
    rows = [
        {"model": m, "sigma": sigma, "seed": 0, "choice": choice, "held_out": held, "loss": loss, "stderr_over_images": 0.1}
        for m, sigma, held, loss in made
    ]  # fmt: skip
    (tmp_path / "trainings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert trained(tmp_path).splitlines()[2:] == [
        "| 0.3 | `uvb` | 0 | muon_conv 0.016 | 2.00 ± 0.10 |",
        "| 1 | `uvb` | 0 | muon_conv 0.016 | 5.00 ± 0.10 |",
        "| 1 | `deen` | 0 | muon_conv 0.016 | 6.00 ± 0.10 |",
    ]
