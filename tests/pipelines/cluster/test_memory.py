"""A training that cannot fit into memory is refused. The error says how much memory it needs, and how much there is."""

import dataclasses

import pytest

from pipelines.cluster import memory
from pipelines.cluster.layout import Capacity, Layout
from pipelines.cluster.memory import activations, require_memory, training_bytes
from tests.support.builders import tiny_spec
from uvb.config import Widths
from uvb.data import ImageSet
from uvb.errors import UserError
from uvb.models.capacity import parameters

HERE = Capacity(8, 0, ((8, 0),), cluster=False)
LAYOUT = Layout(workers=2, concurrency=3, cpus_per_worker=1.0, gpus_per_worker=0.0)


def test_activations_are_the_outputs_of_all_layers() -> None:
    # The convolutions give 2*6*6 = 72 and 3*4*4 = 48 numbers, and the hidden layer gives 5. The activation after each of them
    # gives as many again. The flattening gives 48, and the last layer 1.
    assert activations("deen", (1, 8, 8), Widths((2, 3), 5)) == 2 * (72 + 48) + 48 + 2 * 5 + 1


def test_training_bytes_grow_with_weights_and_with_the_images_of_a_worker(digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    weights = 20 * parameters(spec.model, spec.data.shape, spec.widths)  # bytes: weights, average, two moments, gradient
    one, two = training_bytes(spec, 1) - weights, training_bytes(spec, 2) - weights
    assert one == 2 * two
    assert one == 4 * 32 * (activations(spec.model, spec.data.shape, spec.widths) + 64)  # 4 bytes, 32 images, 64 pixels


def test_memory_check_says_what_is_needed_and_what_there_is(digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    small = tiny_spec(digits)
    large = dataclasses.replace(small, widths=Widths((320, 640, 1280), 20000, 100, 20000))
    assert training_bytes(large, 2) > 6e8
    monkeypatch.setattr(memory, "usable_memory", lambda: int(6 * training_bytes(large, 2)))
    require_memory([small, large], LAYOUT, HERE, lambda spec: False)
    monkeypatch.setattr(memory, "usable_memory", lambda: int(6 * training_bytes(large, 2)) - 1)
    said = r"^uvb σ=1.* needs at least [\d.]+ GB in each of 6 workers, but this machine has [\d.]+ GB: choose a smaller --width"
    with pytest.raises(UserError, match=said):
        require_memory([small, large], LAYOUT, HERE, lambda spec: False)
    require_memory([small, large], LAYOUT, HERE, lambda spec: spec == large)


@pytest.mark.parametrize(("cpus", "refused"), [(8, True), (16, False)])
def test_memory_check_takes_the_largest_node_of_a_cluster_that_cannot_grow(
    cpus: int, refused: bool, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0, "memory": size}} for size in (10.0, 20.0)]
    monkeypatch.setattr(memory.ray, "nodes", lambda: nodes)
    there = Capacity(cpus, 0, ((4, 0), (4, 0)), cluster=True)
    if refused:
        with pytest.raises(UserError, match="a node has 2e-08 GB"):
            require_memory([tiny_spec(digits)], LAYOUT, there, lambda spec: False)
    else:
        require_memory([tiny_spec(digits)], LAYOUT, there, lambda spec: False)
