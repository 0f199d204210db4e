"""Log models to MLflow, register them there, and fetch them as folders that `uvb.load` reads.

MLflow gets each model as a pyfunc, its format for Python models that it can serve. Nothing is pickled: weights are safetensors,
the rest is JSON, and the code is a source file.
"""

import json
import re
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvb
from pipelines.tracking.address import asked_server, default_tracking_uri, sqlite_path
from pipelines.tracking.connection import import_mlflow, open_client
from uvb.errors import UserError, first_line
from uvb.models.base import Estimator
from uvb.spec import RunSpec

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

NAME = "model"  # the name of a model's folder inside a pyfunc
REQUIREMENTS = ("torch", "torchvision", "numpy", "pandas", "pyarrow", "scikit-learn", "safetensors", "pillow")


def load(source: str | Path, tracking_uri: str | None = None, device: str = "cpu") -> Estimator:
    """Load a model from a folder, ``runs:/<run id>/model``, ``models:/<name>/<version>``, or ``pretrained:<name>``.

    Args:
        tracking_uri: MLflow's store; None: the environment's MLFLOW_TRACKING_URI, else ``mlflow.db`` in the working directory.

    Raises:
        UserError: there is no such model.
    """
    text = str(source)
    if text.startswith("pretrained:"):
        return uvb.pretrained(text.removeprefix("pretrained:"), device)
    if not text.startswith(("runs:/", "models:/")):
        return uvb.load(_inner(Path(text)), device)
    with tempfile.TemporaryDirectory(prefix="uvb-model-") as target:
        return uvb.load(_inner(fetch(text, target, tracking_uri)), device)


def fetch(source: str, target: str | Path, tracking_uri: str | None = None) -> Path:
    """Download the MLflow model at ``runs:/...`` or ``models:/...`` into a folder in `target`; return that folder.

    MLflow itself would look up such an address in the process's global store. This function asks the store `tracking_uri`.

    Raises:
        UserError: there is no such model, or MLflow cannot be reached.
    """
    uri = tracking_uri or default_tracking_uri()
    local = sqlite_path(uri)
    if local is not None and not local.exists():
        raise UserError(f"there is no MLflow store at {local}; run the command where the study was run, or give --tracking-uri")
    server = asked_server(uri)
    mlflow = import_mlflow()  # takes seconds, while the server answers
    server()
    client = open_client(uri)
    try:
        location = _location(client, source)
        return Path(mlflow.artifacts.download_artifacts(location, dst_path=str(target), tracking_uri=uri))
    except (mlflow.exceptions.MlflowException, OSError) as error:
        line = first_line(error)
        raise UserError(
            f"cannot fetch {source} from {uri}: {line}; give runs:/<run id>/model, models:/<name>/<version>, or a folder"
        ) from error


def _location(client: "MlflowClient", source: str) -> str:
    """The address of the artifacts of the model `source`."""
    kind, _, rest = source.partition(":/")
    if kind == "runs":
        run_id = rest.strip("/").split("/")[0]
    elif "@" in rest:
        run_id = str(client.get_model_version_by_alias(*rest.split("@", 1)).run_id)
    elif "/" in rest:
        run_id = str(client.get_model_version(*rest.split("/", 1)).run_id)
    else:
        return str(client.get_logged_model(rest).artifact_location)
    logged = _logged(client, client.get_run(run_id).info.experiment_id, run_id)
    ready = [m.artifact_location for m in logged if str(m.status) == "READY"]
    if not ready:
        raise FileNotFoundError(f"run {run_id} has no logged model")
    return str(ready[0])


def _inner(folder: Path) -> Path:
    """The folder with the weights: inside `folder` if `folder` is a pyfunc, else `folder` itself."""
    return next((p.parent for p in sorted(folder.glob("artifacts/*/model.safetensors"))), folder)


def save_pyfunc(folder: Path, target: Path, **identity: Any) -> None:
    """Write a pyfunc into `target`: the trained model in `folder`, and all that serving needs.

    Args:
        identity: MLflow's ``run_id`` and ``model_id``, if the model will be logged.
    """
    mlflow = import_mlflow()
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    spec = uvb.load_spec(folder)
    images = TensorSpec(np.dtype("float32"), (-1, *spec.data.shape))
    signature = ModelSignature(
        inputs=Schema([images]), outputs=Schema([images]), params=ParamSchema([ParamSpec("seed", "long", 0)])
    )
    card = folder / "card.json"
    metadata = {"spec_id": spec.spec_id, "spec": spec.to_json(), "card": json.loads(card.read_text()) if card.exists() else {}}
    with tempfile.TemporaryDirectory(prefix="uvb-code-") as code:
        package = Path(uvb.__file__).parent
        shutil.copytree(package, Path(code) / "uvb", ignore=shutil.ignore_patterns("__pycache__"))
        mlflow.pyfunc.save_model(
            target,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={NAME: folder.resolve().as_uri()},  # a URI, since MLflow would decode a % in a path
            code_paths=[str(Path(code) / "uvb")],
            mlflow_model=Model(**identity),
            signature=signature,
            input_example=np.zeros((1, *spec.data.shape), np.float32),
            # given here, since MLflow would start a process that looks for the requirements on the network
            pip_requirements=[f"{p}=={version(p).split('+')[0]}" for p in ("mlflow", *REQUIREMENTS)],
            metadata=metadata,
        )


def log_model(client: "MlflowClient", run_id: str, folder: str | Path) -> str:
    """Log the trained model in `folder` to a run, unless the run already has it; return MLflow's model id.

    Two addresses lead to the model: ``runs:/<run id>/model`` and ``runs:/<run id>/<name>``, e.g. with the name ``uvb-sigma-1``.
    """
    import_mlflow()
    from mlflow.entities import LoggedModelOutput

    experiment_id = client.get_run(run_id).info.experiment_id
    for model in _logged(client, experiment_id, run_id):
        if str(model.status) == "READY":
            return str(model.model_id)
        client.delete_logged_model(model.model_id)  # its upload was cut off
    spec = uvb.load_spec(folder)
    params = {"dataset": spec.data.name, "model": spec.model, "sigma": str(spec.sigma), "widths": str(spec.widths)}
    tags = {"uvb.spec_id": spec.spec_id, "uvb.checksum": spec.data.checksum}
    model = client.create_logged_model(experiment_id, plain_name(spec), run_id, tags, params, model_type=spec.model)
    with tempfile.TemporaryDirectory(prefix="uvb-pyfunc-") as scratch:
        target = Path(scratch) / NAME
        identity = {"run_id": run_id, "model_id": model.model_id, "artifact_path": model.artifact_location}
        save_pyfunc(Path(folder), target, **identity)
        client.log_model_artifacts(model.model_id, str(target))
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def plain_name(spec: RunSpec) -> str:
    """A model's name without dots, slashes and Greek: ``uvb-sigma-0_5``."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", f"{spec.model}-sigma-{f'{spec.sigma:g}'.replace('.', '_')}")


def _logged(client: "MlflowClient", experiment_id: str, run_id: str) -> list[Any]:
    """The models logged to a run. One request gets them all."""
    return list(client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"))


def register_best(client: "MlflowClient", study: str, losses: "pd.DataFrame", runs: dict[str, str]) -> dict[str, str]:
    """Register a study's best UVB and best DEEN at each noise level, as versions of ``<study>-uvb`` and ``<study>-deen``.

    The best model has the lowest test loss among trainings on the same images. Its version has the alias ``best-sigma-0_5`` or
    the like. At the largest noise level, where the paper samples, the version also has the alias ``best``. A second call makes
    no second version. In a study of several data sets the names are ``<study>-<data set>-uvb`` and so on. If models of other
    images have that name already, the first digits of the images' checksum are added to the name.

    Args:
        losses: the losses table. A column ``checksum`` may name the images of each row.
        runs: spec_id -> id of a run whose model was logged before.

    Returns:
        Alias, such as ``digits-uvb@best`` -> version.
    """
    mlflow = import_mlflow()
    found: dict[str, str] = {}
    rows = best(losses)
    several = rows["dataset"].nunique() > 1
    groups = rows.assign(images=rows.get("checksum", "")).groupby(["dataset", "model", "images"])
    for (dataset, model, images), own in groups:
        name = re.sub("[/:]", "-", f"{study}-{dataset}-{model}" if several else f"{study}-{model}")  # MLflow refuses / and :
        # Models of other images may have this name already.
        if images and {v.tags.get("checksum") for v in _versions(client, name)} - {images, "", None}:
            name += f"-{images[:8]}"
        try:
            client.create_registered_model(name, description=f"{model} of the study {study}, the best at each noise level.")
        except mlflow.exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        known = {v.run_id: str(v.version) for v in _versions(client, name)}
        aliases = client.get_registered_model(name).aliases
        for row in own.sort_values("sigma").itertuples():
            run_id = runs.get(row.spec_id)
            version = known.get(run_id) or _new_version(client, name, row, run_id)
            if version is None:
                continue
            names = [f"best-sigma-{row.sigma:g}".replace(".", "_")]
            if row.sigma == own.sigma.max():
                names.append("best")
            for alias in names:
                found[f"{name}@{alias}"] = version
                if str(aliases.get(alias)) != version:
                    client.set_registered_model_alias(name, alias, version)
    return found


def _versions(client: "MlflowClient", name: str) -> list[Any]:
    return list(client.search_model_versions(f"name = '{name}'"))


def best(losses: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of the best UVB and the best DEEN of each data set and noise level, by the test loss of the energy."""
    rows = losses[losses.model.isin(["uvb", "deen"]) & (losses.split == "test") & (losses.estimator == "energy")]
    rows = rows[rows.loss.notna()].sort_values(["loss", "spec_id"])
    return rows.drop_duplicates([name for name in ("dataset", "checksum", "model", "sigma") if name in rows])


def _new_version(client: "MlflowClient", name: str, row: Any, run_id: str | None) -> str | None:
    """Make a version of a registered model, with a description; return None if the run has no logged model."""
    if run_id is None:
        return None
    run = client.get_run(run_id)
    ready = [m for m in _logged(client, run.info.experiment_id, run_id) if str(m.status) == "READY"]
    if not ready:
        return None
    chosen = ready[0]
    # A server accepts only models:/. For a local store, MLflow would look models:/ up in the process's global store.
    source = f"models:/{chosen.model_id}" if client.tracking_uri.startswith("http") else chosen.artifact_location
    tags = {"sigma": f"{row.sigma:g}", "test_loss": f"{row.loss:.4f}", "spec_id": row.spec_id, "dataset": row.dataset}
    tags |= {"checksum": chosen.tags.get("uvb.checksum", "")}
    about = f"{row.model} on {row.dataset} at σ = {row.sigma:g}, test loss {row.loss:.4f}"
    made = client.create_model_version(name, source, run_id, tags=tags, description=about, model_id=chosen.model_id)
    return str(made.version)
