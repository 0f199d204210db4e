"""Forward and backward pass of a step as one CUDA graph, so that the host's launches never hold the device up."""

import warnings

import torch
from torch import Tensor, nn

from uvb.gradients import Gradients, distance

WARM_UP = 3  # passes before the capture: kernels are compiled and chosen there
LARGEST_DISTANCE = 1e-2  # of the graph's gradient from that of the last of them, relative: kernels may add in another order


class GraphedGradients:
    """`gradients`, captured at the first call and replayed from then on.

    Every call must bring tensors of the shapes and dtypes of the first. The loss and the gradients lie in the graph's own
    memory: the next call writes over them. Clipping them in place, or setting ``.grad`` to None, does no harm.

    The first replay is compared with the pass it was captured from. Where capturing fails or they differ, a warning says so
    and every call launches kernel by kernel: slower, the same numbers.
    """

    def __init__(self, gradients: Gradients, module: nn.Module) -> None:
        self.gradients = gradients
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.graph: torch.cuda.CUDAGraph | None = None
        self.given_up = False
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: list[Tensor | None] = []
        self.loss = torch.empty(0)

    def __call__(self, *arguments: Tensor) -> Tensor:
        if self.graph is None and not self.given_up:
            self._begin(arguments)
        if self.graph is None:
            return self.gradients(*arguments)
        return self._replay(arguments)

    def _replay(self, arguments: tuple[Tensor, ...]) -> Tensor:
        assert self.graph is not None
        for held, given in zip(self.inputs, arguments, strict=True):
            held.copy_(given)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.outputs, strict=True):
            parameter.grad = gradient
        return self.loss

    def _begin(self, arguments: tuple[Tensor, ...]) -> None:
        """Capture, and try the graph; give up on it, and say so, where that fails."""
        try:
            expected = self._capture(arguments)
            self._replay(arguments)
            if not (apart := distance(self.outputs, expected)) <= LARGEST_DISTANCE:  # so that nan is refused
                raise RuntimeError(f"its gradient differs from the uncaptured one by {apart:.2g} of its norm")
        except Exception as error:  # whatever CUDA, a compiled kernel or a model's own code raises
            self.graph, self.outputs, self.inputs, self.given_up = None, [], (), True
            reason = (str(error).splitlines() or [""])[0]
            warnings.warn(f"CUDA graph failed ({type(error).__name__}: {reason}); launching kernel by kernel", stacklevel=3)
        self._forget()

    def _capture(self, arguments: tuple[Tensor, ...]) -> list[Tensor | None]:
        """Make the graph; returns the gradients of the last pass before it."""
        self.inputs = tuple(a.clone() for a in arguments)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._forget()
                self.gradients(*self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        expected = [p.grad for p in self.parameters]
        self._forget()  # gradients that are None are written by the capture; others would be added to
        graph = torch.cuda.CUDAGraph()
        # the outer one brings the stream back where a capture fails at its end
        with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph):
            self.loss = self.gradients(*self.inputs)
        self.outputs = [p.grad for p in self.parameters]
        self.graph = graph
        return expected

    def _forget(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
