"""Shared by all tests: small images, small specs, and where the optional shared data lies."""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from uvb.data import ImageSet, load_dataset
from uvb.models import get_model
from uvb.spec import DataRef, Recipe, RunSpec, Widths

if TYPE_CHECKING:
    from pipelines.store import Store

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
TINY = Widths(conv=(3, 4), hidden=6, latent=5, decoder=7)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest first: where files are given to several processes in turn, nobody waits for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_disturbed_studies.py")


@pytest.fixture(scope="session")
def digits() -> ImageSet:
    return load_dataset("digits")


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the folder shared/ beside the checkout is absent")  # the project must not need it
    return SHARED


@pytest.fixture
def store(tmp_path: Path, digits: ImageSet) -> "Store":
    """A study's folder with the images in it."""
    from pipelines.images import save_images
    from pipelines.store import Store

    store = Store(tmp_path / "study")
    save_images(store, digits)
    return store


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole study whose figures are made up (`fake_study`)."""
    import fake_study  # needs pipelines, which tests of uvb alone do without

    return fake_study.make(tmp_path_factory.mktemp("full") / "digits")


@pytest.fixture(scope="module")
def page(study: Path) -> str:
    """Its report."""
    from pipelines.report import build_report

    return build_report(study).read_text()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of which nothing but one model is there."""
    import fake_study

    root = tmp_path_factory.mktemp("bare")
    of = fake_study.spec("uvb")
    fake_study.write(root / "models" / of.spec_id / "spec.json", of.to_json())
    return root


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """An MLflow store of one's own."""
    from tests.mlflow_study import empty_mlflow_db

    shutil.copy(empty_mlflow_db(), tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def tiny_spec(images: ImageSet, model: str = "uvb", **changes: object) -> RunSpec:
    """A spec that trains in a second: tiny widths, few images, two epochs, every feature of a recipe switched on."""
    recipe = Recipe("tiny", epochs=2, batch_size=32, learning_rate=1e-3, schedule="cosine", warmup=0.1, clip=10.0, ema=0.9)
    data = DataRef(images.name, images.checksum, images.shape, min(100, len(images.train)))
    spec = RunSpec(data, model, TINY, sigma=1.0, objective=get_model(model).objective, recipe=recipe)
    return dataclasses.replace(spec, **changes)
