"""The study's files projected into MLflow: idempotent, restartable, and never in the way of the training.

The files are the truth. Each `sync` compares their time stamps with what was projected and writes what is new; a server
that is away costs delay only, since the next sync that reaches it brings everything.

Runs: one parent (the study), one child a model, and children named "UVB over σ", whose metric ``loss_over_sigma`` has
its step at 100 σ, because MLflow draws one metric of several runs as one chart with a line each; finer levels than
hundredths make it ``loss_over_1000_sigma``, and so on.
"""

import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from pipelines.files.store import Store, masked
from pipelines.tracking import model_registry as models
from pipelines.tracking.connection import (
    Run,
    Runs,
    default_tracking_uri,
    import_mlflow,
    is_away,
    is_unreachable,
    open_client,
    open_experiment,
)
from pipelines.tracking.folder import FolderError, StudyFolder, first_line
from pipelines.tracking.values import curve_points, flat, lines_over_sigma, model_values, numbers
from pipelines.tracking.views import shared_views, view_paths
from uvb.errors import UserError
from uvb.spec import RunSpec

if TYPE_CHECKING:
    from mlflow import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]
Stamps = Mapping[str, tuple[int, int]]

FILE = "mlflow.json"  # {"study_uid", "tracking_uri", "experiment_id", "runs": {spec_id: run id}}
MODEL_FILES = ("spec.json", "plan.json", "curves.json", "progress.json", "done.json", "stopped.json", "failed.json")
BACKOFF_SECONDS = (5.0, 30.0)  # first and longest pause before a server that is away is asked again
FINISH_SECONDS = 30.0  # how long the end of a study waits for it
SYSTEM_METRICS_SECONDS = 5.0


class Tracker:
    """Projects one study into MLflow. Every method may be called from any thread.

    Args:
        tracking_uri: ``sqlite:////path/mlflow.db``, ``http://host:port``, ...; None: ``mlflow.db`` in this folder.
        experiment: MLflow experiment, created if need be.
        study_name: the parent run's name.
        store: the study's folder.
        warn: takes a warning's one line; None: stderr.
        log_models: whether trained models are logged and the best of them registered.

    Raises:
        UserError: by `start`, where the URI cannot be used at all, or the experiment was deleted.
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
        self._runs: Runs | None = None  # None while MLflow is not (or no longer) known to be there
        self._projected: dict[str, Any] = {}  # unit -> stamps of the files it was made from
        self._warned: set[str] = set()
        self._failures: dict[str, int] = {}
        self._retry_at, self._pause = 0.0, BACKOFF_SECONDS[0]
        self._away = ""  # what cannot be reached now, MLflow or the study's folder, as it is called in warnings
        self._monitor: Any = None
        self._active = False
        self._file: dict[str, Any] = {}

    # ------------------------------------------------------------------------------------------------ the driver's three

    def start(self) -> None:
        """Open (and create) the store, the experiment and the parent run; runs of a resumed study go on RUNNING."""
        with self._lock:
            self._file = self.folder.read_json(FILE) or {}
            if "study_uid" not in self._file:
                # tells this study from another of its name, so a folder begun anew gets new runs
                self._file = {"study_uid": uuid4().hex, "runs": {}}
            self._file["tracking_uri"] = masked(self.tracking_uri)
            self.store.write_json(FILE, self._file)
            self._client = open_client(self.tracking_uri)
            self._active = True
            try:
                self._reach(lambda: True, strict=True)
            except UserError:
                self._active = False  # it will not have been away: nothing is left to catch up with
                raise

    def sync(self) -> bool:
        """Project what changed since the last call; True where nothing is left to do. Never raises for a server's sake.

        Logs at most one trained model a call, since that takes a second or more.
        """
        with self._lock:
            if not self._active or time.monotonic() < self._retry_at:
                return False
            return self._reach(partial(self._project, model_budget=1))

    def finish(self, status: Status) -> bool:
        """Project the rest and end all runs: none stays RUNNING. True where MLflow has everything.

        A stopped study (KILLED) logs no further models, so that Ctrl-C takes seconds; running it again does.
        """
        with self._lock:
            if not self._active:
                return True
            self._active = False
            self._stop_monitor()
            for refused in self._failures:  # another chance
                self._projected.pop(refused, None)
            stopped, done = status == "KILLED", False
            deadline = time.monotonic() + (0.0 if stopped else FINISH_SECONDS)
            while not (stopped and self._runs is None):  # a stop does not wait for a server that is known to be away
                done = self._reach(partial(self._finish_once, status, 0 if stopped else 1_000_000))
                if not self._away or time.monotonic() >= deadline:
                    break
                time.sleep(2.0)
            if self._away:
                again = f"run the same command again when {self._away} is reachable"
                self._warn(f"MLflow does not have all of this study yet: {again}")
            return done

    def close(self) -> None:
        """`finish("KILLED")`, where nobody called `finish`."""
        self.finish("KILLED")

    def run_ids(self) -> dict[str, str]:
        """spec_id -> MLflow run id, as far as known (from an earlier session where MLflow is away)."""
        with self._lock:
            return dict(self._file.get("runs", {}))

    @property
    def view_paths(self) -> dict[str, str]:
        """Paths in MLflow's UI, to put after its host and port: ``models``, this study's runs with the columns that
        matter, and ``sigma``, loss over σ of all its models as one chart. {} before MLflow was reached."""
        return view_paths(self._file)

    # ------------------------------------------------------------------------------------------------ reaching the server

    def _reach(self, work: Callable[[], bool], strict: bool = False) -> bool:
        """Do `work`, connecting first if need be; a server, or a study's folder, that is away gives one warning and False.

        Where `strict`, a server that answers and refuses raises UserError.
        """
        try:
            if self._runs is None:
                self._open()
            elif self._monitor is not None and not self._monitor._process.is_alive():  # it gives up at the first error
                self._start_monitor()
            done = work()
        except Exception as error:
            if strict and isinstance(error, UserError):
                raise
            if strict and not is_away(error):
                raise UserError(f"MLflow at {self.tracking_uri} refuses: {first_line(error)}; choose another") from error
            if isinstance(error, FolderError):
                away, told = self.folder.name, f"{error}; MLflow will catch up"
            else:
                away = f"MLflow at {self.tracking_uri}"
                told = f"{away} cannot be reached ({first_line(error)}); going on without, will catch up"
                self._stop_monitor()
                self._runs = None  # what was last written is uncertain: ask again
            self._retry_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, BACKOFF_SECONDS[1])
            if self._away != away:
                self._away = away
                self._warn(told)
            return False
        if self._away:
            self._warn(f"{self._away} is back")
            self._away = ""
        self._retry_at, self._pause = 0.0, BACKOFF_SECONDS[0]
        return done

    def _open(self) -> None:
        assert self._client is not None
        experiment_id = open_experiment(self._client, self.tracking_uri, self.experiment)
        for key, view in shared_views(self._file["study_uid"]).items():
            self._client.set_experiment_tag(experiment_id, f"mlflow.sharedViewState.{key}", json.dumps(view))
        runs = Runs(self._client, experiment_id, self._file["study_uid"])
        root = f"{socket.gethostname()}:{self.store.uri}".replace("'", "") if self.store.local_path else masked(self.store.uri)
        runs.kill_orphans(root)
        self._file["experiment_id"] = experiment_id
        tags = {"uvb.study": self.study_name, "uvb.role": "study", "uvb.root": root}
        parent = runs.get("study", self.study_name, tags)
        parent.set_status("RUNNING")
        views = view_paths(self._file)
        note = f"[Its models in a table]({views['models']}) · [loss over σ as one chart]({views['sigma']})"
        parent.log(tags={"mlflow.note.content": note})
        self._runs, self._projected = runs, {}
        if self._active:
            self._start_monitor()

    def _start_monitor(self) -> None:
        """System metrics of the driver's machine on the parent run; the monitor ends by itself when the server is away."""
        import_mlflow()
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(
            self._parent.run_id, SYSTEM_METRICS_SECONDS, resume_logging=True, tracking_uri=self.tracking_uri
        )
        monitor.start()
        self._monitor = monitor

    def _stop_monitor(self) -> None:
        monitor, self._monitor = self._monitor, None
        if monitor is not None:  # its last request may hang as long as any other; we don't wait for it
            thread = threading.Thread(target=monitor.finish, daemon=True)
            thread.start()
            thread.join(timeout=3.0)

    @property
    def _parent(self) -> Run:
        assert self._runs is not None
        return self._runs.by_key["study"]

    # ------------------------------------------------------------------------------------------------ what is projected

    def _project(self, model_budget: int) -> bool:
        """One pass over the study's files; False where trained models remain to be logged."""
        stamps = self.folder.stamps()
        for spec_id in sorted({p.split("/")[1] for p in stamps if p.startswith("models/")}):
            files = {p: stamps[p] for name in MODEL_FILES if (p := f"models/{spec_id}/{name}") in stamps}
            # a run begins with the training, not with the plan to train
            if any(p.endswith(("progress.json", "curves.json", "done.json")) for p in files):
                self._unit(f"models/{spec_id}", files, partial(self._model, spec_id))
        self._write_run_ids()
        self._unit("study", _some(stamps, "study.json"), self._study)
        for path in stamps:
            folder, _, name = path.rpartition("/")
            if folder == "tables" and name.endswith(".parquet"):
                self._unit(path, _some(stamps, path), partial(self._table, path))
            elif folder == "figures" or path == "report.html":
                self._unit(path, _some(stamps, path), partial(self._artifact, path))
        tables = _some(stamps, "tables/losses.parquet", "tables/internals.parquet")
        self._unit("values", tables, self._values)
        self._unit("sigma", _some(stamps, "tables/losses.parquet"), self._over_sigma)
        return self._log_some_models(stamps, model_budget) if self._log_models else True

    def _unit(self, name: str, files: Stamps, work: Callable[[], None]) -> None:
        """Do `work` unless it was done from these very files. What MLflow refuses is told once and skipped.

        MLflow calls many a refusal an internal error, as it does a lost connection: the third in a row, from a server
        that answers otherwise, is a refusal. So is a file that cannot be read for the third time, in a folder that can.
        """
        if not files or self._projected.get(name) == files:
            return
        try:
            work()
        except Exception as error:
            self._failures[name] = self._failures.get(name, 0) + 1
            unread = isinstance(error, FolderError)
            if (isinstance(error, UserError) and not unread) or is_unreachable(error):
                raise
            if (unread or is_away(error)) and (self._failures[name] < 3 or not self._answers()):
                raise
            if name not in self._warned:
                self._warned.add(name)
                refusal = f"MLflow did not take {name} ({type(error).__name__}: {first_line(error)}); the files have it"
                self._warn(f"MLflow goes without {name}: {first_line(error)}" if unread else refusal)
        else:
            self._failures.pop(name, None)
        self._projected[name] = files

    def _answers(self) -> bool:
        try:
            self._parent.client.get_run(self._parent.run_id)
        except Exception:  # any kind of failure is no answer, and what to do then is the caller's
            return False
        return True

    def _study(self) -> None:
        study = self.folder.read_json("study.json") or {}
        settings = flat({k: v for k, v in study.items() if k != "provenance"})
        self._parent.log(params=settings, tags=self._provenance(study) | self._parent.now(settings))

    def _provenance(self, study: Mapping[str, Any]) -> dict[str, Any]:
        provenance = dict(study.get("provenance") or {})
        tags = {f"provenance.{k}": v for k, v in flat(provenance).items()}
        revision = provenance.get("git")
        return tags | ({"mlflow.source.git.commit": revision} if isinstance(revision, str) else {})

    def _model(self, spec_id: str) -> None:
        assert self._runs is not None
        blob, done = self.folder.read_json(f"models/{spec_id}/spec.json"), self.folder.read_json(f"models/{spec_id}/done.json")
        if blob is None:
            return
        spec = RunSpec.from_json(blob)
        curves = self.folder.read_json(f"models/{spec_id}/curves.json") or []
        rows = curves["rows"] if isinstance(curves, dict) else curves
        tags = {
            "uvb.role": "model", "uvb.spec_id": spec_id, "dataset": spec.data.name, "model": spec.model,
            "sigma": f"{spec.sigma:g}", "seed": str(spec.seed), "recipe": spec.recipe.name,
        }  # fmt: skip
        name = spec.label + (f" seed={spec.seed}" if spec.seed else "")
        began = rows[0]["time"] - rows[0]["seconds"] if rows and "time" in rows[0] else None
        run = self._child(spec_id, name, tags, began)
        if not run.has_dataset:
            self._dataset(run, spec)
        plan = flat({"plan": self.folder.read_json(f"models/{spec_id}/plan.json") or {}})
        params = {"dataset": spec.data.name, "widths": str(spec.widths), **flat(blob), **plan}
        study = self.folder.read_json("study.json") or {}
        run.log(params, self._provenance(study) | run.now(params), curve_points(rows, began, spec.objective))
        run.log(tags={name: "" for name in ("uvb.error", "uvb.ended") if run.tags.get(name)})  # of an earlier try
        if done:
            run.log_values(numbers({k: v for k, v in done.items() if k != "time"}))
            run.set_status("FINISHED", done.get("time") or (rows[-1].get("time") if rows else None))
        elif stopped := self.folder.read_json(f"models/{spec_id}/stopped.json"):  # by a search, which had seen enough
            run.log(tags={"uvb.ended": "stopped early"})
            run.set_status("KILLED", stopped.get("time"))
        elif failed := self.folder.read_json(f"models/{spec_id}/failed.json"):
            run.log(tags={"uvb.error": failed.get("error", "")})
            run.set_status("FAILED", failed.get("time"))
        elif spec_id in study.get("specs", [spec_id]):
            run.set_status("RUNNING")
        elif run.status == "RUNNING":  # an earlier command's, which nobody trains now: it was cut off and did not fail
            run.set_status("KILLED", rows[-1].get("time") if rows else None)

    def _child(self, key: str, name: str, tags: Mapping[str, str], start_seconds: float | None = None) -> Run:
        assert self._runs is not None
        parent = {"mlflow.parentRunId": self._parent.run_id, "uvb.study": self.study_name}
        return self._runs.get(key, name, {**parent, **tags, "uvb.root": self._parent.tags["uvb.root"]}, start_seconds)

    def _dataset(self, run: Run, spec: RunSpec) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"shape": spec.data.shape, "train_images": spec.data.train_images})
        dataset = Dataset(spec.data.name, spec.data.checksum[:36], "uvb", source)
        run.client.log_inputs(run.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
        run.has_dataset = True

    def _table(self, path: str) -> None:
        """The Parquet file itself, and its rows as MLflow's logged table, which the UI shows and compares."""
        self._artifact(path)
        table, shown = self.folder.table(path), path.replace(".parquet", ".json")
        with tempfile.TemporaryDirectory() as scratch:
            local = Path(scratch) / Path(shown).name
            # log_table would append to what is there; this is the format it writes
            local.write_text(table.to_json(orient="split", index=False))
            self._parent.client.log_artifact(self._parent.run_id, str(local), "tables")
        listed = json.loads(self._parent.tags.get("mlflow.loggedArtifacts", "[]"))
        entry = {"path": shown, "type": "table"}
        if entry not in listed:
            self._parent.log(tags={"mlflow.loggedArtifacts": json.dumps([*listed, entry])})

    def _artifact(self, path: str) -> None:
        with self.folder.local(path) as local:
            self._parent.client.log_artifact(self._parent.run_id, str(local), path.rpartition("/")[0] or None)

    def _values(self) -> None:
        """The tables' figures as metrics of each model's run."""
        assert self._runs is not None
        values = model_values(self.folder.rows("tables/losses.parquet"), self.folder.rows("tables/internals.parquet"))
        for spec_id, found in values.items():
            if spec_id in self._runs.by_key:
                self._runs.by_key[spec_id].log_values(found)

    def _over_sigma(self) -> None:
        """One run a line of the chart over σ, in the report's colours, and the same figures on the parent."""
        from pipelines.reporting.figures.style import line_colour  # Matplotlib, which nothing else here needs

        assert self._runs is not None
        lines = lines_over_sigma(self.folder.rows("tables/losses.parquet"))
        for key in [k for k in self._runs.by_key if k.startswith("sigma/")]:
            metrics = {metric for metric, _ in lines.get(key.removeprefix("sigma/"), ())}
            if metrics.isdisjoint(self._runs.by_key[key].latest):
                self._runs.delete(key)  # a sweep that grew: its lines have got longer names, or finer steps
        for line, points in lines.items():
            shade = line_colour(line)
            tags = {"uvb.role": "sigma", "uvb.line": line} | ({"mlflow.runColor": shade} if shade else {})
            run = self._child(f"sigma/{line}", f"{line} over σ", tags)
            for (metric, step), mean in points.items():
                run.log_values({metric: mean}, step)
                self._parent.log_values({f"{metric}/{line}": mean}, step)
            run.set_status("FINISHED")

    def _log_some_models(self, stamps: Stamps, budget: int) -> bool:
        """Log at most `budget` trained models that are not in MLflow yet; with the last, register the best ones."""
        assert self._runs is not None
        waiting = 0
        for spec_id in self._runs.by_key:
            files = _some(stamps, f"models/{spec_id}/done.json", f"models/{spec_id}/model/model.safetensors")
            if len(files) < 2 or self._projected.get(f"logged/{spec_id}") == files:
                continue
            if budget <= 0:
                waiting += 1
                continue
            budget -= 1
            self._unit(f"logged/{spec_id}", files, partial(self._log_model, spec_id))
        if waiting:
            return False
        self._unit("best", _some(stamps, "tables/losses.parquet"), self._register)
        return True

    def _log_model(self, spec_id: str) -> None:
        assert self._runs is not None
        run = self._runs.by_key[spec_id]
        with self.folder.model(spec_id) as folder:
            models.log_model(run.client, run.run_id, folder)

    def _register(self) -> None:
        assert self._client is not None
        models.register_best(self._client, self.study_name, self.folder.table("tables/losses.parquet"), self.run_ids())

    def _finish_once(self, status: Status, budget: int) -> bool:
        try:
            done = self._project(budget)
        except FolderError:
            self._end(status)  # MLflow is there
            raise
        self._end(status)
        return done

    def _end(self, status: Status) -> None:
        assert self._runs is not None
        for key, run in self._runs.by_key.items():
            if key != "study" and run.status == "RUNNING":
                run.set_status(status if status != "FINISHED" else "FAILED")  # a study cannot end well with these
        self._parent.set_status(status)

    def _write_run_ids(self) -> None:
        assert self._runs is not None
        ids = {k: r.run_id for k, r in sorted(self._runs.by_key.items()) if k != "study" and not k.startswith("sigma/")}
        new = {**self._file, "runs": ids}
        if new != self._projected.get(FILE):
            self.folder.write_json(FILE, new)
            self._file = self._projected[FILE] = new


def _some(stamps: Stamps, *paths: str) -> Stamps:
    return {p: stamps[p] for p in paths if p in stamps}
