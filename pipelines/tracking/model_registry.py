"""Models as models: fetched from MLflow as a folder that `uvb.load` reads, logged there as a pyfunc, registered.

No step pickles or unpickles: weights are safetensors, the rest is JSON, and the pyfunc is a source file.
"""

import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvb
from pipelines.tracking.connection import default_tracking_uri, import_mlflow, open_client, sqlite_path
from uvb.errors import UserError
from uvb.models.base import Estimator

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

NAME = "model"  # so that runs:/<run id>/model is its address
REQUIREMENTS = ("torch", "torchvision", "numpy", "pandas", "pyarrow", "scikit-learn", "safetensors", "pillow")


def load(source: str | Path, tracking_uri: str | None = None, device: str = "cpu") -> Estimator:
    """The estimator or energy at ``runs:/<run id>/model``, ``models:/<name>/<version>``, ``pretrained:<name>``, or in a folder.

    Args:
        tracking_uri: MLflow's store; by default the environment's MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

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
    """Download the MLflow model at ``runs:/...`` or ``models:/...`` below the folder `target`; returns its folder.

    MLflow's own resolution of these addresses asks the process's global store; this asks the one that is named.

    Raises:
        UserError: there is no such model, or MLflow cannot be reached.
    """
    mlflow = import_mlflow()
    uri = tracking_uri or default_tracking_uri()
    local = sqlite_path(uri)
    if local is not None and not local.exists():
        raise UserError(f"there is no MLflow store at {local}; run in the study's folder, or give --tracking-uri")
    client = open_client(uri)
    try:
        location = _location(client, source)
        return Path(mlflow.artifacts.download_artifacts(location, dst_path=str(target), tracking_uri=uri))
    except (mlflow.exceptions.MlflowException, OSError) as error:
        line = str(error).strip().splitlines()[0]
        raise UserError(
            f"cannot fetch {source} from {uri}: {line}; give runs:/<run id>/model, models:/<name>/<version>, or a folder"
        ) from error


def _location(client: "MlflowClient", source: str) -> str:
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
    """A pyfunc keeps our folder among its artifacts, under the name it had."""
    return next((p.parent for p in sorted(folder.glob("artifacts/*/model.safetensors"))), folder)


def save_pyfunc(folder: Path, target: Path, **identity: Any) -> None:
    """Write into `target` an MLflow model that holds the trained model of `folder`, with all it needs to be served.

    Args:
        identity: ``run_id`` and ``model_id`` of MLflow, where it is going to be logged.
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
            artifacts={NAME: folder.resolve().as_uri()},  # of a path MLflow would read a % as the beginning of a code
            code_paths=[str(Path(code) / "uvb")],
            mlflow_model=Model(**identity),
            signature=signature,
            input_example=np.zeros((1, *spec.data.shape), np.float32),
            # given, so that MLflow does not start a process and ask the network to find them out
            pip_requirements=[f"{p}=={version(p).split('+')[0]}" for p in ("mlflow", *REQUIREMENTS)],
            metadata=metadata,
        )


def log_model(client: "MlflowClient", run_id: str, folder: str | Path) -> str:
    """Log the trained model in a local folder to a run, once, as ``runs:/<run id>/model``; returns MLflow's model id."""
    import_mlflow()
    from mlflow.entities import LoggedModelOutput

    experiment_id = client.get_run(run_id).info.experiment_id
    for model in _logged(client, experiment_id, run_id):
        if str(model.status) == "READY":
            return str(model.model_id)
        client.delete_logged_model(model.model_id)  # an upload that was cut off
    spec = uvb.load_spec(folder)
    params = {"dataset": spec.data.name, "model": spec.model, "sigma": str(spec.sigma), "widths": str(spec.widths)}
    tags = {"uvb.spec_id": spec.spec_id}
    model = client.create_logged_model(experiment_id, NAME, run_id, tags, params, model_type=spec.model)
    with tempfile.TemporaryDirectory(prefix="uvb-pyfunc-") as scratch:
        target = Path(scratch) / NAME
        identity = {"run_id": run_id, "model_id": model.model_id, "artifact_path": model.artifact_location}
        save_pyfunc(Path(folder), target, **identity)
        client.log_model_artifacts(model.model_id, str(target))
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def _logged(client: "MlflowClient", experiment_id: str, run_id: str) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = client.search_logged_models([experiment_id], f"name = '{NAME}'", page_token=token)
        found += [m for m in page if m.source_run_id == run_id]
        token = page.token
        if not token:
            return found


def best(losses: "pd.DataFrame", model: str) -> str | None:
    """The spec_id of the best `model` in a losses table: lowest test loss at the largest sigma, since losses of different
    sigma do not compare, and the largest is where the paper samples. None where it has none."""
    rows = losses[(losses.model == model) & (losses.split == "test") & (losses.estimator == "energy")]
    rows = rows[(rows.sigma == rows.sigma.max()) & rows.loss.notna()]
    return None if rows.empty else str(rows.sort_values(["loss", "spec_id"]).iloc[0].spec_id)


def register_best(
    client: "MlflowClient", study: str, losses: "pd.DataFrame", runs: dict[str, str], models: tuple[str, ...] = ("uvb", "deen")
) -> dict[str, str]:
    """Register the best UVB and DEEN of a study as ``<study>-uvb`` and ``<study>-deen``, alias ``best``; once each.

    Args:
        losses: the losses table.
        runs: spec_id -> run id; their models were logged before.

    Returns:
        model -> version.
    """
    mlflow = import_mlflow()
    versions: dict[str, str] = {}
    for model in models:
        spec_id = best(losses, model)
        run_id = runs.get(spec_id or "")
        if run_id is None:
            continue
        name = f"{study}-{model}".replace("/", "-").replace(":", "-")  # the registry allows neither
        try:
            client.create_registered_model(name, description=f"The best {model} of the study {study}.")
        except mlflow.exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        known = [v for v in client.search_model_versions(f"name = '{name}'") if v.run_id == run_id]
        if not known:
            experiment_id = client.get_run(run_id).info.experiment_id
            ready = [m for m in _logged(client, experiment_id, run_id) if str(m.status) == "READY"]
            if not ready:
                continue
            chosen = ready[0]
            # a local store would look models:/ up in the process's global store; a server allows nothing else
            remote = client.tracking_uri.startswith("http")
            source = f"models:/{chosen.model_id}" if remote else chosen.artifact_location
            known = [client.create_model_version(name, source, run_id, model_id=chosen.model_id)]
        versions[model] = str(known[0].version)
        aliases = client.get_registered_model(name).aliases
        if aliases.get("best") != versions[model]:
            client.set_registered_model_alias(name, "best", versions[model])
    return versions
