"""The classifier that finds the class of an image. Each process trains it once for a data set, with the same result."""

import torch
from torch import Tensor

from uvb.experiments.registry import Context
from uvb.measure.classifier import Classifier, accuracy, classify, train_classifier
from uvb.measure.losses import evaluation_indices
from uvb.models.base import Estimator
from uvb.spec import RunSpec

STEPS = 300  # enough for an accuracy of 98 % on clean digits and MNIST
ACCURACY_IMAGES = 1000
TRAINING_IMAGES = 100_000  # more images than the classifier sees in `STEPS` steps

_trained: dict[tuple[str, int, str], Classifier] = {}


def labeller(context: Context) -> Classifier | None:
    """The classifier that is trained on clean images with the context's seed. None if the data set has no labels."""
    images, device = context.images, context.plan.device
    if images.train_labels is None or images.test_labels is None:
        return None
    key = (images.checksum, context.seed, device)
    if key not in _trained:
        classes = int(max(images.train_labels.max(), images.test_labels.max())) + 1
        x = images.to_unit(images.train[:TRAINING_IMAGES].to(device))
        labels = images.train_labels[:TRAINING_IMAGES].to(device)
        with torch.enable_grad():  # because experiments run under no_grad
            _trained[key] = train_classifier(x, labels, context.seed, classes=classes, steps=STEPS)
    return _trained[key]


def labels_of(classifier: Classifier | None, images: Tensor) -> list[int] | None:
    """The class of each image (N, C, H, W). None if there is no classifier."""
    return None if classifier is None else classify(classifier, images.float()).tolist()


@torch.no_grad()
def accuracies(classifier: Classifier, model: Estimator, spec: RunSpec, context: Context) -> dict[str, float]:
    """The classifier's accuracy on clean test images, on their x̂(y) ("jump") and on their x̂(x̂(y)) ("second_jump")."""
    labels = context.images.test_labels
    assert labels is not None
    noisy = context.noisy(spec, limit=context.shortened(ACCURACY_IMAGES, least=100))
    labels = labels[evaluation_indices(len(labels), "test", len(noisy), context.evaluation.seed)]
    right, at = {"clean": 0.0, "jump": 0.0, "second_jump": 0.0}, 0
    for x, y, eps in noisy.blocks(model.noise_dim):
        with context.plan.autocast():
            x_hat = model(y, eps)
            x_hat2 = model(x_hat, context.latent_noise(model, y, "accuracy", at))
        own = labels[at : at + len(x)]
        for name, pictures in (("clean", x), ("jump", x_hat), ("second_jump", x_hat2)):
            right[name] += accuracy(classifier, pictures.float(), own) * len(x)
        at += len(x)
    return {name: count / at for name, count in right.items()}
