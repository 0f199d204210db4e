"""The card of a small model folder."""

from argparse import Namespace

from benchmarks.cpu.ship import card


def test_card_counts_one_in_the_singular() -> None:
    recipe = {"learning_rate": 0.001, "schedule": "constant", "batch_size": 8, "epochs": 1, "clip": 1.0, "ema": 0.9}
    data = {"name": "digits", "train_images": 1500, "checksum": "0"}
    spec = {"recipe": recipe, "data": data, "model": "uvb", "sigma": 1.0, "seed": 0}
    loss = {"loss": 2.0, "stderr": 0.1, "images": 297, "draws": 1, "estimator": "energy"}
    result = {"spec": spec, "losses": {"test": loss, "train": loss}, "parameters": 10, "seconds": 1.0, "machine": "here",
              "beside_other_work": False, "plan": {"threads": 1}}  # fmt: skip
    written = card(result, loss, Namespace(title="A model", command="python", commit="abc"), 1000)
    assert "(297 images, 1 noise draw, estimator `energy`)" in written
    assert ", 1 epoch, " in written
