"""Fixtures of all tests: images, a study folder, an MLflow store."""

import atexit
import os
import shutil
import tempfile
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tests.support.builders import SHARED
from uvb.data import ImageSet, load_dataset

if TYPE_CHECKING:
    from pipelines.files.store import Store

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # at Ray's own 15, workers starve beside another test that computes
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # otherwise each server starts seven processes for jobs
os.environ["UVB_CACHE"] = tempfile.mkdtemp(prefix="uvb-test-cache-")
os.environ["HF_HUB_OFFLINE"] = "1"  # tests use no network
os.environ["HF_HOME"] = os.environ["UVB_CACHE"]
atexit.register(shutil.rmtree, os.environ["UVB_CACHE"], ignore_errors=True)
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest file first, so that no process waits for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_disturbed_studies.py")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")  # most machines have none, and the tests must pass there


@pytest.fixture(autouse=True)
def leave_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `leave` raise SystemExit in tests.

    If a thread that cannot be ended still runs, `leave` ends the process at once. In tests that process would be pytest.
    """
    monkeypatch.setattr("pipelines.leaving._stubborn", deque[object](maxlen=0))  # forgets every thread


@pytest.fixture(scope="session")
def digits() -> ImageSet:
    return load_dataset("digits")


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the folder shared/ beside the checkout is absent")  # users do not have it, and their tests must pass
    return SHARED


@pytest.fixture
def store(tmp_path: Path, digits: ImageSet) -> "Store":
    """A study folder that holds the images of digits."""
    from pipelines.files.store import Store
    from pipelines.study.images import save_images

    store = Store(tmp_path / "study")
    save_images(store, digits)
    return store


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study with made-up numbers (`fake_study`)."""
    from tests.support import fake_study  # imported here, because it imports pipelines, which tests of uvb do not need

    return fake_study.make(tmp_path_factory.mktemp("full") / "digits")


@pytest.fixture(scope="module")
def page(study: Path) -> str:
    """The report of the fixture `study`."""
    from pipelines.reporting.page import build_report

    return build_report(study).read_text()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that has one model and nothing else."""
    from tests.support import fake_study

    root = tmp_path_factory.mktemp("bare")
    spec = fake_study.spec("uvb")
    fake_study.write(root / "models" / spec.spec_id / "spec.json", spec.to_json())
    return root


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A new MLflow store."""
    from tests.support.mlflow_study import empty_mlflow_db

    shutil.copy(empty_mlflow_db(), tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"
