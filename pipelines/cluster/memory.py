"""Refuse trainings that cannot fit into memory, before any training starts."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import ray
import torch
from torch import nn

from pipelines.cluster.cost_model import DEVICE_BYTES, run_once
from pipelines.cluster.layout import Capacity, Layout
from pipelines.words import name_of
from uvb.config import Config
from uvb.errors import UserError
from uvb.machine import usable_memory
from uvb.models.capacity import parameters, skeleton
from uvb.spec import RunSpec, Shape

FLOAT_BYTES = 4


@lru_cache(maxsize=1024)
def activations(model: str, shape: Shape, widths: Config) -> int:
    """Count the activations of one image: the numbers in the outputs of all layers, which the backward pass needs.

    The model runs on the meta device, which computes shapes only. Return 0 if it cannot run there.
    """
    net, sizes = skeleton(model, shape, widths), []

    def count(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and not list(module.children()):
            sizes.append(output.numel())

    hooks = [module.register_forward_hook(count) for module in net.modules()]
    try:
        run_once(net, shape)
    except Exception:  # a plug-in may raise anything; the workers will report it
        return 0
    finally:
        for hook in hooks:
            hook.remove()
    return sum(sizes)


def training_bytes(spec: RunSpec, workers: int) -> int:
    """The least bytes that one of `workers` workers needs: weights, gradient, average, moments, and its images' activations."""
    images = math.ceil(min(spec.recipe.batch_size, spec.data.train_images) / workers)
    kept = activations(spec.model, spec.data.shape, spec.widths) + math.prod(spec.data.shape)
    return DEVICE_BYTES * parameters(spec.model, spec.data.shape, spec.widths) + FLOAT_BYTES * images * kept


def require_memory(specs: Sequence[RunSpec], layout: Layout, has: Capacity, trained: Callable[[RunSpec], bool]) -> None:
    """Refuse a training that needs more memory than there is. Unknown memory counts as infinite, unknown activations as 0.

    Args:
        trained: whether the training of a spec has ended, so that it needs no memory.

    Raises:
        UserError: a training needs too much memory. The message says how much it needs, and how much there is.
    """
    available = _memory(layout, has)  # shared by `sharing` workers
    sharing = 1 if has.cluster or layout.device == "cuda" else layout.workers * layout.concurrency
    need = {spec: training_bytes(spec, layout.workers) for spec in specs}
    too_large = [spec for spec in specs if sharing * need[spec] > available and not trained(spec)]
    if too_large:
        largest = max(too_large, key=lambda spec: need[spec])
        together = f" in each of {sharing} workers" if sharing > 1 else ""
        where = "this machine"
        if layout.device == "cuda":
            where = "a GPU"
        elif has.cluster:
            where = "a node"
        raise UserError(
            f"{name_of(largest)} needs at least {gigabytes(need[largest])}{together}, but {where} has {gigabytes(available)}: "
            "choose a smaller --width or --batch-size, or smaller images (--resize)"
        )


def _memory(layout: Layout, has: Capacity) -> float:
    """The bytes of a GPU, of a cluster's largest node, or of this machine; infinite if unknown."""
    if has.cluster:
        grows = has.cpus > sum(cpus for cpus, _ in has.nodes)  # the user expects more nodes
        nodes = [node["Resources"].get("memory", math.inf) for node in ray.nodes() if node["Alive"]]
        return math.inf if grows or layout.device == "cuda" else max(nodes, default=math.inf)
    return torch.cuda.mem_get_info()[1] if layout.device == "cuda" else usable_memory()


def gigabytes(count: float) -> str:
    """A number of bytes as text, such as ``1.5 GB``."""
    return f"{count / 1e9:,.3g} GB" if count < 1e12 else f"{count / 1e9:,.0f} GB"
