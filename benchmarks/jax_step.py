"""This project's networks and training step in JAX, compiled, as a reference on a GPU. Only this file needs JAX.

The weights come from the torch model, so that a test can compare loss and gradients. The step is timed in its own process,
because torch's memory and CUDA libraries could disturb it.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

# The benchmark that started this process has torch on the same GPU, so JAX must not reserve most of the GPU's memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
import jax
import jax.numpy as jnp
import numpy as np
import torch

from uvb.decoding import decoded
from uvb.models import get_model
from uvb.models.base import Estimator
from uvb.spec import Widths

Params = dict[str, Any]
Energy = Callable[..., Any]


def from_torch(model: Estimator) -> Params:
    """The trainable weights by their torch names, float32."""
    return {k: jnp.asarray(v.detach().cpu().numpy(), dtype=jnp.float32) for k, v in model.named_parameters()}


def _linear(p: Params, name: str, h: Any, dtype: Any) -> Any:
    return h.astype(dtype) @ p[f"{name}.weight"].astype(dtype).T + p[f"{name}.bias"].astype(dtype)


def _conv(p: Params, name: str, h: Any, dtype: Any) -> Any:
    out = jax.lax.conv_general_dilated(
        h.astype(dtype), p[f"{name}.weight"].astype(dtype), (1, 1), "VALID", dimension_numbers=("NHWC", "OIHW", "NHWC")
    )
    return out + p[f"{name}.bias"].astype(dtype)


def _conv_net(p: Params, name: str, y: Any, dtype: Any) -> Any:
    """`uvb.models.nets.ConvNet`: (B, C, H, W) -> (B, out), float32."""
    layers = sorted({int(k.split(".")[-2]) for k in p if k.startswith(f"{name}.layers.")})  # the last two are linear
    h = y.transpose(0, 2, 3, 1)  # channels last, because the torch model flattens its pixels in this order
    for i in layers[:-2]:
        h = jax.nn.silu(_conv(p, f"{name}.layers.{i}", h, dtype))
    h = jax.nn.silu(_linear(p, f"{name}.layers.{layers[-2]}", h.reshape(len(h), -1), dtype))
    return _linear(p, f"{name}.layers.{layers[-1]}", h, dtype).astype(jnp.float32)


def deen_energy(p: Params, y: Any, eps: Any, sigma: float, dtype: Any) -> Any:
    """DEEN's energy, (B,)."""
    return _conv_net(p, "net", y, dtype)[:, 0]


def uvb_energy(p: Params, y: Any, eps: Any, sigma: float, dtype: Any) -> Any:
    """Eq. 17, (B,)."""
    mu, lam = _conv_net(p, "encoder_mu", y, dtype), _conv_net(p, "encoder_lambda", y, dtype)
    z = mu + jnp.exp(0.5 * lam) * eps
    h = jax.nn.silu(_linear(p, "decoder.layers.0", z, dtype))
    mean = jax.nn.sigmoid(_linear(p, "decoder.layers.2", h, dtype)).astype(jnp.float32)  # (B, d)
    reconstruction = jnp.square(y.reshape(len(y), -1) - mean).sum(1) / (2 * sigma**2)
    return reconstruction - 0.5 * (1 + lam - mu**2 - jnp.exp(lam)).sum(1)


ENERGIES: dict[str, Energy] = {"uvb": uvb_energy, "deen": deen_energy}


def loss_of(name: str, sigma: float, dtype: Any) -> Callable[..., Any]:
    """``(params, x, noise, eps) -> loss``, Eq. 18, batch mean."""
    energy = ENERGIES[name]

    def loss(p: Params, x: Any, noise: Any, eps: Any) -> Any:
        y = x + sigma * noise
        gradient = jax.grad(lambda y: energy(p, y, eps, sigma, dtype).sum())(y)
        return jnp.square(x - y + sigma**2 * gradient).sum() / len(x)

    return loss


def make_step(name: str, sigma: float, dtype: Any, rate: float = 1e-4, ema: float = 0.999) -> Callable[..., Any]:
    """``(state, x, noise, eps) -> (state, loss)``, jitted, with Adam and an EMA of the weights. JAX may overwrite the state."""
    loss = loss_of(name, sigma, dtype)
    tree = jax.tree_util.tree_map

    def step(state: Any, x: Any, noise: Any, eps: Any) -> Any:
        p, m, v, average, count = state
        value, g = jax.value_and_grad(loss)(p, x, noise, eps)
        count = count + 1
        m = tree(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = tree(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        first, second = 1 - 0.9**count, jnp.sqrt(1 - 0.999**count)
        p = tree(lambda p, m, v: p - rate / first * m / (jnp.sqrt(v) / second + 1e-8), p, m, v)
        average = tree(lambda a, p: a + (1 - ema) * (p - a), average, p)
        return (p, m, v, average, count), value

    return jax.jit(step, donate_argnums=0)


def time_steps(
    model: Estimator, name: str, shape: tuple[int, int, int], dtype: str, batch: int = 128, repeats: int = 20, inner: int = 5
) -> tuple[list[float], float]:
    """Time `repeats` runs of `inner` steps after warm-up, and the first call, which compiles.

    Return the seconds of a step in each run, and of the first call.
    """
    sigma = float(model.sigma)
    p = from_torch(model)
    zeros = {k: jnp.zeros_like(v) for k, v in p.items()}
    # JAX overwrites the state, so its parts must not share an array. `v + 0` makes a copy.
    copies = ({k: v + 0 for k, v in tree.items()} for tree in (zeros, p))
    state = (p, zeros, *copies, jnp.zeros((), jnp.float32))
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((batch, *shape), dtype=np.float32))
    noise = jnp.asarray(rng.standard_normal((batch, *shape), dtype=np.float32))
    eps = jnp.asarray(rng.standard_normal((batch, model.noise_dim), dtype=np.float32))
    step = make_step(name, sigma, {"fp32": jnp.float32, "bf16": jnp.bfloat16}[dtype])
    started = time.perf_counter()
    state, value = step(state, x, noise, eps)
    value.block_until_ready()
    compiled = time.perf_counter() - started
    times = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        for _ in range(inner):
            state, value = step(state, x, noise, eps)
        jax.block_until_ready(state)
        times.append((time.perf_counter() - started) / inner)
    assert bool(jnp.isfinite(value)), "the JAX step diverged"
    return times[2:], compiled


def loss_and_gradients(model: Estimator, name: str, x: Any, noise: Any, eps: Any, dtype: str = "fp32") -> tuple[float, Params]:
    """Loss and parameter gradients, as numpy arrays, for torch tensors x, noise (B, C, H, W) and eps (B, noise_dim)."""
    loss = loss_of(name, float(model.sigma), {"fp32": jnp.float32, "bf16": jnp.bfloat16}[dtype])
    as_jax = [jnp.asarray(t.detach().cpu().to(torch.float32).numpy()) for t in (x, noise, eps)]
    value, gradients = jax.jit(jax.value_and_grad(loss))(from_torch(model), *as_jax)
    return float(value), {k: np.asarray(v) for k, v in gradients.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the seconds of steps, and of the first call, as JSON.")
    parser.add_argument("model")
    parser.add_argument("dtype", choices=["fp32", "bf16"])
    parser.add_argument("sizes", type=json.loads, help="device, shape, widths, batch, repeats, inner, as JSON")
    args = parser.parse_args()
    sizes = args.sizes
    if sizes["device"] == "cuda" and jax.default_backend() != "gpu":
        sys.exit(f"JAX runs on the {jax.default_backend()}, not on the GPU: install a build of JAX for this GPU")
    widths, shape = decoded(sizes["widths"], Widths, "widths"), tuple(sizes["shape"])
    model = get_model(args.model).build(shape, widths, "silu", 1.0)
    print(json.dumps(time_steps(model, args.model, shape, args.dtype, sizes["batch"], sizes["repeats"], sizes["inner"])))


if __name__ == "__main__":
    main()
