"""The paper's networks (Sec. 3.1): 3x3 convolutions, stride 1, no padding, with biases.

The paper does not state the kernel size. It follows from the parameter counts in Table 1.
"""

from torch import Tensor, nn

from uvb.accelerate.convolution import convolve
from uvb.config import Widths
from uvb.errors import UserError
from uvb.models.activations import activation
from uvb.spec import Shape


def conv_output(shape: Shape, widths: Widths) -> Shape:
    """The shape (C, H, W) after the convolutions. Each makes height and width smaller by 2.

    Raises:
        UserError: no pixel is left.
    """
    lost = 2 * len(widths.conv)
    channels = widths.conv[-1] if widths.conv else shape[0]
    height, width = shape[1] - lost, shape[2] - lost
    if height < 1 or width < 1:
        raise UserError(
            f"images of {shape[1]}x{shape[2]} leave no pixel after {len(widths.conv)} unpadded 3x3 convolutions; "
            f"use at most {(min(shape[1:]) - 1) // 2} of them (widths.conv), or larger images"
        )
    return channels, height, width


class Convolution(nn.Conv2d):
    """3x3, stride 1, no padding."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, kernel_size=3)

    def forward(self, y: Tensor) -> Tensor:
        assert self.bias is not None
        return convolve(y, self.weight, self.bias)


class FlattenPixels(nn.Module):
    """(B, C, H, W) -> (B, H W C). The channels are last, as in the memory of channels-last images, so nothing is copied."""

    def forward(self, y: Tensor) -> Tensor:
        return y.permute(0, 2, 3, 1).flatten(1)


class ConvNet(nn.Module):
    """(B, C, H, W) -> (B, out): convolutions, one hidden linear layer, and a linear output layer."""

    def __init__(self, shape: Shape, widths: Widths, out: int, act: str) -> None:
        super().__init__()
        channels = (shape[0], *widths.conv)
        c, h, w = conv_output(shape, widths)
        layers: list[nn.Module] = []
        for c_in, c_out in zip(channels, channels[1:], strict=False):
            layers += [Convolution(c_in, c_out), activation(act)]
        layers += [FlattenPixels(), nn.Linear(c * h * w, widths.hidden), activation(act), nn.Linear(widths.hidden, out)]
        self.layers = nn.Sequential(*layers)

    def forward(self, y: Tensor) -> Tensor:
        out: Tensor = self.layers(y)
        return out


class Decoder(nn.Module):
    """(B, d_z) -> (B, C, H, W) in (0, 1): one hidden linear layer, and a logistic output layer (Sec. 3.1.1)."""

    def __init__(self, shape: Shape, widths: Widths, act: str) -> None:
        super().__init__()
        d = shape[0] * shape[1] * shape[2]
        self.shape = shape
        self.layers = nn.Sequential(
            nn.Linear(widths.latent, widths.decoder), activation(act), nn.Linear(widths.decoder, d), nn.Sigmoid()
        )

    def forward(self, z: Tensor) -> Tensor:
        pixels: Tensor = self.layers(z)  # (B, d)
        return pixels.reshape(-1, *self.shape)
