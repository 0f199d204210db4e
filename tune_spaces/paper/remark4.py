"""Remark 4: UVB with a Laplace decoder, whose learning the paper saw saturate."""

from tune_spaces.registry import Base, register_space
from uvb.spec import RunSpec

MODELS = ("uvb", "uvb_laplace", "uvb_laplace_matched")


@register_space("remark4")
def remark4(base: Base) -> list[RunSpec]:
    """UVB with a Gaussian decoder, and with Laplace ones of scale b = σ and σ/√2, at the largest noise level.

    The paper gives no scale; σ/√2 is the one at which the Laplace density has variance σ².
    """
    return [base.spec(model, seed=seed) for model in MODELS for seed in base.seeds]
