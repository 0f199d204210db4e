"""A model that is logged in MLflow's format for Python models loads with the same weights. Nothing is pickled."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipelines.tracking import model_registry as models
from pipelines.tracking.connection import import_mlflow, open_client, open_experiment
from tests.support.mlflow_study import empty_mlflow_db, make_spec
from uvb import build_model, load, save_model
from uvb.errors import UserError
from uvb.models.base import draw_latent_noise
from uvb.noise import generator


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A client, the URI of its store, and {model: (run id, folder)} of an untrained UVB and DEEN."""
    root = tmp_path_factory.mktemp("models")
    shutil.copy(empty_mlflow_db(), root / "mlflow.db")
    uri = f"sqlite:///{root}/mlflow.db"
    client = open_client(uri)
    experiment = open_experiment(client, uri, "uvb")
    found = {}
    for name in ("uvb", "deen"):
        spec = make_spec(name, 1.0)
        folder = save_model(build_model(spec), spec, root / name, {"note": "untrained"})
        run = client.create_run(experiment)
        models.log_model(client, run.info.run_id, folder)
        found[name] = (run.info.run_id, folder)
    return client, uri, found


@pytest.mark.parametrize("name", ["uvb", "deen"])
def test_load_returns_the_model_that_was_logged(logged, name):
    _, uri, found = logged
    run_id, folder = found[name]
    fetched, original = models.load(f"runs:/{run_id}/model", uri), load(folder)
    assert fetched.spec == make_spec(name, 1.0)
    assert type(fetched) is type(original)
    weights = original.state_dict()
    assert fetched.state_dict().keys() == weights.keys()
    assert all(torch.equal(v, weights[k]) for k, v in fetched.state_dict().items())
    assert type(models.load(folder)) is type(original)


@pytest.mark.parametrize("name", ["uvb", "deen"])
def test_pyfunc_denoises_a_batch(logged, name, tmp_path):
    _, uri, found = logged
    run_id, folder = found[name]
    mlflow = import_mlflow()
    path = str(models.fetch(f"runs:/{run_id}/model", tmp_path, uri))
    denoiser = mlflow.pyfunc.load_model(path)
    noisy = np.random.default_rng(0).normal(size=(3, 1, 8, 8)).astype(np.float32)
    estimator = load(folder)
    y = torch.from_numpy(noisy).to(next(estimator.parameters()).dtype)
    for seed in (0, 7):
        eps = draw_latent_noise(estimator, 3, generator(seed, "denoise"), y)
        expected = estimator(y, eps).detach().numpy()
        answer = denoiser.predict(noisy, params={"seed": seed})
        assert answer.shape == (3, 1, 8, 8)
        np.testing.assert_allclose(answer, expected, atol=1e-6)
    if name == "uvb":
        assert np.abs(denoiser.predict(noisy, params={"seed": 1}) - denoiser.predict(noisy)).max() > 0
    with pytest.raises(mlflow.exceptions.MlflowException):
        denoiser.predict(noisy[:, :, :4])  # the signature guards the shape
    info = mlflow.models.Model.load(path)
    assert info.metadata["spec_id"] == make_spec(name, 1.0).spec_id
    assert info.signature.inputs.inputs[0].shape == (-1, 1, 8, 8)
    assert info.saved_input_example_info is not None


def test_log_model_pickles_nothing_and_load_unpickles_nothing(logged, monkeypatch, tmp_path):
    _, uri, found = logged
    mlflow = import_mlflow()
    path = str(models.fetch(f"runs:/{found['uvb'][0]}/model", tmp_path, uri))

    names = {p.name for p in Path(path).rglob("*") if p.is_file()}
    assert {"MLmodel", "model.safetensors", "spec.json", "pyfunc_model.py"} <= names
    assert not [n for n in names if n.endswith((".pkl", ".pickle", ".pt", ".pth", ".bin"))]

    def refuse(*_, **__):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    models.load(f"runs:/{found['uvb'][0]}/model", uri)
    mlflow.pyfunc.load_model(path)


def test_log_model_logs_once_and_repeats_an_interrupted_upload(logged):
    client, uri, found = logged
    run_id, folder = found["uvb"]
    first = models.log_model(client, run_id, folder)
    assert models.log_model(client, run_id, folder) == first
    experiment = client.get_run(run_id).info.experiment_id
    torn = client.create_run(experiment).info.run_id
    client.create_logged_model(experiment, "uvb-sigma-1", torn)  # as if killed before the upload
    models.log_model(client, torn, folder)
    assert [str(m.status) for m in models._logged(client, experiment, torn)] == ["READY"]
    assert [m.name for m in models._logged(client, experiment, torn)] == ["uvb-sigma-1"]
    for address in ("model", "uvb-sigma-1"):
        assert models.load(f"runs:/{torn}/{address}", uri).spec == make_spec("uvb", 1.0)


def test_register_best_adds_a_version_for_a_better_model_only(logged):
    client, uri, found = logged
    rows = [
        ("uvb", "x", 0.5, 1.0),
        ("uvb", "a", 1.0, 4.0),
        ("uvb", "b", 1.0, 5.0),
        ("deen", "d", 1.0, 4.5),
        ("vae", "v", 1.0, 1.0),
    ]
    losses = pd.DataFrame(rows, columns=["model", "spec_id", "sigma", "loss"])
    losses = losses.assign(split="test", estimator="energy", dataset="digits")
    assert set(models.best(losses)["spec_id"]) == {"x", "a", "d"}  # losses at different noise levels are not compared
    runs = {"x": found["uvb"][0], "a": found["uvb"][0], "d": found["deen"][0]}
    for _ in range(2):
        named = models.register_best(client, "my/study", losses[losses["spec_id"] != "x"], runs)
        assert named == {f"my-study-{m}@{alias}": "1" for m in ("uvb", "deen") for alias in ("best-sigma-1", "best")}
    other = client.create_run(client.get_run(found["uvb"][0]).info.experiment_id).info.run_id
    models.log_model(client, other, found["uvb"][1])
    better = losses.assign(loss=[1.0, 4.0, 3.0, 4.5, 1.0])
    named = models.register_best(client, "my/study", better, {**runs, "b": other})
    assert (named["my-study-uvb@best"], named["my-study-uvb@best-sigma-0_5"]) == ("2", "1")
    version = client.get_model_version_by_alias("my-study-uvb", "best")
    assert version.run_id == other
    assert version.description == "uvb on digits at σ = 1, test loss 3.0000"
    said = {"sigma": "1", "test_loss": "3.0000", "spec_id": "b", "dataset": "digits", "checksum": "c" * 64}
    assert version.tags == said
    assert models.load("models:/my-study-uvb/1", uri).spec == make_spec("uvb", 1.0)


def test_register_best_names_models_by_data_set_where_there_are_several(logged):
    client, _, found = logged
    rows = [("digits", "uvb", "a", 1.0, 4.0), ("mnist", "uvb", "b", 1.0, 15.0)]
    losses = pd.DataFrame(rows, columns=["dataset", "model", "spec_id", "sigma", "loss"]).assign(
        split="test", estimator="energy"
    )
    named = models.register_best(client, "two", losses, {"a": found["uvb"][0], "b": found["uvb"][0]})
    assert named.keys() == {f"two-{data}-uvb@{alias}" for data in ("digits", "mnist") for alias in ("best-sigma-1", "best")}


def test_register_best_never_mixes_two_sets_of_images(logged):
    """Two sets of images may have the same name. Their models get different registered names."""
    client, _, found = logged
    rows = [("a", 4.0, "c" * 64), ("b", 3.0, "d" * 64)]
    losses = pd.DataFrame(rows, columns=["spec_id", "loss", "checksum"])
    losses = losses.assign(model="uvb", sigma=1.0, split="test", estimator="energy", dataset="faces")
    assert set(models.best(losses)["spec_id"]) == {"a", "b"}
    other = client.create_run(client.get_run(found["uvb"][0]).info.experiment_id).info.run_id
    models.log_model(client, other, found["uvb"][1])
    runs = {"a": found["uvb"][0], "b": other}
    for _ in range(2):
        named = models.register_best(client, "faces", losses, runs)
        assert named == {
            f"{name}@{alias}": "1" for name in ("faces-uvb", "faces-uvb-dddddddd") for alias in ("best-sigma-1", "best")
        }
        assert client.get_model_version_by_alias("faces-uvb", "best").run_id == found["uvb"][0]


def test_load_refuses_a_model_that_is_not_there_in_one_line(logged, tmp_path):
    _, uri, found = logged
    for source in ("runs:/0123456789abcdef0123456789abcdef/model", "models:/nobody/1"):
        with pytest.raises(UserError, match="cannot fetch") as error:
            models.load(source, uri)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="holds no trained model"):
        models.load(tmp_path)
    damaged = shutil.copytree(found["uvb"][1], tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(UserError, match="cannot be loaded"):
        models.load(damaged)
