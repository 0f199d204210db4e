"""The classifier that finds the class of each jump."""

import pytest
import torch

from uvb.data import ImageSet
from uvb.errors import UserError
from uvb.measure.classifier import Classifier, accuracy, train_classifier


def test_classifier_finds_the_class_of_digits(digits: ImageSet) -> None:
    assert digits.train_labels is not None
    assert digits.test_labels is not None
    train, test = digits.to_unit(digits.train), digits.to_unit(digits.test)
    before = torch.random.get_rng_state()
    model = train_classifier(train, digits.train_labels, seed=0, steps=400)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator is unchanged"
    assert accuracy(model, test, digits.test_labels) > 0.95
    assert accuracy(model, test, (digits.test_labels + 1) % 10) < 0.05


def test_train_classifier_is_keyed_by_the_seed(digits: ImageSet) -> None:
    assert digits.train_labels is not None
    train = digits.to_unit(digits.train)
    one, same, other = (train_classifier(train, digits.train_labels, seed=s, steps=5)(train) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 5, 7)])
def test_classifier_takes_images_of_any_shape(shape: tuple[int, int, int]) -> None:
    assert Classifier(shape, 7)(torch.rand(2, *shape)).shape == (2, 7)


def test_train_classifier_refuses_bad_images_and_labels() -> None:
    images = torch.rand(3, 1, 8, 8)
    with pytest.raises(UserError, match="one label"):
        train_classifier(images, torch.zeros(2, dtype=torch.long), 0)
    with pytest.raises(UserError, match="0 to 1"):
        train_classifier(images, torch.tensor([0, 1, 2]), 0, classes=2)
    with pytest.raises(UserError, match="too small"):
        train_classifier(images[..., :3, :3], torch.tensor([0, 1, 2]), 0)
