"""Keep MLflow up to date with a study. A server that is away costs only a delay, since the files have everything."""

import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pipelines.files.masking import masked
from pipelines.files.store import Store
from pipelines.tracking.address import default_tracking_uri
from pipelines.tracking.connection import Runs, import_mlflow, is_away, open_client, open_experiment
from pipelines.tracking.folder import FolderError, StudyFolder
from pipelines.tracking.projection import FILE, Notes, Projection, Status
from pipelines.tracking.values import source_tags
from pipelines.tracking.views import VIEW, shared_views, view_paths
from uvb.errors import UserError, first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

BACKOFF_SECONDS = (5.0, 30.0)  # first and longest pause between two attempts to reach a server that is away
FINISH_SECONDS = 30.0  # how long the end of a study waits for a server that is away
SYSTEM_METRICS_SECONDS = 5.0  # between two measurements of the driver's machine


class Tracker:
    """Connects to MLflow and projects the study's files into it, that is, logs their content to MLflow's runs.

    Every method may be called from any thread.

    Args:
        tracking_uri: ``sqlite:////path/mlflow.db``, ``http://host:port``, ...; None: see `default_tracking_uri`.
        experiment: name of the MLflow experiment. `start` creates it if there is none.
        study_name: the parent run's name.
        store: the study's folder.
        warn: called with each warning, one line; None: print it to stderr.
        log_models: whether trained models are logged and the best of them registered.

    Raises:
        UserError: by `start`, if the URI cannot be used at all, or if the experiment was deleted.
    """

    def __init__(
        self,
        tracking_uri: str | None,
        experiment: str,
        study_name: str,
        store: Store,
        warn: Callable[[str], None] | None = None,
        log_models: bool = True,
    ):
        self.tracking_uri = tracking_uri or default_tracking_uri()
        self.experiment, self.study_name, self.store, self.folder = experiment, study_name, store, StudyFolder(store)
        self._warn, self._log_models = warn or partial(print, file=sys.stderr), log_models
        self._lock = threading.RLock()
        self._client: MlflowClient | None = None
        self._projection: Projection | None = None  # None while MLflow is away
        self._notes = Notes(self._warn)
        self._monitor = Monitor(self.tracking_uri)
        self._retry_at, self._pause = 0.0, BACKOFF_SECONDS[0]
        self._away = ""  # what cannot be reached now, MLflow or the study's folder, as warnings name it
        self._active = False
        self._file: dict[str, Any] = {}

    def start(self) -> None:
        """Open or create the store, the experiment and the parent run. Runs of a resumed study become RUNNING again."""
        with self._lock:
            self._file = self.folder.read_json(FILE) or {}
            if "study_uid" not in self._file:
                # This id tells studies of the same name apart, so that a new folder gets new runs.
                self._file = {"study_uid": uuid4().hex, "runs": {}}
            self._file["tracking_uri"] = masked(self.tracking_uri)
            self.store.write_json(FILE, self._file)
            self._client = open_client(self.tracking_uri)
            self._active = True
            try:
                self._reach(lambda _: True, strict=True)
            except UserError:
                self._active = False  # MLflow refuses, so trying again would not help
                raise

    def sync(self) -> bool:
        """Project what has changed since the last call. Return True if nothing is left to do.

        Do not raise if the server is away. Log at most one trained model per call, since each takes a second or more.
        """
        with self._lock:
            if not self._active or time.monotonic() < self._retry_at:
                return False
            return self._reach(lambda projection: projection.project(model_budget=1))

    def finish(self, status: Status) -> bool:
        """Project the rest and end all runs, so that none stays RUNNING. Return True if MLflow has everything.

        A stopped study (KILLED) logs no further models, so that Ctrl-C takes seconds. The next run of the command logs them.
        """
        with self._lock:
            if not self._active:
                return True
            self._active = False
            self._monitor.stop()
            if self._projection:
                self._projection.try_again()
            stopped, done = status == "KILLED", False
            deadline = time.monotonic() + (0.0 if stopped else FINISH_SECONDS)
            hopeless = stopped and self._projection is None  # a stop does not wait for a server that is away
            while not hopeless:
                done = self._reach(lambda projection: projection.finish(status, 0 if stopped else 1_000_000))
                if not self._away or time.monotonic() >= deadline:
                    break
                time.sleep(2.0)
            if self._away:
                again = f"run the same command again when {self._away} is reachable"
                self._warn(f"MLflow does not have all of this study yet: {again}")
            return done

    @property
    def view_paths(self) -> dict[str, str]:
        """The paths of the study's views in MLflow's UI, without host and port; {} if MLflow was never reached.

        ``models`` shows the runs of the study's models with the important columns. ``sigma`` shows their losses over σ in one
        chart.
        """
        return view_paths(self._file)

    def _reach(self, work: Callable[[Projection], bool], strict: bool = False) -> bool:
        """Connect if there is no connection, and return the result of `work`.

        If MLflow or the folder is away, warn once and return False. With `strict`, raise UserError if the server answers but
        refuses.
        """
        try:
            if self._projection is None:
                self._projection = self._open()
            elif self._active:
                self._monitor.revive(self._projection.parent.run_id)
            done = work(self._projection)
        except Exception as error:
            if strict and isinstance(error, UserError):
                raise
            if strict and not is_away(error):
                raise UserError(
                    f"MLflow at {self.tracking_uri} refuses: {first_line(error)}; choose another --tracking-uri"
                ) from error
            self._missed(error)
            return False
        if self._away:
            self._warn(f"{self._away} is back")
            self._away = ""
        self._retry_at, self._pause = 0.0, BACKOFF_SECONDS[0]
        return done

    def _missed(self, error: Exception) -> None:
        """Warn once about what is away. Each time, wait longer before asking again."""
        if isinstance(error, FolderError):
            away, told = self.folder.name, f"{error}; MLflow will catch up"
        else:
            away = f"MLflow at {self.tracking_uri}"
            told = f"{away} cannot be reached ({first_line(error)}); the study goes on, and MLflow will catch up"
            self._monitor.stop()
            self._projection = None  # read MLflow again later, since the last request may or may not have arrived
        self._retry_at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, BACKOFF_SECONDS[1])
        if self._away != away:
            self._away = away
            self._warn(told)

    def _open(self) -> Projection:
        """Find or create the experiment, its views and the parent run."""
        assert self._client is not None
        experiment_id = open_experiment(self._client, self.tracking_uri, self.experiment)
        for key, view in shared_views(self._file["study_uid"]).items():
            self._client.set_experiment_tag(experiment_id, f"{VIEW}.{key}", json.dumps(view))
        runs = Runs(self._client, experiment_id, self._file["study_uid"])
        # The study's folder, with the machine's name if it is local. A quote would end the string in MLflow's search.
        root = f"{socket.gethostname()}:{self.store.uri}".replace("'", "") if self.store.local_path else masked(self.store.uri)
        runs.kill_orphans(root)
        self._file["experiment_id"] = experiment_id
        tags = {"uvb.study": self.study_name, "uvb.role": "study", "uvb.root": root, **source_tags({})}
        parent = runs.get("study", self.study_name, tags)
        parent.set_status("RUNNING")
        if self._active:
            self._monitor.start(parent.run_id)
        return Projection(runs, self.folder, self.study_name, self._file, self._notes, self._log_models)


class Monitor:
    """A thread of MLflow that logs system metrics of the driver's machine to a run. The thread ends if the server is away."""

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri, self._monitor = tracking_uri, None

    def start(self, run_id: str) -> None:
        import_mlflow()
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor: Any = SystemMetricsMonitor(run_id, SYSTEM_METRICS_SECONDS, resume_logging=True, tracking_uri=self.tracking_uri)
        monitor.start()
        self._monitor = monitor

    def revive(self, run_id: str) -> None:
        """Start the thread again if an error has ended it."""
        if self._monitor is not None and not self._monitor._process.is_alive():
            self.start(run_id)

    def stop(self) -> None:
        """End the thread. Wait for at most three seconds, since the thread's last request may hang."""
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            thread = threading.Thread(target=monitor.finish, daemon=True)
            thread.start()
            thread.join(timeout=3.0)
