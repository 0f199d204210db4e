"""Run a function of tensors as one CUDA graph, so that the device never waits for the host to launch kernels."""

import contextlib
import gc
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from uvb.accelerate.gradients import distance
from uvb.compat import end_failed_capture
from uvb.errors import first_line, with_type

WARM_UP = 3  # calls before the capture; they compile and choose the kernels
LARGEST_DISTANCE = 1e-2  # largest relative distance of a replay from an ordinary call; kernels may add in another order

Outputs = tuple[Tensor | None, ...]


class Graphed:
    """A function that the first call captures as a CUDA graph, and that later calls replay.

    Every call must pass tensors of the first call's shapes and dtypes, under the same autocast. The outputs lie in the
    graph's memory, and the next call overwrites them. The caller may change them in place.

    The first replay is compared with an ordinary call. If the capture fails or the results differ, there is a warning, and
    all calls run without a graph. Calls without a graph are slower, but give the same numbers.

    Args:
        apart: computes the relative distance of outputs from the expected outputs. The default is the distance of all outputs
            as one vector.
    """

    def __init__(self, function: Callable[..., Outputs], apart: Callable[[Outputs, Outputs], float] = distance) -> None:
        self.function, self.apart = function, apart
        self.graph: torch.cuda.CUDAGraph | None = None
        self.given_up = False
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: Outputs = ()

    def __call__(self, *arguments: Tensor) -> Outputs:
        if self.graph is None and not self.given_up:
            self._begin(arguments)
        if self.graph is None:
            return self.function(*arguments)
        return self._replay(arguments)

    def _replay(self, arguments: tuple[Tensor, ...]) -> Outputs:
        assert self.graph is not None
        for held, given in zip(self.inputs, arguments, strict=True):
            if (held.shape, held.dtype) != (given.shape, given.dtype):  # a copy would broadcast or round
                raise ValueError(
                    f"the CUDA graph takes {held.dtype} {tuple(held.shape)}, not {given.dtype} {tuple(given.shape)}"
                )
            held.copy_(given)
        self.graph.replay()
        return self.outputs

    def _begin(self, arguments: tuple[Tensor, ...]) -> None:
        """Capture the graph and test it. If that fails, warn and use no graph."""
        try:
            expected = self._capture(arguments)
            if not (apart := self.apart(self._replay(arguments), expected)) <= LARGEST_DISTANCE:  # also true for nan
                raise RuntimeError(f"the graph's result differs from an ordinary call's by {apart:.2g} of its norm")
        except Exception as error:  # CUDA, a compiled kernel or the model's own code may raise anything
            self.graph, self.outputs, self.inputs, self.given_up = None, (), (), True
            reason = with_type(error, first_line)
            warnings.warn(f"CUDA graph failed ({reason}); launching kernel by kernel", stacklevel=3)

    def _capture(self, arguments: tuple[Tensor, ...]) -> Outputs:
        """Capture the graph. Return the outputs of the last ordinary call before the capture."""
        self.inputs = tuple(a.clone() for a in arguments)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                expected = self.function(*self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        gc.collect()  # otherwise leftovers of autograd may be freed in the middle of the capture
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        try:
            # the outer context restores the stream if a capture fails at its end
            with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph, pool=pool):
                self.outputs = self.function(*self.inputs)
        except Exception:  # end the capture, then raise the error again
            with contextlib.suppress(Exception):
                end_failed_capture(torch.cuda.current_device(), pool)
            raise
        self.graph = graph
        return expected
