"""Forward and backward pass of a step as one CUDA graph, so that the host's launches never hold the device up."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Gradients = Callable[..., Tensor]  # (x, noise, eps, weight) -> loss, the parameters' gradients left in .grad

WARM_UP = 3  # passes before the capture: kernels are compiled and chosen there


class GraphedGradients:
    """`gradients`, captured at the first call and replayed from then on.

    Every call must bring tensors of the shapes and dtypes of the first. The loss and the gradients lie in the graph's own
    memory: the next call writes over them. Clipping them in place, or setting ``.grad`` to None, does no harm.
    """

    def __init__(self, gradients: Gradients, module: nn.Module) -> None:
        self.gradients = gradients
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: list[Tensor | None] = []
        self.loss = torch.empty(0)

    def __call__(self, *arguments: Tensor) -> Tensor:
        if self.graph is None:
            self._capture(arguments)
            assert self.graph is not None
        for held, given in zip(self.inputs, arguments, strict=True):
            held.copy_(given)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.outputs, strict=True):
            parameter.grad = gradient
        return self.loss

    def _capture(self, arguments: tuple[Tensor, ...]) -> None:
        self.inputs = tuple(a.clone() for a in arguments)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._forget()
                self.gradients(*self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._forget()  # gradients that are None are written by the capture; others would be added to
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.loss = self.gradients(*self.inputs)
        self.outputs = [p.grad for p in self.parameters]
        self.graph = graph

    def _forget(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
