"""Builders of a study's folder for tests of tables and report: real formats, invented losses, untrained models.

The losses resemble those of digits, and UVB has the lowest. The experiments really run, on networks with random weights.
None of the numbers is a result.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from tests.support.builders import TINY
from uvb.data import load_dataset
from uvb.experiments import Context, Result, experiment_names, get_experiment
from uvb.measure.losses import EvalConfig
from uvb.models import build_model
from uvb.models.capacity import default_widths
from uvb.models.capacity import parameters as count_parameters
from uvb.plan import Plan
from uvb.spec import RECIPES, DataRef, RunSpec, Widths

own_widths = cache(default_widths)
SIGMAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
OBJECTIVES = {"vae": "elbo_y", "sigma_vae": "elbo_x"}
# data set: (shape, number of training images)
SHAPES = {"digits": ((1, 8, 8), 1500), "mnist": ((1, 28, 28), 60_000), "cifar10": ((3, 32, 32), 50_000)}
# model: (training loss minus floor at sigma = 1, test loss minus training loss)
EXCESS = {"uvb": (0.40, 0.05), "deen": (0.55, 0.02), "uvb_laplace": (1.2, 0.01), "vae": (1.40, 0.01), "sigma_vae": (1.3, 0.02)}
IMAGES = 200
# Each model's experiments. UVB is not listed, because it has all of them.
MEASURED = {"deen": ("denoise_rows", "energies", "walk_jump"), "vae": ("decoder_samples", "denoise_rows")}


def floor(sigma: float) -> float:
    """About the floor of digits: 3.25 at sigma = 1."""
    return 3.25 * sigma**2.4


def spec(
    model: str,
    sigma: float = 1.0,
    *,
    seed: int = 0,
    dataset: str = "digits",
    activation: str = "silu",
    widths: Widths | None = None,
) -> RunSpec:
    shape, train = SHAPES[dataset]
    data = DataRef(dataset, f"{dataset}-checksum", shape, train)
    objective = OBJECTIVES.get(model, "denoise")
    return RunSpec(data, model, widths or own_widths(model, shape), sigma, objective, RECIPES["fast"], activation, seed)


def write(path: Path, blob: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(blob))


def result(root: Path, task: str, key: str, blob: Any, **arrays: np.ndarray) -> None:
    """Write one task's result, as a task does. A double underscore in an array's name stands for a slash."""
    folder = root / "tasks" / task / key
    write(folder / "result.json", blob)
    if arrays:
        named = {k.replace("__", "/"): np.ascontiguousarray(v, np.float32) for k, v in arrays.items()}
        save_file(named, folder / "arrays.safetensors")


def add_model(root: Path, of: RunSpec, *, epochs: int = 12, excess: tuple[float, float] | None = None) -> None:
    """Write a trained model with its losses and, if it has a latent, its internals."""
    rng = np.random.default_rng([round(of.sigma * 1000), of.seed, *map(ord, of.model)])
    over, gap = excess or EXCESS[of.model]
    scale, latent = of.sigma**1.5, of.model != "deen"
    final = floor(of.sigma) + over * scale
    folder = root / "models" / of.spec_id
    write(folder / "spec.json", of.to_json())
    write(folder / "plan.json", Plan(workers=2, precision="bf16", threads=1).to_json())
    seconds = 0.3 * epochs
    write(folder / "done.json", {"parameters": count_parameters(of.model, of.data.shape, of.widths), "seconds": seconds})
    write(folder / "curves.json", {"rows": [_epoch(e, final, gap, scale, latent, rng) for e in range(1, epochs + 1)]})

    common = np.random.default_rng(round(of.sigma * 1000)).gamma(6, size=(2, IMAGES))  # some images are harder than others
    rows, arrays = [], {}
    best = "decoder" if of.model == "sigma_vae" else "energy"
    for index, split in enumerate(("train", "test")):
        for estimator in ("energy", "decoder") if latent else ("energy",):
            worse = 0.0 if estimator == best else 0.6 * scale
            mean = final + worse + gap * scale * index  # the gap counts on test images only
            values = (mean * common[index] / common[index].mean() + rng.normal(0, 0.05 * scale, IMAGES)).astype(np.float32)
            arrays[f"{split}__{estimator}"] = values
            numbers = {"loss": float(values.mean()), "stderr": float(values.std(ddof=1) / IMAGES**0.5)}
            rows.append({"split": split, "estimator": estimator, **numbers, "images": IMAGES, "draws": 4})
    result(root, "losses", of.spec_id, {"spec_id": of.spec_id, "rows": rows}, **arrays)
    if latent:
        quantities = {"kl_noisy": 46.0, "kl_clean": 32.2}
        for name, half in (("noisy_y", 33.4), ("noisy_x", 2.3), ("clean_y", 33.9), ("clean_x", 1.9)):
            quantities |= {f"recon_{name}_half": half / of.sigma**2, f"recon_{name}_full": 2 * half / of.sigma**2}
        blob = [{"quantity": k, "value": v, "stderr": 0.01 * v} for k, v in quantities.items()]
        result(root, "internals", of.spec_id, {"rows": blob})


def _epoch(epoch: int, final: float, gap: float, scale: float, latent: bool, rng: np.random.Generator) -> dict[str, Any]:
    decay = 2.2 * scale * np.exp(-epoch / 1.5)
    return {
        "epoch": epoch,
        "train_loss": final + decay + rng.normal(0, 0.001),
        "train_probe": final + 0.9 * decay,
        "test_loss": final + gap + decay,
        "kl": (6 + 40 * (1 - np.exp(-epoch / 5))) if latent else None,
        "recon": 30 + decay if latent else None,
        "images_per_s": 5200 + rng.normal(0, 90),
        "seconds": 0.3 * epoch,
        "time": 1.8e9 + 0.3 * epoch,
    }


def add_reference(root: Path, of: RunSpec) -> None:
    base = floor(of.sigma)
    values = {"floor": base, "floor_stderr": 0.01, "nonparametric": base + 0.09, "nonparametric_stderr": 0.02}
    blob = {"data": of.to_json()["data"], "sigma": of.sigma, **values, "mean_predictor": 4.74, "mean_image_train": 4.7}
    result(root, "reference", f"{of.data.checksum}-{of.sigma:g}", blob)


def add_experiments(root: Path, *specs: RunSpec) -> None:
    """Write the results of every experiment except losses and internals. The results of `mixture` are invented."""
    for of in specs:
        for name, found in _measured(of.model).items():
            arrays = {k: v.detach().float().numpy() for k, v in found.arrays.items()}
            result(root, name, of.spec_id, found.scalars, **arrays)
    for of, loss in zip(specs, (1.31, 1.35, 1.5), strict=False):
        row = {"model": of.model, "loss": loss, "stderr": 0.01, "optimum": 1.27, "mean_predictor": 2.9, "score_error": 0.013}
        result(root, "mixture", of.spec_id, {"sigma": 1.0, "rows": [row]})


@cache
def _measured(name: str) -> dict[str, Result]:
    """The results of a model's experiments on digits, by name. The model is a narrow network with random weights."""
    torch.manual_seed(0)
    narrow = spec(name, widths=TINY)
    model = build_model(narrow).eval()
    context = Context(load_dataset("digits", "unused"), Plan(), EvalConfig(draws=1), scale=0.05)
    slow = ("mixing", "mixing_over_sigma", "likelihood_over_sigma", "jump_quality_over_sigma")
    left_out = ("losses", "internals", *slow, *(e for e in experiment_names() if e.startswith("walk_jump_")))
    names = MEASURED.get(name, [e for e in experiment_names() if e not in left_out])
    chosen = [get_experiment(e) for e in names]
    return {e.name: e.run(model, narrow, context) for e in chosen if e.applies(type(model), "digits")}


def make(root: Path, *, dataset: str = "digits", experiments: bool = True, seeds: int = 1, extra: bool = True) -> Path:
    """Write the default study: UVB and DEEN at every sigma, the VAE at sigma = 1, references, and every experiment."""
    for sigma in SIGMAS:
        for model in ("uvb", "deen"):
            for seed in range(seeds):
                add_model(root, spec(model, sigma, dataset=dataset, seed=seed))
        add_reference(root, spec("uvb", sigma, dataset=dataset))
    for model in ("vae", "sigma_vae", "uvb_laplace") if extra else ("vae",):
        add_model(root, spec(model, dataset=dataset))
    if experiments:
        add_experiments(root, *(spec(m, dataset=dataset) for m in ("uvb", "deen", "vae")))
    provenance = {"git": "0123456789abcdef", "python": "3.11.7", "packages": {"torch": "2.13.0"}, "device": "cpu", "cpus": 2}
    write(root / "study.json", {"name": f"{dataset}-full", "space": "paper", "workers": 2, "provenance": provenance})
    stages = {"start": 14.0, "training": 228.0, "evaluation": 41.0, "experiments": 22.0, "report": 9.0}
    timings = [{"name": name, "seconds": seconds} for name, seconds in stages.items()]
    write(root / "timings.json", {"stages": timings, "total_seconds": sum(stages.values())})
    return root
