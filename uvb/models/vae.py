"""UVB's network trained by the ELBO: the VAE on Y (Eq. 14) and the σ-VAE on X (Eq. 9-10)."""

from uvb.models.registry import register_model
from uvb.models.uvb import PAPER_WIDTHS, UVB


@register_model("vae", widths=PAPER_WIDTHS, objective="elbo_y")
class VAE(UVB):
    """Gaussian VAE on the noisy Y (Sec. 3.3.2). It never sees a clean image."""


@register_model("sigma_vae", widths=PAPER_WIDTHS, objective="elbo_x")
class SigmaVAE(UVB):
    """σ-VAE, the imaginary noise model (Eq. 9-10). It trains on clean images, and denoises by x̂ = decoder(z), z ~ q(z|y)."""
