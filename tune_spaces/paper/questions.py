"""Open question 1: what of UVB's advantage is the encoder and decoder, what the energy, what the sampling of z?"""

from tune_spaces.registry import Base, register_space
from uvb.spec import RunSpec

MODELS = ("uvb", "uvb_mean", "quadratic_ae", "direct", "deen")


@register_space("questions")
def questions(base: Base) -> list[RunSpec]:
    """UVB, UVB with z = μ, a quadratic autoencoder energy, a direct denoiser, DEEN: one capacity, at the largest noise level.

    Widths are the defaults, which match UVB's count; on the paper's image shapes DEEN keeps the paper's own, 2 and 12 % fewer.
    """
    return [base.spec(model, seed=seed) for model in MODELS for seed in base.seeds]
