"""The cost model agrees with measurements, closed forms and docs/scaling.md."""

import dataclasses
import json

import pytest
import torch

from pipelines.cluster import cost_model, estimate
from pipelines.cluster.cost_model import (
    H200,
    L4,
    TWO_CORES,
    Work,
    allreduce_seconds,
    best_workers,
    forward_flops,
    image_flops,
    paper_study,
    paper_work,
    step_seconds,
    study_seconds,
    training_seconds,
)  # fmt: skip
from pipelines.cluster.estimate import Pace, fitted_machine
from tests.support.builders import ROOT, tiny_spec
from uvb.data import ImageSet
from uvb.errors import UserError
from uvb.models import get_model
from uvb.models.capacity import default_widths, parameters
from uvb.models.registry import MODELS
from uvb.plan import Plan
from uvb.spec import RECIPES

MNIST = (1, 28, 28)


@pytest.mark.parametrize(("model", "gflop", "step_tflop"), [("uvb", 0.24, 0.184), ("deen", 1.53, 1.18)])
def test_forward_flops_match_the_known_figures(model: str, gflop: float, step_tflop: float) -> None:
    widths = default_widths(model, MNIST)
    assert forward_flops(model, MNIST, widths) / 1e9 == pytest.approx(gflop, abs=0.005)
    assert 128 * image_flops(model, MNIST, widths, "denoise") / 1e12 == pytest.approx(step_tflop, rel=0.005)


def test_forward_flops_of_one_convolution_match_a_count_by_hand() -> None:
    """A 3x3 convolution from 1 to 128 channels on 28x28 makes 26x26x128 sums of 9 products; a product is 2 operations."""
    one = dataclasses.replace(get_model("deen").widths, conv=(128,))
    two = dataclasses.replace(one, hidden=one.hidden + 1)
    linear = forward_flops("deen", MNIST, two) - forward_flops("deen", MNIST, one)  # the cost of one hidden unit
    assert linear == 2 * (128 * 26 * 26 + 1)
    assert forward_flops("deen", MNIST, one) - one.hidden * linear == 2 * 9 * 128 * 26 * 26


def test_forward_flops_fall_back_on_two_per_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that reads the values of tensors cannot run on the meta device. A study must not fail because of this."""
    build = get_model("deen").build

    def reads_values(*arguments: object) -> torch.nn.Module:
        model = build(*arguments)
        monkeypatch.setattr(model, "energy", lambda y, eps: y.sum() / y.abs().max().item())
        return model

    deen = dataclasses.replace(get_model("deen"), build=reads_values)
    monkeypatch.setitem(MODELS.known, "deen", deen)
    widths = dataclasses.replace(get_model("deen").widths, hidden=7)  # counts are cached, so use widths that no other test uses
    with pytest.warns(UserWarning, match="deen: its operations cannot be counted"):
        assert forward_flops("deen", MNIST, widths) == 2 * parameters("deen", MNIST, widths)


def test_image_flops_of_an_elbo_have_no_inner_gradient() -> None:
    widths = default_widths("vae", MNIST)
    assert image_flops("vae", MNIST, widths, "elbo_y") * 2 == image_flops("vae", MNIST, widths, "denoise")


def test_work_bytes_match_the_known_figures() -> None:
    work = paper_work("uvb")
    assert work.gradient_bytes / 1e6 == pytest.approx(107, abs=0.5)
    assert work.checkpoint_bytes / 1e6 == pytest.approx(428, abs=0.5)


@pytest.mark.parametrize(("model", "least", "most"), [("uvb", 0.45, 0.51), ("deen", 2.5, 2.7)])
def test_step_seconds_match_measurements_on_a_cpu(model: str, least: float, most: float) -> None:
    assert least <= step_seconds(paper_work(model), TWO_CORES) <= most


@pytest.mark.parametrize("model", ["uvb", "deen"])
def test_step_seconds_match_measurements_on_a_gpu(model: str) -> None:
    rows = json.loads((ROOT / "results" / "speed" / "nvidia-h200.json").read_text())
    (measured,) = [row["value"] for row in rows if row["name"] == f"step/{model}/mnist/cuda-graph-compile-bf16"]
    assert step_seconds(paper_work(model), H200) == pytest.approx(measured, rel=0.2)
    assert f"| {1e3 * measured:.2f} ms |" in cost_model.check_table()


def test_allreduce_seconds_follow_the_ring_formula() -> None:
    work = Work(1e9, 1_000_000, 128, 10)
    free_hops = dataclasses.replace(H200, hop=0.0)
    assert allreduce_seconds(work, free_hops, 1) == 0
    assert allreduce_seconds(work, free_hops, 2) == pytest.approx(4e6 / H200.near)
    assert allreduce_seconds(work, free_hops, 8) == pytest.approx(2 * 7 / 8 * 4e6 / H200.near)
    assert allreduce_seconds(work, free_hops, 16) == pytest.approx(2 * 15 / 16 * 4e6 / H200.far)


def test_step_seconds_scale_up_to_one_image_a_worker() -> None:
    ideal = dataclasses.replace(H200, overhead=0.0, memory=float("inf"), near=float("inf"), far=float("inf"), hop=0.0)
    work = Work(1e9, 1_000_000, 128, 10)
    assert step_seconds(work, ideal) / step_seconds(work, ideal, 4) == pytest.approx(4)
    assert step_seconds(work, ideal, 3) == pytest.approx(43 / 128 * step_seconds(work, ideal))  # one of 3 workers has 43 images
    assert step_seconds(work, ideal, 256) == step_seconds(work, ideal, 128)


def test_best_workers_is_one_while_every_device_has_a_model() -> None:
    for machine in (H200, L4):
        for devices in (1, 2, 4, 8):
            assert best_workers(paper_study(), machine, devices) == 1
    assert best_workers([paper_work("deen")], H200, 8) > 1
    assert best_workers([paper_work("deen")], L4, 8) == 1, "at 10 Gbit/s, eight devices lose more time than they save"
    assert best_workers([paper_work("deen", epochs=1)] * 8, H200, 8) == 1


def test_study_seconds_fill_slots_longest_first() -> None:
    long, short = Work(1e10, 10**6, 128, 10_000), Work(1e10, 10**6, 128, 5_000)
    times = {work: training_seconds(work, L4) for work in (long, short)}
    assert study_seconds([short, long, short], L4, 1, 1) == pytest.approx(times[long] + 2 * times[short])
    assert study_seconds([short, long, short], L4, 2, 1) == pytest.approx(max(times[long], 2 * times[short]))


def test_document_equals_the_page() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text()
    begin, end = "<!-- tables by: python -m pipelines.cluster.cost_model -->", "<!-- end of tables -->"
    assert page.split(begin)[1].split(end)[0].strip() == cost_model.document()


def test_estimated_seconds_are_timed_steps_and_probes(digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """3 epochs have 36 steps, and each epoch ends with a probe of 2 × 297 images: 36 × 0.5 s + 3 × 2 × 297 × 0.001 s."""
    recipe = RECIPES["fast"].changed(epochs=3, batch_size=128)
    spec = dataclasses.replace(
        tiny_spec(digits), recipe=recipe, data=dataclasses.replace(tiny_spec(digits).data, train_images=1500)
    )
    monkeypatch.setattr(estimate, "paces", lambda specs, plan, images: [Pace(0.5, 0.001)] * len(specs))
    for workers in (1, 2):  # on CPUs, `paces` times all workers together
        (seconds,) = estimate.estimated_seconds([spec], Plan(workers), digits).values()
        assert seconds == pytest.approx(18 + 1.782, rel=1e-3)


@pytest.mark.parametrize("workers", [1, 2])
def test_paces_times_one_process_per_worker(workers: int, digits: ImageSet) -> None:
    """The times are in seconds. If a training diverges, `paces` raises a UserError."""
    spec = tiny_spec(digits)
    plan = Plan(workers)
    (found,) = estimate.paces([spec], plan, digits)
    assert 1e-4 < found.step < 10
    assert 0 <= found.probe < 1
    broken = dataclasses.replace(spec, recipe=dataclasses.replace(spec.recipe, learning_rate=1e30, clip=float("inf")))
    with pytest.raises(UserError, match="diverged"):
        estimate.paces([broken], plan, digits)


def test_fitted_machine_has_the_measured_step() -> None:
    """The cost model takes the measured step, and adds the costs of more workers and of checkpoints."""
    for work in (paper_work("uvb"), paper_work("deen")):
        machine = fitted_machine(work, 0.6)
        assert step_seconds(work, machine) == pytest.approx(0.6)
        assert 0.3 < step_seconds(work, machine, 2) < 0.75  # each does half the arithmetic, the whole update, an all-reduce
        assert training_seconds(work, machine) > 0.6 * work.steps
