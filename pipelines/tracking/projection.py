"""Project a study's files into MLflow: log their content to MLflow's runs, again and again while the study runs.

Each pass over the files compares their time stamps with those of the last pass, and logs what is new. If a pass is killed or
repeated, MLflow still gets everything once.

A study has a parent run, a child run for each model, and a child run for each line of the chart over σ, such as "UVB over σ".
MLflow draws one metric of several runs as one chart, with a line for each run. So each run over σ has the metric
``loss_over_sigma`` at step 100 σ. If noise levels are finer than hundredths, the metric is ``loss_over_1000_sigma``, or the
like.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pipelines.tracking import model_registry as models
from pipelines.tracking.connection import Run, Runs, final, is_away, is_unreachable
from pipelines.tracking.folder import FolderError, StudyFolder
from pipelines.tracking.values import (
    curve_points,
    experiment_values,
    first_page,
    flat,
    in_a_line,
    lines_over_sigma,
    model_values,
    numbers,
    plain_names,
    readable,
    source_tags,
    worker_points,
)
from pipelines.tracking.views import OVER_SIGMA, VIEW, shared_views, view_paths
from pipelines.words import name_of
from uvb.errors import UserError, first_line, with_type
from uvb.spec import RunSpec

Status = Literal["FINISHED", "FAILED", "KILLED"]
Stamps = Mapping[str, tuple[int, int]]

FILE = "mlflow.json"  # in the study's folder: {"study_uid", "tracking_uri", "experiment_id", "runs": {spec_id: run id}}
NOTE = "mlflow.note.content"  # the tag that MLflow shows as a description
STUDIES_DESCRIBED = 20  # how many studies the experiment's description lists, the newest first
WORKERS = "workers"  # folder in a model's folder, where each worker except the first writes how busy its machine is
MODEL_FILES = ("spec.json", "plan.json", "curves.json", "progress.json", "done.json", "stopped.json", "failed.json")


@dataclass
class Notes:
    """Failures and warnings so far. After a lost connection, the new `Projection` goes on with the same `Notes`.

    A unit is a part of a pass (see `Projection._unit`).

    Attributes:
        failures: unit -> how many times in a row it failed.
        warned: the units that the user was warned of.
    """

    warn: Callable[[str], None]
    failures: dict[str, int] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)


class Projection:
    """Projects the files of one study into its runs on one server.

    Args:
        runs: the study's runs, among them the parent.
        file: the content of mlflow.json. The projection changes it when runs are created.
    """

    def __init__(
        self, runs: Runs, folder: StudyFolder, study_name: str, file: dict[str, Any], notes: Notes, log_models: bool = True
    ) -> None:
        self.runs, self.folder, self.study_name, self.file = runs, folder, study_name, file
        self._notes, self._log_models = notes, log_models
        self._content: dict[str, Any] = {}  # the content of study.json
        self._values: dict[str, dict[str, float]] = {}  # spec_id -> the numbers of the tables
        self._projected: dict[str, Any] = {}  # unit -> stamps (modification time and size) of the files that were projected

    @property
    def parent(self) -> Run:
        return self.runs.by_key["study"]

    def project(self, model_budget: int) -> bool:
        """Make one pass over the study's files. Log at most `model_budget` models. Return False if more remain to be logged."""
        stamps = self.folder.stamps()
        values = _some(stamps, "tables/losses.parquet", "tables/internals.parquet")
        self._unit("the tables' numbers", values, self._read_values)  # first, since `_model` logs them with the rest of a run
        self._unit("study.json", _some(stamps, "study.json"), self._read_study)
        for spec_id, files in _by_model(stamps).items():
            # A run begins when its training begins. A planned model has only its spec.json and plan.json.
            if any(p.endswith(("progress.json", "curves.json", "done.json")) for p in files):
                self._unit(f"models/{spec_id}", files, partial(self._model, spec_id, files))
        self._write_run_ids()
        tables = _some(stamps, "tables/losses.parquet", "tables/pairs.parquet")
        self._unit("study", _some(stamps, "study.json") | tables, self._study)
        for path in stamps:
            folder, _, name = path.rpartition("/")
            if folder == "tables" and name.endswith(".parquet"):
                self._unit(path, _some(stamps, path), partial(self._table, path))
            elif path.endswith(".svg") or path == "report.html":
                self._unit(path, _some(stamps, path), partial(self._artifact, path))
            elif folder.startswith("tasks/") and name == "result.json":
                self._unit(path, _some(stamps, path), partial(self._experiment, path))
        self._unit("values", values, self._log_values)
        self._unit("sigma", _some(stamps, "tables/losses.parquet"), self._over_sigma)
        return self._log_some_models(stamps, model_budget) if self._log_models else True

    def finish(self, status: Status, model_budget: int) -> bool:
        """Make the last pass, and end every run. If the study's folder fails, MLflow is still there, so end the runs anyway."""
        reachable = True
        try:
            return self.project(model_budget)
        except Exception as error:
            reachable = isinstance(error, FolderError)
            raise
        finally:
            if reachable:
                self._end(status)

    def try_again(self) -> None:
        """Let the next pass try the refused units again."""
        for refused in self._notes.failures:
            self._projected.pop(refused, None)

    def _unit(self, name: str, files: Stamps, work: Callable[[], None]) -> None:
        """Call `work`, unless the unit `name` was already done from the same files.

        If MLflow refuses the unit, or another version wrote its spec, warn the user once, and leave the unit out until its
        files change. If the connection is lost, raise, so that a later pass tries again. An unreadable file or an internal
        error of MLflow may be temporary or final. The first two such errors in a row raise. The third counts as a refusal if
        the server answers another request.
        """
        if not files or self._projected.get(name) == files:
            return
        try:
            work()
        except Exception as error:
            self._notes.failures[name] = self._notes.failures.get(name, 0) + 1
            if is_unreachable(error):
                raise
            if (isinstance(error, FolderError) or is_away(error)) and (self._notes.failures[name] < 3 or not self._answers()):
                raise
            if name not in self._notes.warned:
                self._notes.warned.add(name)
                if isinstance(error, UserError):
                    self._notes.warn(f"MLflow does not get {name}: {first_line(error)}")
                else:
                    reason = with_type(error, first_line)
                    self._notes.warn(f"MLflow did not get {name} ({reason}); the study's files have it")
        else:
            self._notes.failures.pop(name, None)
        self._projected[name] = files

    def _answers(self) -> bool:
        """Whether the server answers a request that it cannot refuse."""
        try:
            self.parent.client.get_run(self.parent.run_id)
        except Exception:  # whatever fails here, no answer has come
            return False
        return True

    def _study(self) -> None:
        """Log the settings, the provenance and the study's numbers to the parent run. Its description has the numbers, too."""
        settings = flat({k: v for k, v in self._content.items() if k != "provenance"})
        self.parent.log(params=settings, tags=self._provenance() | self.parent.now(settings))
        losses, pairs = (self.folder.rows(f"tables/{name}.parquet") for name in ("losses", "pairs"))
        values, text = first_page(losses, pairs)
        views = view_paths(self.file)
        links = f"[Its models in a table]({views['models']}) · [loss over σ as one chart]({views['sigma']})"
        self.parent.log(tags={NOTE: "\n\n".join(part for part in (text, links) if part)}, values=final(values))
        if values:
            self._describe_experiment(f"{in_a_line(self.study_name, losses, values)} · {links}")

    def _describe_experiment(self, line: str) -> None:
        """Put the study's numbers at the top of the experiment's description, which MLflow's first page shows."""
        client, experiment_id = self.parent.client, self.runs.experiment_id
        before = str(client.get_experiment(experiment_id).tags.get(NOTE, ""))
        others = [other for other in before.split("\n\n") if other and f"({self.study_name}, σ = " not in other]
        client.set_experiment_tag(experiment_id, NOTE, "\n\n".join([line, *others[: STUDIES_DESCRIBED - 1]]))

    def _provenance(self) -> dict[str, Any]:
        provenance = dict(self._content.get("provenance") or {})
        logged_elsewhere = ("data", "parameters", "seeds")
        short = flat({k: v for k, v in provenance.items() if k not in logged_elsewhere})
        tags = {f"provenance.{k}": v for k, v in short.items()} | source_tags(provenance)
        revision = provenance.get("git")
        return tags | ({"mlflow.source.git.commit": revision} if isinstance(revision, str) else {})

    def _read_study(self) -> None:
        self._content = self.folder.read_json("study.json") or {}

    def _read_values(self) -> None:
        self._values = model_values(self.folder.rows("tables/losses.parquet"), self.folder.rows("tables/internals.parquet"))

    def _model(self, spec_id: str, files: Stamps) -> None:
        """Log a model's run: its spec and plan, its curves, and how its training ended."""
        read = {path.removeprefix(f"models/{spec_id}/"): self.folder.read_json(path) for path in files}
        if read.get("spec.json") is None:
            return
        spec, rows = RunSpec.from_json(read["spec.json"]), (read.get("curves.json") or {}).get("rows", [])
        tags = {
            "uvb.role": "model", "uvb.spec_id": spec_id, "dataset": spec.data.name, "model": spec.model,
            "sigma": f"{spec.sigma:g}", "seed": str(spec.seed), "recipe": spec.recipe.name,
        }  # fmt: skip
        began = rows[0]["time"] - rows[0]["seconds"] if rows and "time" in rows[0] else None
        run = self._child(spec_id, name_of(spec), tags, began)
        if not run.has_dataset:
            self._datasets(run, spec)
        plan = flat({"plan": read.get("plan.json") or {}})
        params = {"dataset": spec.data.name, "widths": str(spec.widths), **flat(read["spec.json"]), **plan}
        workers = {int(Path(name).stem): content or {} for name, content in read.items() if name.startswith(WORKERS)}
        points = [*curve_points(rows, began, spec.objective), *worker_points(read.get("progress.json") or {}, workers)]
        done = read.get("done.json") or {}
        cleared = {name: "" for name in ("uvb.error", "uvb.ended") if run.tags.get(name)}  # left by an earlier attempt
        values = numbers({k: v for k, v in done.items() if k != "time"}) | self._values.get(spec_id, {})
        run.log(params, cleared | self._provenance() | run.now(params), points, final(values))
        last = rows[-1].get("time") if rows else None
        asked = self._content.get("specs")  # the models that the last command trains; None: study.json is not read yet
        if done:
            run.set_status("FINISHED", done.get("time") or last)
        elif stopped := read.get("stopped.json"):  # a search stopped the training early
            run.log(tags={"uvb.ended": "stopped early"})
            run.set_status("KILLED", stopped.get("time"))
        elif failed := read.get("failed.json"):
            run.log(tags={"uvb.error": failed.get("error", "")})
            run.set_status("FAILED", failed.get("time"))
        elif asked is None or spec_id in asked:
            run.set_status("RUNNING")
        elif run.status == "RUNNING":  # an earlier command began this training; no command trains it now
            run.set_status("KILLED", last)

    def _child(self, key: str, name: str, tags: Mapping[str, str], start_seconds: float | None = None) -> Run:
        parent = {"mlflow.parentRunId": self.parent.run_id, "uvb.study": self.study_name}
        return self.runs.get(key, name, {**parent, **tags, "uvb.root": self.parent.tags["uvb.root"]}, start_seconds)

    def _datasets(self, run: Run, spec: RunSpec) -> None:
        """Log a model's training and test images as the data sets of its run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        known = (self._content.get("provenance") or {}).get("data") or {}
        inputs = []
        for split, context, count in (("train", "training", spec.data.train_images), ("test", "testing", known.get("test"))):
            digest = f"{spec.data.checksum[:30]}-{split}"  # MLflow takes 36 characters
            source = json.dumps({"name": spec.data.name, "checksum": spec.data.checksum, "split": split})
            profile = json.dumps({"num_images": count, "shape": spec.data.shape})
            dataset = Dataset(f"{spec.data.name} {split}", digest, "uvb", source, profile=profile)
            inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))
        run.client.log_inputs(run.run_id, inputs)
        run.has_dataset = True

    def _table(self, path: str) -> None:
        """Log a Parquet file, and its rows as an MLflow table, which MLflow's UI can show and compare."""
        self._artifact(path)
        table, shown = readable(self.folder.table(path)), path.replace(".parquet", ".json")
        with tempfile.TemporaryDirectory() as scratch:
            local = Path(scratch) / Path(shown).name
            # MLflow's log_table would append to an existing table, so write its format here.
            local.write_text(table.to_json(orient="split", index=False))
            self.parent.client.log_artifact(self.parent.run_id, str(local), "tables")
        listed = json.loads(self.parent.tags.get("mlflow.loggedArtifacts", "[]"))
        entry = {"path": shown, "type": "table"}
        if entry not in listed:
            self.parent.log(tags={"mlflow.loggedArtifacts": json.dumps([*listed, entry])})

    def _artifact(self, path: str) -> None:
        """Log a file of the study. In the name of a model's figure, the model's name replaces its spec_id."""
        folder, _, name = path.rpartition("/")
        with self.folder.local(path) as local, tempfile.TemporaryDirectory() as scratch:
            named = Path(scratch) / plain_names(name, self._names())
            named.symlink_to(local.absolute())
            self.parent.client.log_artifact(self.parent.run_id, str(named), folder or None)

    def _names(self) -> dict[str, str]:
        """spec_id -> the name of its run. Models without a run are left out."""
        runs = self.runs.by_key.values()
        return {run.tags["uvb.spec_id"]: run.tags["mlflow.runName"] for run in runs if "uvb.spec_id" in run.tags}

    def _log_values(self) -> None:
        """Log the tables' numbers of each model as metrics of its run."""
        for spec_id, found in self._values.items():
            if spec_id in self.runs.by_key:
                self.runs.by_key[spec_id].log(values=final(found))

    def _experiment(self, path: str) -> None:
        """Log an experiment's numbers as metrics of its model's run."""
        _, task, key, _ = path.split("/")
        if key in self.runs.by_key:
            self.runs.by_key[key].log(values=final(experiment_values(task, self.folder.read_json(path) or {})))

    def _over_sigma(self) -> None:
        """Log a run for each line of the chart over σ, in the report's colours. Log the same points to the parent run, too."""
        from pipelines.reporting.figures.style import line_colour  # imports Matplotlib, which only this method needs

        lines = lines_over_sigma(self.folder.rows("tables/losses.parquet"))
        drawn = sorted({metric for points in lines.values() for metric, _ in points})
        if drawn and tuple(drawn) != OVER_SIGMA:
            for key, view in shared_views(self.file["study_uid"], drawn).items():
                self.parent.client.set_experiment_tag(self.runs.experiment_id, f"{VIEW}.{key}", json.dumps(view))
        for key in [k for k in self.runs.by_key if k.startswith("sigma/")]:
            metrics = {metric for metric, _ in lines.get(key.removeprefix("sigma/"), ())}
            if metrics.isdisjoint(self.runs.by_key[key].latest):
                # an old line: new models gave it a longer name, or new noise levels gave its metric another one
                self.runs.delete(key)
        for line, points in lines.items():
            shade = line_colour(line)
            tags = {"uvb.role": "sigma", "uvb.line": line} | ({"mlflow.runColor": shade} if shade else {})
            run = self._child(f"sigma/{line}", f"{line} over σ", tags)
            run.log(values=points)
            self.parent.log(values={(f"{metric}/{line}", step): mean for (metric, step), mean in points.items()})
            run.set_status("FINISHED")

    def _log_some_models(self, stamps: Stamps, budget: int) -> bool:
        """Log at most `budget` of the trained models that MLflow does not have. Return False if more remain.

        When none remains, register the best models.
        """
        waiting = 0
        for spec_id in self.runs.by_key:
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
        run = self.runs.by_key[spec_id]
        with self.folder.model(spec_id) as folder:
            models.log_model(run.client, run.run_id, folder)

    def _register(self) -> None:
        table = self.folder.table("tables/losses.parquet")
        images = {key: run.params.get("data.checksum", "") for key, run in self.runs.by_key.items()}
        table = table.assign(checksum=table["spec_id"].map(images).fillna(""))
        models.register_best(self.parent.client, self.study_name, table, dict(self.file["runs"]))

    def _end(self, status: Status) -> None:
        for key, run in self.runs.by_key.items():
            if key != "study" and run.status == "RUNNING":
                run.set_status("FAILED" if status == "FINISHED" else status)  # the study ended, but this training did not
        self.parent.set_status(status)

    def _write_run_ids(self) -> None:
        ids = {k: r.run_id for k, r in sorted(self.runs.by_key.items()) if k != "study" and not k.startswith("sigma/")}
        new = {**self.file, "runs": ids}
        if new != self._projected.get(FILE):
            self.folder.write_json(FILE, new)
            self.file["runs"] = ids
            self._projected[FILE] = new


def _by_model(stamps: Stamps) -> dict[str, dict[str, tuple[int, int]]]:
    """spec_id -> the files from which the model's run is made."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for path in sorted(stamps):
        folder, _, rest = path.partition("/")
        spec_id, _, name = rest.partition("/")
        if folder == "models" and (name in MODEL_FILES or name.startswith(f"{WORKERS}/")):
            found.setdefault(spec_id, {})[path] = stamps[path]
    return found


def _some(stamps: Stamps, *paths: str) -> dict[str, tuple[int, int]]:
    return {p: stamps[p] for p in paths if p in stamps}
