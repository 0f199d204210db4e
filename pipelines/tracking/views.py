"""Two shared views of a study's runs in MLflow's UI: its models in a table, and their loss over σ in one chart."""

from collections.abc import Mapping, Sequence
from typing import Any

VIEW = "mlflow.sharedViewState"  # MLflow keeps a view in this tag of the experiment, followed by the view's key
OVER_SIGMA = ("loss_over_sigma", "train_loss_over_sigma")  # metrics whose step is 100 σ


def view_paths(file: Mapping[str, Any]) -> dict[str, str]:
    """The views' URL paths in MLflow's UI; {} if the study has none. `file` is the content of the study's mlflow.json."""
    if "experiment_id" not in file:
        return {}
    models_key, sigma_key = shared_views(file["study_uid"]).keys()
    # without workflowType MLflow may open its pages for language models
    page = f"/#/experiments/{file['experiment_id']}/runs?workflowType=machine_learning&viewStateShareKey="
    return {"models": f"{page}{models_key}", "sigma": f"{page}{sigma_key}&compareRunsMode=CHART"}


def shared_views(study_uid: str, metrics: Sequence[str] = OVER_SIGMA) -> dict[str, dict[str, Any]]:
    """Key -> view in the UI's own format. One view is a table of the models; the other has a chart over σ for each metric."""
    columns = ["params.`dataset`", "params.`model`", "params.`sigma`"]
    columns += [f"metrics.`{m}`" for m in ("test_loss", "test_loss_stderr", "train_loss", "floor", "parameters")]
    table = {"orderByKey": "params.`sigma`", "orderByAsc": True, "selectedColumns": columns, "columnOrder": columns}
    # MLflow shows child runs unfolded only if the table is ordered by something other than time.
    by_loss = {"orderByKey": f"metrics.`{metrics[0]}`", "orderByAsc": True, **_charts(study_uid, metrics)}
    mine = f"tags.`uvb.study_uid` = '{study_uid}' AND tags.`uvb.role`"
    return {
        f"models-{study_uid[:8]}": {"searchFilter": f"{mine} = 'model'", **table},
        f"sigma-{study_uid[:8]}": {"searchFilter": f"{mine} = 'sigma'", **by_loss},
    }


def _charts(study_uid: str, metrics: Sequence[str]) -> dict[str, Any]:
    """The charts over σ, in one named section, so that MLflow adds no empty section for system metrics."""
    section = f"sigma-{study_uid}"
    charts = [
        {
            "type": "LINE", "uuid": f"{metric}-{study_uid}", "metricSectionId": section, "metricKey": metric,
            "selectedMetricKeys": [metric], "isGenerated": True, "deleted": False, "runsCountToCompare": 10,
            "lineSmoothness": 0, "scaleType": "linear", "xAxisKey": "step", "xAxisScaleType": "linear", "yAxisKey": "metric",
        }
        for metric in metrics
    ]  # fmt: skip
    times = next((part for part in metrics[0].split("_") if part.isdigit()), "100")  # 1000 of loss_over_1000_sigma
    shown = {
        "name": f"Loss over {times} σ", "display": True, "isReordered": False, "deleted": False, "isGenerated": True,
        "columns": 1,  # MLflow's three columns leave 120 pixels for a chart on a page of 1,280
    }  # fmt: skip
    return {"compareRunCharts": charts, "compareRunSections": [{"uuid": section, **shown}]}
