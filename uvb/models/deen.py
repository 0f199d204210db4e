"""DEEN (Sec. 3.1.2): the energy of Y as one ConvNet with a scalar output."""

from torch import Tensor

from uvb.config import Widths
from uvb.models.base import Energy
from uvb.models.nets import ConvNet
from uvb.models.registry import register_model
from uvb.spec import Shape

PAPER_WIDTHS = Widths(conv=(128, 256, 512), hidden=100)
PAPER_SHAPES: tuple[Shape, ...] = ((1, 28, 28), (3, 32, 32))  # MNIST, CIFAR-10


@register_model("deen", widths=PAPER_WIDTHS, match=("conv", "hidden"), keep_on=PAPER_SHAPES)
class DEEN(Energy):
    """f(y) = ConvNet(y). The output bias only adds a constant to the energy, so it gets no gradient. Table 1 counts it."""

    def __init__(self, shape: Shape, widths: Widths, activation: str, sigma: float) -> None:
        super().__init__(sigma)
        self.net = ConvNet(shape, widths, 1, activation)

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        value: Tensor = self.net(y)  # (B, 1)
        return value.squeeze(1).to(y.dtype)
