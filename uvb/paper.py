"""The numbers that the paper reports: Tables 1-5, Remark 4, and the settings of Sec. 3.1.1.

Every lookup returns None if the paper does not report the number.
"""

from dataclasses import dataclass

SIGMAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

# Table 1: dim(ϑ), the number of parameters, to two digits.
PARAMETERS: dict[tuple[str, str], float] = {
    ("mnist", "uvb"): 2.7e7,
    ("mnist", "deen"): 2.6e7,
    ("cifar10", "uvb"): 4.1e7,
    ("cifar10", "deen"): 3.6e7,
}

# Tables 2 and 3: (data set, model, split) -> the loss of Eq. 18 at each of SIGMAS.
LOSSES: dict[tuple[str, str, str], tuple[float, ...]] = {
    ("mnist", "uvb", "train"): (2.60, 3.84, 5.09, 6.83, 8.72, 10.6, 12.6, 14.7),
    ("mnist", "deen", "train"): (2.77, 4.43, 6.45, 8.87, 11.5, 14.4, 17.3, 20.1),
    ("mnist", "uvb", "test"): (3.01, 4.42, 5.94, 7.55, 9.27, 11.1, 13.0, 15.0),
    ("mnist", "deen", "test"): (2.89, 4.48, 6.47, 8.83, 11.5, 14.3, 17.1, 19.9),
    ("cifar10", "uvb", "train"): (14.4, 20.1, 25.0, 29.7, 33.7, 37.8, 42.1, 46.0),
    ("cifar10", "deen", "train"): (15.5, 21.5, 27.1, 32.6, 37.9, 43.0, 48.1, 52.6),
    ("cifar10", "uvb", "test"): (15.4, 20.7, 25.7, 30.5, 34.7, 39.0, 42.9, 46.9),
    ("cifar10", "deen", "test"): (15.5, 21.5, 27.1, 32.8, 38.0, 43.0, 48.1, 52.7),
}

# Remark 4: training loss of UVB with a Laplace decoder on MNIST, sigma = 1. The paper does not give the scale b.
LAPLACE_TRAIN_LOSS = 58.4

# Tables 4 and 5, MNIST, sigma = 1: (model, quantity). Table 5 is |y - decoder(z)|^2 / 2 sigma^2 with z from q(z|x).
INTERNALS: dict[tuple[str, str], float] = {
    ("uvb", "kl_noisy"): 692.0,
    ("vae", "kl_noisy"): 3.70,
    ("uvb", "recon_clean_y_half"): 103.0,
    ("vae", "recon_clean_y_half"): 51.5,
}

# Fig. 2's caption: the largest difference in a pixel between x_hat with one z and the mean of x_hat over 1,000 draws of z.
ONE_Z_BOUND = 0.0068


@dataclass(frozen=True)
class Settings:
    """How the paper trains (Sec. 3.1): Adam at a constant rate. `widths` has each model's widths as text."""

    recipe: str = "paper"
    epochs: int = 400
    batch_size: int = 128
    learning_rate: float = 1e-4
    schedule: str = "constant"
    activation: str = "silu"
    widths: tuple[tuple[str, str], ...] = (("uvb", "32-64-128/200/100/2000"), ("deen", "128-256-512/100"))
    train_images: tuple[tuple[str, int], ...] = (("mnist", 60_000), ("cifar10", 50_000))


SETTINGS = Settings()


def parameters(dataset: str, model: str) -> float | None:
    """The number of parameters in Table 1, to two digits."""
    return PARAMETERS.get((dataset, model))


def loss(dataset: str, model: str, sigma: float, split: str) -> float | None:
    """A loss of Tables 2 and 3, or of Remark 4 for the Laplace decoder. `split` is "train" or "test"."""
    if model.startswith("uvb_laplace"):
        return LAPLACE_TRAIN_LOSS if (dataset, split) == ("mnist", "train") and _same(sigma, 1.0) else None
    row = LOSSES.get((dataset, model, split))
    if row is None:
        return None
    return next((value for known, value in zip(SIGMAS, row, strict=True) if _same(known, sigma)), None)


def internal(dataset: str, model: str, sigma: float, quantity: str) -> float | None:
    """A number of Tables 4 and 5 (MNIST at sigma = 1). docs/file_formats.md explains the names of the quantities."""
    return INTERNALS.get((model, quantity)) if dataset == "mnist" and _same(sigma, 1.0) else None


def _same(a: float, b: float) -> bool:
    return abs(a - b) < 1e-9
