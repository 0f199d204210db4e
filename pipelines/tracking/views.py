"""Two shared views of a study's runs in MLflow's UI: its models in a table, and loss over σ as one chart."""

from collections.abc import Mapping
from typing import Any


def view_paths(file: Mapping[str, Any]) -> dict[str, str]:
    """Where they are, from what a study's mlflow.json says: `Tracker.view_paths`."""
    if "experiment_id" not in file:
        return {}
    models_key, sigma_key = shared_views(file["study_uid"])
    page = f"/#/experiments/{file['experiment_id']}/runs?viewStateShareKey="
    return {"models": f"{page}{models_key}", "sigma": f"{page}{sigma_key}&compareRunsMode=CHART"}


def shared_views(study_uid: str) -> dict[str, dict[str, Any]]:
    """Key -> view in the UI's own format: the models, important columns first; loss over σ."""
    columns = ["params.`dataset`", "params.`model`", "params.`sigma`"]
    columns += [f"metrics.`{m}`" for m in ("test_loss", "test_loss_stderr", "train_loss", "floor", "parameters")]
    table = {"orderByKey": "params.`sigma`", "orderByAsc": True, "selectedColumns": columns, "columnOrder": columns}
    by_loss = {"orderByKey": "metrics.`loss_over_sigma`", "orderByAsc": True}  # any order but time unfolds the children
    mine = f"tags.`uvb.study_uid` = '{study_uid}' AND tags.`uvb.role`"
    return {
        f"models-{study_uid[:8]}": {"searchFilter": f"{mine} = 'model'", **table},
        f"sigma-{study_uid[:8]}": {"searchFilter": f"{mine} = 'sigma'", **by_loss},
    }
