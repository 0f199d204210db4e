"""The classifier that names images in experiments: trained once a process for a data set, the same wherever it is trained."""

import torch
from torch import Tensor

from uvb.experiments._draws import latent_noise, shortened
from uvb.experiments.registry import Context
from uvb.measure.classifier import Classifier, accuracy, classify, train_classifier
from uvb.measure.losses import evaluation_indices, noisy_blocks
from uvb.models.base import Estimator
from uvb.spec import RunSpec

STEPS = 300  # 98 % on clean digits and MNIST
ACCURACY_IMAGES = 1000
TRAINING_IMAGES = 100_000  # more than its steps can see

_trained: dict[tuple[str, int, str], Classifier] = {}


def labeller(context: Context) -> Classifier | None:
    """A classifier of clean training images, keyed by the context's seed; None where the data set has no labels."""
    images, device = context.images, context.plan.device
    if images.train_labels is None or images.test_labels is None:
        return None
    key = (images.checksum, context.seed, device)
    if key not in _trained:
        classes = int(max(images.train_labels.max(), images.test_labels.max())) + 1
        x = images.to_unit(images.train[:TRAINING_IMAGES].to(device))
        labels = images.train_labels[:TRAINING_IMAGES].to(device)
        with torch.enable_grad():  # experiments run without
            _trained[key] = train_classifier(x, labels, context.seed, classes=classes, steps=STEPS)
    return _trained[key]


def labels_of(classifier: Classifier | None, images: Tensor) -> list[int] | None:
    """The class of each image (N, C, H, W), or None without a classifier."""
    return None if classifier is None else classify(classifier, images.float()).tolist()


@torch.no_grad()
def accuracies(classifier: Classifier, model: Estimator, spec: RunSpec, context: Context) -> dict[str, float]:
    """Share of test images named right: the clean ones, their x̂(y) and their x̂(x̂(y)). It bounds what labels can tell."""
    images, plan = context.images, context.plan
    assert images.test_labels is not None
    n = min(len(images.test), shortened(ACCURACY_IMAGES, context, least=100))
    chosen = evaluation_indices(len(images.test), "test", n, context.evaluation.seed)
    right = {"clean": 0.0, "jump": 0.0, "second_jump": 0.0}
    blocks = noisy_blocks(images.test[chosen], images.levels, spec.sigma, model.noise_dim, "test", 0, context.evaluation, plan)
    at = 0
    for x, y, eps in blocks:
        with plan.autocast():
            x_hat = model(y, eps)
            x_hat2 = model(x_hat, latent_noise(model, len(y), y, context, "accuracy", at))
        labels = images.test_labels[chosen[at : at + len(x)]]
        for name, pictures in (("clean", x), ("jump", x_hat), ("second_jump", x_hat2)):
            right[name] += accuracy(classifier, pictures.float(), labels) * len(x)
        at += len(x)
    return {name: count / n for name, count in right.items()}
