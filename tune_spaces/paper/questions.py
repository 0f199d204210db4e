"""Open question 1: how much of UVB's gain comes from the autoencoder, how much from the energy, how much from sampling z?"""

from tune_spaces.registry import Base, register_space
from uvb.spec import RunSpec

MODELS = ("uvb", "uvb_mean", "quadratic_ae", "direct", "deen")


@register_space("questions")
def questions(base: Base) -> list[RunSpec]:
    """UVB, UVB with z = μ, a quadratic autoencoder energy, a direct denoiser and DEEN, all at the largest noise level.

    All models have as many parameters as UVB. The exception is DEEN on the paper's image shapes: there it has the paper's
    widths, and so 2 % fewer parameters on MNIST and 12 % fewer on CIFAR-10.
    """
    return [base.spec(model, seed=seed) for model in MODELS for seed in base.seeds]
