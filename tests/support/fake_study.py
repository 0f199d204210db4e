"""A study folder made up for tests of tables and report: the real formats, digits' real pixels, invented models.

Losses are drawn around numbers like those digits give; images come from the training set's exact posterior mean, which
stands in for trained energies. Nothing here is a result.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from sklearn.datasets import load_digits

from uvb.models.capacity import default_widths
from uvb.models.capacity import parameters as count_parameters
from uvb.spec import RECIPES, DataRef, RunSpec, Widths

own_widths = cache(default_widths)
SIGMAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
OBJECTIVES = {"vae": "elbo_y", "sigma_vae": "elbo_x"}
# (excess over the floor at sigma = 1, test less train)
EXCESS = {"uvb": (0.40, 0.05), "deen": (0.55, 0.02), "uvb_laplace": (1.2, 0.01), "vae": (1.40, 0.01), "sigma_vae": (1.3, 0.02)}


def floor(sigma: float) -> float:
    """Something like the floor of digits: 3.25 at sigma = 1."""
    return 3.25 * sigma**2.4


def spec(
    model: str, sigma: float = 1.0, *, seed: int = 0, dataset: str = "digits", activation: str = "silu",
    widths: Widths | None = None,
) -> RunSpec:  # fmt: skip
    shape = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}[dataset]
    train = {"digits": 1500, "mnist": 60_000, "cifar10": 50_000}[dataset]
    data = DataRef(dataset, f"{dataset}-checksum", shape, train)
    return RunSpec(
        data,
        model,
        widths or own_widths(model, shape),
        sigma,
        OBJECTIVES.get(model, "denoise"),
        RECIPES["fast"],
        activation,
        seed,
    )


def write(path: Path, blob: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(blob))


def result(root: Path, task: str, key: str, blob: Any, **arrays: np.ndarray) -> None:
    """One task's result, as a task writes it; arrays' names may hold a slash as `train__energy`."""
    folder = root / "tasks" / task / key
    write(folder / "result.json", blob)
    if arrays:
        named = {k.replace("__", "/"): np.ascontiguousarray(v, np.float32) for k, v in arrays.items()}
        save_file(named, folder / "arrays.safetensors")


def add_model(root: Path, of: RunSpec, *, images: int = 200, epochs: int = 12) -> None:
    """A trained model with its losses, and its internals where it has a latent."""
    rng = np.random.default_rng([round(of.sigma * 1000), of.seed, *map(ord, of.model)])
    common = np.random.default_rng(round(of.sigma * 1000)).gamma(6, size=(2, images))  # the images: some are hard
    excess, gap = EXCESS[of.model]
    scale, per_epoch = of.sigma**1.5, 1500 / 5200
    write(root / "models" / of.spec_id / "spec.json", of.to_json())
    write(
        root / "models" / of.spec_id / "plan.json",
        {"workers": 2, "device": "cpu", "precision": "bf16", "compile": False, "threads": 1},
    )
    parameters = count_parameters(of.model, of.data.shape, of.widths)
    write(root / "models" / of.spec_id / "done.json", {"parameters": parameters, "seconds": per_epoch * epochs})
    latent = of.model != "deen"
    final = floor(of.sigma) + excess * scale
    rows = []
    for epoch in range(1, epochs + 1):
        decay = 2.2 * scale * np.exp(-epoch / 2.5)
        rows.append(
            {
                "epoch": epoch,
                "train_loss": final + decay + rng.normal(0, 0.01),
                "train_probe": final + 0.9 * decay,
                "test_loss": final + gap + decay + rng.normal(0, 0.01),
                "kl": (6 + 40 * (1 - np.exp(-epoch / 5))) if latent else None,
                "recon": 30 + decay if latent else None,
                "images_per_s": 5200 + rng.normal(0, 90),
                "seconds": per_epoch * epoch,
                "time": 1.8e9 + per_epoch * epoch,
            }
        )
    write(root / "models" / of.spec_id / "curves.json", {"rows": rows})

    estimators = ["energy"] + (["decoder"] if latent else [])
    table, arrays = [], {}
    for index, split in enumerate(("train", "test")):
        for estimator in estimators:
            judged_by = "decoder" if of.model == "sigma_vae" else "energy"
            worse = 0.0 if estimator == judged_by else 0.6 * scale
            mean = final + worse + (gap * scale if split == "test" else 0)
            values = mean * common[index] / common[index].mean() + rng.normal(0, 0.05 * scale, images)
            arrays[f"{split}__{estimator}"] = values
            values = values.astype(np.float32).astype(float)
            table.append(
                {
                    "split": split,
                    "estimator": estimator,
                    "loss": float(values.mean()),
                    "stderr": float(values.std(ddof=1) / images**0.5),
                    "images": images,
                    "draws": 4,
                }
            )
    result(root, "losses", of.spec_id, {"spec_id": of.spec_id, "rows": table}, **arrays)
    if latent:
        kl = 46.0 if of.model == "uvb" else 3.1
        quantities = {"kl_noisy": kl, "kl_clean": 0.7 * kl}
        for name, half in (("noisy_y", 33.4), ("noisy_x", 2.3), ("clean_y", 33.9), ("clean_x", 1.9)):
            quantities |= {f"recon_{name}_half": half / of.sigma**2, f"recon_{name}_full": 2 * half / of.sigma**2}
        blob = [{"quantity": k, "value": v, "stderr": 0.01 * v} for k, v in quantities.items()]
        result(root, "internals", of.spec_id, {"rows": blob})


def add_reference(root: Path, of: RunSpec) -> None:
    base = floor(of.sigma)
    values = {
        "floor": base,
        "floor_stderr": 0.01,
        "nonparametric": base + 0.09,
        "nonparametric_stderr": 0.02,
        "mean_predictor": 4.74,
    }
    blob = {"data": of.to_json()["data"], "sigma": of.sigma, **values}
    result(root, "reference", f"{of.data.checksum}-{of.sigma:g}", blob)


class Posterior:
    """The exact posterior mean of the digits' training set, blurred a little more for a weaker model."""

    def __init__(self, sigma: float, excess: float = 0.0) -> None:
        digits = load_digits()
        order = np.random.default_rng(0).permutation(len(digits.images))
        self.x = (digits.images[order] / 16).reshape(-1, 64).astype(np.float32)
        self.labels = digits.target[order]
        self.train, self.test, self.sigma, self.excess = self.x[:1500], self.x[1500:], sigma, excess

    def __call__(self, y: np.ndarray) -> np.ndarray:
        logits = -((y[:, None] - self.train[None]) ** 2).sum(-1) / (2 * self.sigma**2)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        mean = weights / weights.sum(1, keepdims=True) @ self.train
        return (1 - self.excess) * mean + self.excess * self.train.mean(0)

    def classify(self, x: np.ndarray) -> np.ndarray:
        return self.labels[:1500][((x[:, None] - self.train[None]) ** 2).sum(-1).argmin(1)]


def add_experiments(root: Path, uvb: RunSpec, deen: RunSpec, vae: RunSpec) -> None:
    """Every experiment the report knows, for models at sigma = 1."""
    rng = np.random.default_rng(1)
    exact = Posterior(1.0)
    clean = exact.test[:20]
    noisy = clean + rng.normal(size=clean.shape).astype(np.float32)

    def image(a: np.ndarray) -> np.ndarray:
        return np.asarray(a, np.float32).reshape(-1, 1, 8, 8)

    for of, excess in ((uvb, 0.0), (deen, 0.35)):
        model = Posterior(1.0, excess)
        xhat = model(noisy)
        arrays = {"clean": image(clean), "noisy": image(noisy), "xhat": image(xhat), "xhat2": image(model(xhat))}
        result(root, "denoise_rows", of.spec_id, {"sigma": 1.0}, **arrays)
        base = 0.0 if of is uvb else 12.0
        energies = {
            "f_clean": rng.normal(98 + base, 9, 400),
            "f_xhat": rng.normal(104 + base, 9, 400),
            "f_noisy": rng.normal(133 + base, 9, 400),
        }
        result(root, "energies", of.spec_id, {"sigma": 1.0}, **energies)
        add_walk(root, of, model)

    flow, energy = noisy.copy(), []
    for _ in range(40):
        flow = flow + 0.2 * (exact(flow) - flow)
        energy.append(((flow - exact(flow)) ** 2).sum(1) * 8 + 98)
    labels = {"labels_before": exact.classify(exact(noisy)).tolist(), "labels_after": exact.classify(flow).tolist()}
    steps = {"step1": image(exact(noisy)), "step2": image(exact(exact(noisy))), "attractor": image(flow)}
    result(root, "nebula", uvb.spec_id, {"sigma": 1.0, **labels}, noisy=image(noisy), energy=np.array(energy), **steps)
    samples = image(np.clip(exact.train.mean(0) + rng.normal(0, 0.15, (40, 64)), 0, 1))
    result(root, "decoder_samples", uvb.spec_id, {"sigma": 1.0}, samples=samples)
    blurred = image(Posterior(1.0, 0.9)(noisy))
    failure = {"clean": image(clean), "noisy": image(noisy), "recon": blurred, "samples": blurred[::-1]}
    result(root, "decoder_samples", vae.spec_id, {"sigma": 1.0}, **failure)
    one = image(exact(noisy))
    mean = one + rng.uniform(-0.006, 0.006, one.shape)
    blob = {"draws": 1000, "max_difference": 0.0059, "images": 20}
    result(root, "one_z", uvb.spec_id, blob, clean=image(clean), one=one, mean=mean)
    radii = np.linspace(8.5, 40, 12)
    bound = [[float(r), float(1 - 8 / r)] for r in radii]
    measured = [[float(r), float(1 - 5 / r)] for r in radii]
    result(root, "convexity", uvb.spec_id, {"sigma": 1.0, "bound": bound, "measured": measured})
    rows = [
        {"model": "uvb", "loss": 1.31, "stderr": 0.01, "optimum": 1.27, "mean_predictor": 2.9, "score_error": 0.013},
        {"model": "deen", "loss": 1.35, "stderr": 0.01, "optimum": 1.27, "mean_predictor": 2.9, "score_error": 0.049},
    ]
    for of, row in zip((uvb, deen), rows, strict=True):
        result(root, "mixture", of.spec_id, {"sigma": 1.0, "rows": [row]})


def add_walk(root: Path, of: RunSpec, model: Posterior, jumps: int = 100, chains: int = 4) -> None:
    """Walk-jump sampling of the exact energy: overdamped Langevin, delta = 0.2, a jump every ten steps."""
    rng = np.random.default_rng(3)
    y = rng.uniform(size=(chains, 64)).astype(np.float32)
    images, labels, delta = [], [], 0.5
    for _ in range(jumps):
        for _ in range(10):
            y = y + delta**2 * (model(y) - y) + 2**0.5 * delta * rng.normal(size=y.shape).astype(np.float32)
        jump = model(y)
        images.append(jump[0].reshape(1, 8, 8))
        labels.append(model.classify(jump))
    table = np.array(labels)  # (T, chains)
    transition = np.zeros((10, 10), int)
    for a, b in zip(table[:-1].ravel(), table[1:].ravel(), strict=True):
        transition[a, b] += 1
    first, seen = table[:, 0], set()
    steps = next((10 * (t + 1) for t, k in enumerate(first) if not seen.add(int(k)) and len(seen) == 10), None)
    measured = {
        "classes_visited": len(set(first.tolist())),
        "steps_to_all": steps,
        "transition": transition.tolist(),
        "iat": 14.2,
        "ess_per_step": 0.07,
        "split_rhat": 1.02,
    }
    blob = {
        "sampler": "langevin",
        "delta": delta,
        "steps": 10 * jumps,
        "steps_per_jump": 10,
        "chains": chains,
        "classifier_accuracy": 0.93,
        "diverged": [{"chain": 3, "step": 880}],
        "variants": {"jump": measured, "second_jump": {**measured, "iat": 12.9}},
    }
    stack = np.array(images)
    result(root, "walk_jump", of.spec_id, blob, jumps=stack, labels=table, jumps2=stack, labels2=table)


def make(root: Path, *, dataset: str = "digits", experiments: bool = True, seeds: int = 1, extra: bool = True) -> Path:
    """The default study: sigma x {uvb, deen}, the VAE at sigma = 1, references, and every experiment."""
    for sigma in SIGMAS:
        for model in ("uvb", "deen"):
            for seed in range(seeds):
                add_model(root, spec(model, sigma, dataset=dataset, seed=seed))
        add_reference(root, spec("uvb", sigma, dataset=dataset))
    add_model(root, spec("vae", dataset=dataset))
    if extra:
        add_model(root, spec("sigma_vae", dataset=dataset))
        add_model(root, spec("uvb_laplace", dataset=dataset))
    if experiments:
        add_experiments(root, *(spec(m, dataset=dataset) for m in ("uvb", "deen", "vae")))
    provenance = {
        "git": "0123456789abcdef",
        "seed": 0,
        "python": "3.11.7",
        "packages": {"torch": "2.13.0", "ray": "2.60.0"},
        "device": "cpu",
        "cpus": 2,
    }
    write(root / "study.json", {"name": f"{dataset}-full", "space": "paper", "workers": 2, "provenance": provenance})
    stages = {"start": 14.0, "training": 228.0, "evaluation": 41.0, "experiments": 22.0, "report": 9.0}
    timings = [{"name": name, "seconds": seconds} for name, seconds in stages.items()]
    write(root / "timings.json", {"stages": timings, "total_seconds": sum(stages.values())})
    return root
