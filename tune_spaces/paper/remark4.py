"""Remark 4: UVB with a Laplace decoder. In the paper, the training loss of this model saturated."""

from tune_spaces.registry import Base, register_space
from uvb.spec import RunSpec

MODELS = ("uvb", "uvb_laplace", "uvb_laplace_matched")


@register_space("remark4")
def remark4(base: Base) -> list[RunSpec]:
    """UVB with a Gaussian decoder, and with Laplace decoders of scale b = σ and σ/√2, at the largest noise level.

    The paper does not say which scale it used. At b = σ/√2 the Laplace density has variance σ².
    """
    return [base.spec(model, seed=seed) for model in MODELS for seed in base.seeds]
