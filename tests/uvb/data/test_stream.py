"""Training from memory, from a memory-mapped file and from a stream gives the same bits."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.builders import tiny_spec
from uvb.data import ImageSet, stream
from uvb.data.stream import Resident, Streamed, rows_on
from uvb.plan import Plan
from uvb.spec import Recipe
from uvb.training.loop import fit
from uvb.training.state import TrainState

CPU = torch.device("cpu")
PLAN = Plan()
RECIPE = Recipe("two", epochs=2, batch_size=32, learning_rate=1e-3, ema=0.9)


def weights_after(images: ImageSet, folder: Path | None = None) -> dict[str, Tensor]:
    """The weights after a small training. With a `folder` the training is saved there in its first epoch, and resumed."""
    spec = tiny_spec(images, recipe=RECIPE)
    state = TrainState.fresh(spec, PLAN)
    for progress in fit(spec, PLAN, state, images, pulse_seconds=0.0):
        if folder and progress.metrics is None and progress.step == 2:
            state.save(folder, PLAN)
            return _resumed(images, folder)
    return state.model.state_dict()


def _resumed(images: ImageSet, folder: Path) -> dict[str, Tensor]:
    spec = tiny_spec(images, recipe=RECIPE)
    state = TrainState.load(folder, spec, PLAN)
    assert (state.epoch, state.step) == (0, 2)
    for _ in fit(spec, PLAN, state, images):
        pass
    return state.model.state_dict()


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def test_fit_gives_the_same_bits_in_memory_mapped_and_streamed(
    digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = weights_after(digits)
    digits.save(tmp_path / "digits.safetensors")
    mapped = ImageSet.load(tmp_path / "digits.safetensors")
    assert equal(weights_after(mapped), in_memory)
    monkeypatch.setattr(stream, "RAM_SHARE", 0.0)
    assert isinstance(rows_on(mapped.train, CPU), Streamed)
    assert equal(weights_after(mapped), in_memory)
    (tmp_path / "state").mkdir()
    assert equal(weights_after(mapped, tmp_path / "state"), in_memory)


@pytest.mark.parametrize(("world", "step"), [(1, 0), (2, 0), (3, 2)])
def test_streamed_gives_the_rows_of_the_tensor_for_any_worker_and_step(world: int, step: int) -> None:
    pixels = torch.arange(103, dtype=torch.uint8).reshape(103, 1, 1, 1)
    order = torch.randperm(103, generator=torch.Generator().manual_seed(1))
    for rank in range(world):
        width = -(-10 // world)  # rounded up
        mine = slice(rank * width, (rank + 1) * width)
        streamed = Streamed(pixels, CPU)
        streamed.begin(order, 10, step, mine)
        for k in range(step, 11):
            index = order[k * 10 : (k + 1) * 10][mine]
            assert torch.equal(streamed[index], pixels[index])


def test_streamed_reads_only_a_few_batches_ahead() -> None:
    """No thread is left if an epoch is begun again or never finished."""
    import threading

    before = threading.active_count()
    streamed = Streamed(torch.zeros(10_000, 1, 1, 1, dtype=torch.uint8), CPU)
    for _ in range(3):
        streamed.begin(torch.arange(10_000), 10, 0, slice(0, 10))
        streamed[torch.arange(10)]
        assert len(streamed._ahead) <= stream.AHEAD
    del streamed
    for _ in range(50):
        if threading.active_count() <= before:
            return
        threading.Event().wait(0.1)
    pytest.fail("a thread is still there")


def test_streamed_refuses_rows_out_of_order() -> None:
    streamed = Streamed(torch.zeros(20, 1, 1, 1, dtype=torch.uint8), CPU)
    streamed.begin(torch.arange(20), 10, 0, slice(0, 10))
    with pytest.raises(IndexError, match="not the next ones"):
        streamed[torch.tensor([7])]


def test_rows_on_a_cpu_does_not_copy_a_small_set() -> None:
    pixels = torch.zeros(20, 1, 1, 1, dtype=torch.uint8)
    rows = rows_on(pixels, CPU)
    assert isinstance(rows, Resident)
    assert rows.pixels.data_ptr() == pixels.data_ptr()


@pytest.mark.gpu
@pytest.mark.parametrize("share", [0.0, 0.4])
def test_rows_on_a_gpu_gives_the_rows_of_the_tensor(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "GPU_SHARE", share)
    pixels = torch.randint(256, (1000, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows = rows_on(pixels, torch.device("cuda"))
    assert isinstance(rows, Resident if share else Streamed)
    order = torch.randperm(1000).to(rows.device)
    rows.begin(order, 64, 0, slice(0, 64))
    for k in range(16):
        index = order[k * 64 : (k + 1) * 64]
        found = rows[index]
        assert found.is_cuda
        assert torch.equal(found.cpu(), pixels[index.cpu()])
