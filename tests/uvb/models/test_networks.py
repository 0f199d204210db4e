"""Every network and energy equals the paper's formulas, which are written out here as functions of the weights."""

import math

import pytest
import torch
import torch.nn.functional as F

from tests.support.builders import TINY, tiny_config
from uvb.models import get_model, model_names
from uvb.noise import normal

SHAPE, SIGMA = (2, 7, 6), 0.8


def silu(a):
    return a / (1 + torch.exp(-a))


def conv_net(weights, name, y, act):
    """Sec. 3.1: 3x3 convolutions without padding, a hidden linear layer, a linear readout. The readout has no activation."""
    own = {key.removeprefix(f"{name}.layers."): value for key, value in weights.items() if key.startswith(f"{name}.layers.")}
    numbers = sorted({int(key.split(".")[0]) for key in own})
    layers = [(own[f"{n}.weight"], own[f"{n}.bias"]) for n in numbers]
    assert [w.dim() for w, _ in layers] == [4] * len(TINY.conv) + [2, 2]
    for w, b in layers[:-2]:
        assert w.shape[2:] == (3, 3)
        patches = F.unfold(y, 3)  # (B, C 9, places)
        height, width = y.shape[2] - 2, y.shape[3] - 2
        y = act((w.flatten(1) @ patches + b[:, None]).reshape(len(y), -1, height, width))
    (w, b), (w_out, b_out) = layers[-2:]
    pixels = y.permute(0, 2, 3, 1).reshape(len(y), -1)  # (B, H W C), the order of the linear layer's weights
    return act(pixels @ w.T + b) @ w_out.T + b_out


def decoder(weights, name, z, act):
    """Sec. 3.1.1: one hidden linear layer, logistic readout."""
    w = {key.removeprefix(f"{name}.layers."): value for key, value in weights.items() if key.startswith(f"{name}.layers.")}
    a = act(z @ w["0.weight"].T + w["0.bias"]) @ w["2.weight"].T + w["2.bias"]
    return (1 / (1 + torch.exp(-a))).reshape(len(z), *SHAPE)


def two_level_unet(w, y, act):
    """A U-Net with two levels: the image's size and half of it. To join them, each pixel of the small level is repeated."""
    high = act(F.conv2d(y, w["g.down.0.weight"], w["g.down.0.bias"], padding=1))
    halves = torch.stack([high[:, :, i : i + 2].mean(2) for i in range(0, high.shape[2], 2)], 2)
    halves = torch.stack([halves[..., j : j + 2].mean(3) for j in range(0, high.shape[3], 2)], 3)
    low = act(F.conv2d(halves, w["g.down.1.weight"], w["g.down.1.bias"], padding=1))
    rows, columns = ([i * low.shape[d] // high.shape[d] for i in range(high.shape[d])] for d in (2, 3))
    joined = torch.cat([high, low[:, :, rows][..., columns]], 1)
    joined = act(F.conv2d(joined, w["g.up.0.weight"], w["g.up.0.bias"], padding=1))
    return F.conv2d(joined, w["g.out.weight"], w["g.out.bias"], padding=1)


def energy(name, w, y, eps, act):
    """f(y) of shape (B,), by the model's equation."""

    def half_squares(mean):
        return ((y - mean) ** 2).sum((1, 2, 3)) / (2 * SIGMA**2)

    if name == "deen":
        return conv_net(w, "net", y, act)[:, 0]
    if name == "deen_uvb_encoder":
        return (act(conv_net(w, "encoder", y, act)) @ w["readout.1.weight"].T + w["readout.1.bias"])[:, 0]
    if name == "unet":
        return half_squares(two_level_unet(w, y, act))
    if name == "quadratic_ae":
        return half_squares(decoder(w, "g.decoder", conv_net(w, "g.encoder", y, act), act))
    mu, lam = conv_net(w, "encoder_mu", y, act), conv_net(w, "encoder_lambda", y, act)
    kl = 0.5 * (mu**2 + torch.exp(lam) - lam - 1).sum(1)
    if name == "uvb_no_reconstruction":
        return kl
    mean = decoder(w, "decoder", mu if name == "uvb_mean" else mu + torch.exp(lam / 2) * eps, act)
    if name == "uvb_no_kl":
        return half_squares(mean)
    if name.startswith("uvb_laplace"):
        b = SIGMA / math.sqrt(2) if name == "uvb_laplace_matched" else SIGMA
        return (y - mean).abs().sum((1, 2, 3)) / b + kl
    return half_squares(mean) + kl


@pytest.mark.parametrize("activation", ["silu", "relu"])
@pytest.mark.parametrize("name", model_names())
def test_model_is_its_equation(name, activation):
    """The model has the formula's energy, and the estimate y - σ²∇f. The direct denoiser is an autoencoder."""
    torch.manual_seed(0)
    model = get_model(name).build(SHAPE, tiny_config(name), activation, SIGMA).double()
    act = {"silu": silu, "relu": lambda a: a.clamp(min=0)}[activation]
    y = normal((3, *SHAPE), 0, "y").double().requires_grad_()
    eps = normal((3, TINY.latent), 0, "eps").double()
    own = eps[:, : model.noise_dim]
    if name == "direct":
        w = model.state_dict()
        torch.testing.assert_close(model(y, own), decoder(w, "g.decoder", conv_net(w, "g.encoder", y, act), act))
        return
    f = energy(name, model.state_dict(), y, eps, act)
    torch.testing.assert_close(model.energy(y, own), f, rtol=1e-10, atol=1e-10)
    estimate = y - SIGMA**2 * torch.autograd.grad(f.sum(), y)[0]
    torch.testing.assert_close(model(y, own), estimate, rtol=1e-6, atol=1e-8)
