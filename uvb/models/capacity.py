"""Capacity: parameter counts, and widths whose counts match (Table 1)."""

import math
from dataclasses import replace

import torch

from uvb.errors import UserError
from uvb.models.nets import conv_output, count_parameters
from uvb.models.registry import get_model
from uvb.spec import Shape, Widths

PAPER_SHAPES: tuple[Shape, ...] = ((1, 28, 28), (3, 32, 32))


def parameters(model: str, shape: Shape, widths: Widths) -> int:
    """dim(ϑ) of a model, counted on the meta device: nothing is allocated."""
    with torch.device("meta"):
        return count_parameters(get_model(model).build(shape, widths, "silu", 1.0))


def conv_net_parameters(shape: Shape, widths: Widths, out: int) -> int:
    """The count of `nets.ConvNet` in closed form; fast enough to enumerate hundreds of widths."""
    channels = (shape[0], *widths.conv)
    total = sum(9 * c_in * c_out + c_out for c_in, c_out in zip(channels, channels[1:], strict=False))
    c, h, w = conv_output(shape, widths)
    return total + (c * h * w + 1) * widths.hidden + (widths.hidden + 1) * out


def scaled_widths(widths: Widths, factor: float) -> Widths:
    """Widths times `factor`, rounded, at least 1; d_z is a modelling choice and stays."""
    conv = tuple(max(1, round(c * factor)) for c in widths.conv)
    decoder = max(1, round(widths.decoder * factor)) if widths.decoder else 0
    return replace(widths, conv=conv, hidden=max(1, round(widths.hidden * factor)), decoder=decoder)


def matched_widths(model: str, shape: Shape, target: int, tolerance: float = 0.01) -> Widths:
    """Widths for `model` on images of `shape` whose parameter count is within `tolerance` of `target`.

    Enumerated, not guessed. A "conv" net (DEEN) keeps its channels' proportions 1:2:4 and may move its hidden layer; of all
    that fit, the one whose hidden layer is nearest the paper's wins. A "hidden" net (one encoder where UVB has two) keeps
    its convolutions and decoder and widens its hidden layer.

    Raises:
        UserError: if no width fits.
    """
    entry = get_model(model)
    base = entry.widths
    if entry.match == "latent":
        return base
    fits: list[tuple[float, float, Widths]] = []
    if entry.match == "conv":
        for unit in range(2, 4 * base.conv[0]):
            net = replace(base, conv=tuple(round(c / base.conv[0] * unit) for c in base.conv))
            # the count is affine in the hidden width, so only those near the target are tried
            none, one = (conv_net_parameters(shape, replace(net, hidden=hidden), 1) for hidden in (0, 1))
            least, most = ((target * (1 + sign * tolerance) - none) / (one - none) for sign in (-1, 1))
            first, last = max(1, base.hidden // 2, math.floor(least)), min(2 * base.hidden, math.ceil(most))
            for widths in (replace(net, hidden=hidden) for hidden in range(first, last + 1)):
                error = abs(conv_net_parameters(shape, widths, 1) / target - 1)
                if error <= tolerance:
                    fits.append((abs(widths.hidden - base.hidden), error, widths))
    else:
        one = parameters(model, shape, replace(base, hidden=1))
        slope = parameters(model, shape, replace(base, hidden=2)) - one  # the count is affine in the hidden width
        widths = replace(base, hidden=max(1, 1 + round((target - one) / slope)))
        error = abs(parameters(model, shape, widths) / target - 1)
        if error <= tolerance:
            fits.append((0.0, error, widths))
    if not fits:
        raise UserError(
            f"no widths of {model} on {shape} images come within {100 * tolerance:g} % of UVB's {target:,} parameters; "
            "choose another --width, or leave it out"
        )
    return min(fits, key=lambda fit: fit[:2])[2]


def widths_at(model: str, shape: Shape, factor: float) -> Widths:
    """`model` at the capacity that UVB has with `factor` times its widths: its own widths times that for a model built like
    UVB, else those, enumerated, whose count is UVB's within 1 %. Factor 1 is `default_widths`.

    Raises:
        UserError: if no width fits.
    """
    if factor == 1:
        return default_widths(model, shape)
    widths = scaled_widths(default_widths("uvb", shape), factor)
    if get_model(model).match == "latent":
        return scaled_widths(default_widths(model, shape), factor)
    return matched_widths(model, shape, parameters("uvb", shape, widths))


def default_widths(model: str, shape: Shape) -> Widths:
    """The paper's own widths on the paper's two image shapes; elsewhere, widths that match UVB's count within 1 %.

    Models beyond the paper are matched everywhere.
    """
    entry = get_model(model)
    if entry.match == "latent" or (entry.match == "conv" and shape in PAPER_SHAPES):
        conv_output(shape, entry.widths)  # raises a clear error where no pixel would be left
        return entry.widths
    return matched_widths(model, shape, parameters("uvb", shape, get_model("uvb").widths))
