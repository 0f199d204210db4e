"""The code that MLflow runs as a pyfunc: it takes a batch of noisy images and returns estimates of the clean ones.

MLflow keeps this very file beside the model ("models from code"), so loading unpickles nothing.
"""

from typing import Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

import uvb
from uvb.data.readers.pictures import noisy_images
from uvb.models.base import draw_latent_noise
from uvb.noise import generator


class Denoiser(PythonModel):
    """The estimate x̂(y, ε) of a trained model (Eq. 3 for energies). The parameter ``seed`` decides ε."""

    def load_context(self, context: Any) -> None:
        self.estimator = uvb.load(context.artifacts["model"])

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Noisy images (B, C, H, W), float32, pixels in units of [0, 1] -> x̂ of the same shape."""
        dtype = next(self.estimator.parameters()).dtype
        sigma, shape = float(self.estimator.sigma), self.estimator.spec.data.shape
        y = noisy_images(np.asarray(model_input), "the input", shape, sigma).to(dtype)
        eps = draw_latent_noise(self.estimator, len(y), generator(int((params or {}).get("seed", 0)), "denoise"), y)
        with torch.no_grad():  # torch.func takes the gradient of Eq. 3 all the same
            x_hat = self.estimator(y, eps)
        return x_hat.detach().float().numpy()


set_model(Denoiser())
