"""A small classifier of clean images. It finds the class of each jump, to count the classes that a chain visits."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uvb.errors import UserError
from uvb.noise import generator, key_to_seed

BATCH, EVALUATION_BATCH = 128, 1000
LEARNING_RATE = 2e-3
NOISE = 0.1  # standard deviation of noise on training images, so that the classifier also suits jumps, which are smoother


class Classifier(nn.Module):
    """(B, C, H, W) in [0, 1] -> (B, classes) logits.

    The layers are three convolutions with 16, 32 and 64 channels, and a linear layer. Pooling after each convolution halves
    the sides.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        if min(height, width) < 4:
            raise UserError(f"images of {height}x{width} are too small for the classifier; sides must be 4 or more")
        self.classes = classes
        layers: list[nn.Module] = []
        for c_in, c_out in ((channels, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(c_in, c_out, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
            height, width = (height + 1) // 2, (width + 1) // 2
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * height * width, classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x - 0.5)
        return logits


def train_classifier(images: Tensor, labels: Tensor, seed: int, *, classes: int | None = None, steps: int = 600) -> Classifier:
    """Train a classifier on clean images by Adam with a one-cycle learning rate. `seed` keys all random numbers.

    Args:
        images: (N, C, H, W), floating point in [0, 1], on the device that trains.
        labels: (N,) int64, 0 to classes - 1.
        classes: number of classes. None: the largest label + 1.
        steps: optimizer steps. On two cores 600 steps take seconds for 8x8 images, and less than a minute for 28x28.

    Raises:
        UserError: the set is empty, labels are missing or out of range, or images are too small.
    """
    if len(images) == 0 or labels.shape != (len(images),):
        raise UserError(f"the classifier needs one label per image: {len(images)} images, labels {tuple(labels.shape)}")
    classes = int(labels.max()) + 1 if classes is None else classes
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise UserError(f"labels run from {int(labels.min())} to {int(labels.max())}; they must be 0 to {classes - 1}")
    with torch.random.fork_rng(devices=[]):  # torch's initializers use the global generator, so restore it
        torch.manual_seed(key_to_seed(seed, "classifier", "init"))
        model = Classifier((images.shape[1], images.shape[2], images.shape[3]), classes)
    model = model.to(device=images.device, dtype=images.dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    g = generator(seed, "classifier", "train")
    for _ in range(steps):
        rows = torch.randint(len(images), (BATCH,), generator=g)
        x = images[rows.to(images.device)]
        x = x + NOISE * torch.randn(x.shape, generator=g).to(x)
        loss = F.cross_entropy(model(x), labels[rows.to(labels.device)].to(images.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def classify(model: Classifier, images: Tensor) -> Tensor:
    """The most probable class of each image: (N, C, H, W) in [0, 1] -> (N,) int64."""
    parts = [model(part).argmax(1) for part in images.split(EVALUATION_BATCH)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64, device=images.device)


def accuracy(model: Classifier, images: Tensor, labels: Tensor) -> float:
    """The share of images (N, C, H, W) that the classifier assigns to the class in `labels` (N,)."""
    return float((classify(model, images) == labels.to(images.device)).double().mean())
