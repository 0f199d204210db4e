"""The tables of `benchmarks/cpu/answers.py` have the losses, the differences and the intervals of the stored results."""

import json
import math
import re
from pathlib import Path

import pytest

from benchmarks.cpu.answers import best, gaps, half_interval, parts, trained
from tests.support.builders import TINY
from uvb.spec import DataRef, Recipe, RunSpec

CHOICE = {"optimizer": "adam", "learning_rate": 0.002}


def comparison(folder: Path, trainings: int, over_trainings: float = 0.3) -> Path:
    """Write a comparison of UVB (loss 2) and DEEN (loss 3) at σ = 0.5."""
    models = {
        name: {"choice": CHOICE, "loss": loss, "half_interval_over_trainings": over_trainings, "stderr_over_images": 0.04}
        for name, loss in (("uvb", 2.0), ("deen", 3.0))
    }
    apart = {"mean": -1.0, "half_interval_over_trainings": over_trainings, "stderr_over_images": 0.04}
    row = {"recipes": "best against best", "sigma": 0.5, "trainings": trainings, "linear": 4.0, **models, "uvb - deen": apart}
    (folder / "comparison.json").write_text(json.dumps({"compared": [row]}))
    return folder


def test_best_of_one_training_has_errors_over_images(tmp_path: Path) -> None:
    last = best(comparison(tmp_path, 1)).splitlines()[-1]
    assert last == "| 0.5 | best against best | 2.000 ± 0.040 | 3.000 ± 0.040 | **−1.000 ± 0.078** | 4.000 |"
    assert (tmp_path / "difference_over_sigma.svg").stat().st_size > 1000


def test_parts_of_one_training_have_errors_over_images(tmp_path: Path) -> None:
    """After one training of each model `benchmarks/cpu/recipes.py` writes NaN for the interval over trainings."""
    comparison(tmp_path, 1, math.nan)
    data = DataRef("digits", "0" * 64, (1, 8, 8), 100)
    rows = [
        {"model": model, "sigma": 0.5, "held_out": False, "choice": CHOICE, "curve": [3.0, 2.0], "asymmetry": 0.1,
         "cpu_seconds": 36.0, "spec": RunSpec(data, model, TINY, 0.5, "denoise", Recipe("tiny", epochs=2)).to_json()}
        for model in ("uvb", "deen")
    ]  # fmt: skip
    (tmp_path / "trainings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = parts(tmp_path, 0.5)
    assert "nan" not in table
    assert "| 2.000 ± 0.040 |" in table
    assert "| 3.000 ± 0.040 | −1.000 ± 0.078 |" in table


def test_gaps_lists_three_models_and_draws_them_in_three_colours(tmp_path: Path) -> None:
    models = ("uvb", "deen", "vae")
    row = {"sigma": 0.5, "steps": 10, "n": 100, "gap": 0.1, "stderr_over_images": 0.01, "of_each_swap": [0.1, 0.1]}
    rows = [row | {"model": model, "loss_outside": 2.0} for model in models]
    (tmp_path / "gaps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert gaps(tmp_path).splitlines()[2:] == [f"| 0.5 | 10 | 100 | {m} | 0.1000 ± 0.0100 | 2.000 |" for m in models]
    drawn = (tmp_path / "gap_over_images.svg").read_text()
    assert {"#1f77b4", "#d62728", "#e377c2"} <= set(re.findall("#[0-9a-f]{6}", drawn))


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
