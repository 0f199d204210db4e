"""Find and write MLflow's runs. A run is found by its tag, and nothing is written to it twice.

Importing MLflow takes seconds, so it is imported when it is first needed. Its fluent API is never used, because that API keeps
global state.
"""

import logging
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from pipelines.tracking.address import check_tracking_uri, refused, sqlite_path
from uvb.errors import UserError, first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Try a request at most twice, for ten seconds each: a server that is away must not hold up the driver.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",
}
PARAMS, TAGS, METRICS = 100, 100, 500  # the most of each in one request; MLflow takes 1,000 in all

Point = tuple[str, float, int, int]  # metric, value, step, time in ms


@cache
def import_mlflow() -> Any:
    """Import MLflow without telemetry and chatter, with time limits on requests. Environment variables can override this."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("alembic", "mlflow.pyfunc"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs a traceback while a file is locked
    for name in ("mlflow.system_metrics", "mlflow.utils.autologging_utils", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they warn at every request while a server is away
    return mlflow


def open_client(tracking_uri: str) -> "MlflowClient":
    """Return a client of the store at `tracking_uri`. If the store is a SQLite file that does not exist yet, create it.

    Raises:
        UserError: `check_tracking_uri` or MLflow refuses the store.
    """
    check_tracking_uri(tracking_uri)  # first, because SQLAlchemy would retry for minutes
    mlflow = import_mlflow()
    from sqlalchemy.exc import SQLAlchemyError  # MLflow needs SQLAlchemy, so it is installed and imported

    try:
        return mlflow.MlflowClient(tracking_uri=tracking_uri)
    except (mlflow.exceptions.MlflowException, SQLAlchemyError) as error:
        raise refused(tracking_uri, first_line(error)) from error


def open_experiment(client: "MlflowClient", tracking_uri: str, name: str) -> str:
    """Return the id of the experiment `name`. If there is none, create it.

    The artifacts of a SQLite store go into the folder ``mlartifacts`` beside its file.

    Raises:
        UserError: the experiment was deleted in MLflow.
    """
    mlflow = import_mlflow()
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        local = sqlite_path(tracking_uri)
        location = None if local is None else (local.parent / "mlartifacts" / name).as_uri()
        kind = {"mlflow.experimentKind": "custom_model_development"}  # opens the page for training, not for language models
        try:
            client.create_experiment(name, artifact_location=location, tags=kind)
        except mlflow.exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another driver may have created it first
                raise
        experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    if experiment.lifecycle_stage != "active":
        raise UserError(
            f"the MLflow experiment {name!r} was deleted; choose another --tracking-uri, or restore it with: "
            f"mlflow experiments restore -x {experiment.experiment_id}"
        )
    return str(experiment.experiment_id)


@dataclass
class Run:
    """One MLflow run, with a copy of the content that this process has read or written."""

    client: "MlflowClient"
    run_id: str
    status: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)
    has_dataset: bool = False
    _steps: dict[str, dict[int, float]] = field(default_factory=dict)

    def steps(self, metric: str) -> dict[int, float]:
        """Step -> logged value of a metric. Only the first call for a metric asks the server."""
        if metric not in self._steps:
            history = self.client.get_metric_history(self.run_id, metric) if metric in self.latest else []
            self._steps[metric] = {m.step: m.value for m in sorted(history, key=lambda m: m.timestamp)}
        return self._steps[metric]

    def log(
        self,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        points: Iterable[Point] = (),
        values: Mapping[tuple[str, int], float | None] | None = None,
    ) -> None:
        """Write what the run does not have yet, in as few requests as possible.

        Args:
            params: write those that are new. MLflow cannot change a parameter.
            tags: write those that differ.
            points: write those whose step is new.
            values: (metric, step) -> a number that may change, such as a final loss (see `final`). Write those that differ.
                None is not written.
        """
        new_params = {k: _text(v, 6000) for k, v in (params or {}).items() if k not in self.params}
        texts = {k: _text(v, 8000) for k, v in (tags or {}).items()}
        new_tags = {k: v for k, v in texts.items() if self.tags.get(k) != v}
        new_points = [p for p in points if p[2] not in self.steps(p[0])]
        now = int(time.time() * 1000)
        known = {k: v for k, v in (values or {}).items() if v is not None}
        new_points += [(k, float(v), step, now) for (k, step), v in known.items() if not _equal(self.steps(k).get(step), v)]
        params_left, tags_left = list(new_params.items()), list(new_tags.items())
        while params_left or tags_left or new_points:
            self._send(params_left[:PARAMS], tags_left[:TAGS], new_points[:METRICS])
            params_left, tags_left, new_points = params_left[PARAMS:], tags_left[TAGS:], new_points[METRICS:]

    def _send(self, params: list[tuple[str, str]], tags: list[tuple[str, str]], points: list[Point]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        self.client.log_batch(
            self.run_id,
            metrics=[Metric(k, v, ms, step) for k, v, step, ms in points],
            params=[Param(k, v) for k, v in params],
            tags=[RunTag(k, v) for k, v in tags],
        )
        self.params |= dict(params)
        self.tags |= dict(tags)
        for key, value, step, _ in points:
            self.steps(key)[step] = self.latest[key] = value

    def now(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Tags ``now.<name>`` for parameters that have changed since they were logged. MLflow cannot change a parameter.

        If a parameter changes back, its tag stays and has the logged value.
        """
        texts = {k: _text(v, 6000) for k, v in params.items()}
        return {f"now.{k}": v for k, v in texts.items() if self.params.get(k, v) != v or f"now.{k}" in self.tags}

    def set_status(self, status: str, end_seconds: float | None = None) -> None:
        """Set the status to RUNNING, FINISHED, FAILED or KILLED. A run that has ended can become RUNNING again."""
        if status == self.status:
            return
        if status == "RUNNING":
            self.client.update_run(self.run_id, status=status)
        else:
            end = None if end_seconds is None else int(end_seconds * 1000)
            self.client.set_terminated(self.run_id, status=status, end_time=end)
        self.status = status


class Runs:
    """The runs of one study in one experiment, each found by its tag ``uvb.key``.

    Attributes:
        by_key: ``study``, a spec_id, or ``sigma/<line>`` -> run.
    """

    def __init__(self, client: "MlflowClient", experiment_id: str, study_uid: str):
        self.client, self.experiment_id, self.study_uid = client, experiment_id, study_uid
        self.by_key: dict[str, Run] = {}
        for run in self._search(f"tags.`uvb.study_uid` = '{study_uid}'"):
            key = run.data.tags.get("uvb.key", "")
            if key in self.by_key:  # the answer to a request was lost, so the run was created twice
                client.delete_run(run.info.run_id)
                continue
            known = (dict(run.data.params), dict(run.data.tags), dict(run.data.metrics), bool(run.inputs.dataset_inputs))
            self.by_key[key] = Run(client, run.info.run_id, run.info.status, *known)

    def _search(self, query: str) -> list[Any]:
        found: list[Any] = []
        token, order = None, ["attributes.start_time ASC"]
        while True:
            page = self.client.search_runs([self.experiment_id], query, order_by=order, page_token=token)
            found, token = [*found, *page], page.token
            if not token:
                return found

    def get(self, key: str, name: str, tags: Mapping[str, str], start_seconds: float | None = None) -> Run:
        """Return the run of `key`. If there is none, create one that is RUNNING."""
        if key not in self.by_key:
            all_tags = {**tags, "uvb.key": key, "uvb.study_uid": self.study_uid}
            start = None if start_seconds is None else int(start_seconds * 1000)
            run = self.client.create_run(self.experiment_id, start_time=start, run_name=name, tags=all_tags)
            self.by_key[key] = Run(self.client, run.info.run_id, run.info.status, {}, dict(run.data.tags))
        return self.by_key[key]

    def delete(self, key: str) -> None:
        self.client.delete_run(self.by_key.pop(key).run_id)

    def kill_orphans(self, root: str) -> None:
        """Mark as KILLED the runs that an earlier, deleted study in the same folder left RUNNING."""
        for run in self._search(f"tags.`uvb.root` = '{root}' AND attributes.status = 'RUNNING'"):
            if run.data.tags.get("uvb.study_uid") != self.study_uid:
                self.client.set_terminated(run.info.run_id, status="KILLED")


def final(values: Mapping[str, float | None]) -> dict[tuple[str, int], float | None]:
    """Give each number the step 0, because `Run.log` takes no number without a step."""
    return {(name, 0): value for name, value in values.items()}


def is_unreachable(error: Exception) -> bool:
    """Whether `error` says that a connection failed. It may come from a socket, a time limit, or the package `requests`.

    The errors of `requests` are OSErrors without a number. An absent file is no failed connection.
    """
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno is None and not isinstance(error, FileNotFoundError)


def is_away(error: Exception) -> bool:
    """Whether `error` says that the server cannot be reached now. Any other error means that the server refused the request."""
    return is_unreachable(error) or getattr(error, "error_code", None) in {
        "INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "BAD_GATEWAY", "SERVICE_UNDER_MAINTENANCE"
    }  # fmt: skip


def _equal(a: float | None, b: float) -> bool:
    return a is not None and (a == b or (math.isnan(a) and math.isnan(b)))


def _text(value: Any, limit: int) -> str:
    return str(value)[:limit]
