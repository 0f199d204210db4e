"""The GPU script on a CPU, with tiny networks: what it trains, measures, records and skips."""

import json

import pytest

from benchmarks import measure
from benchmarks.gpu import run, transfer, variants, warm
from benchmarks.gpu.ledger import Ledger
from benchmarks.gpu.trainings import in_order_of_value, key_of
from tests.support.builders import a_row
from uvb.models.io import load
from uvb.plan import Plan


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call the script on tiny networks, with few experiments. Return its summary."""
    monkeypatch.setattr(run, "experiment_names", lambda default_only: ["losses", "internals"])
    monkeypatch.setattr(run.warm, "rows", lambda *_: [a_row("compile/x", 1.0, measure.machine())])

    def called(name="place", minutes=5.0, **options):
        where = {"out": tmp_path / "out" / name, "place": tmp_path / name, "tree": tmp_path / "tree", "minutes": minutes}
        words = [f"--{key}={value}" for key, value in (where | options).items()]
        run.main(["--tiny", "--no-jax", "--phases=trainings", *words])
        return json.loads((where["out"] / "summary.json").read_text())

    return called


def losses(folder):
    (path,) = folder.glob("tasks/losses/*/result.json")
    return json.loads(path.read_text())["rows"]


def test_run_cut_short_continues_to_the_same_weights(call, tmp_path, monkeypatch):
    whole = call("whole", only="mnist uvb")
    assert list(whole["finished"].values()) == [True]
    assert whole["note"] == "everything is done"
    real = run.Lease.watch
    monkeypatch.setattr(run.Lease, "watch", lambda self, progress: real(self, progress) or True)
    cut = call("cut", only="mnist uvb")
    assert list(cut["finished"].values()) == [False]
    assert "call again" in cut["note"]
    monkeypatch.setattr(run.Lease, "watch", real)
    assert list(call("cut", only="mnist uvb")["finished"].values()) == [True]
    (spec_id,) = cut["finished"]
    a, b = (load(tmp_path / name / "study" / "models" / spec_id / "model").state_dict() for name in ("whole", "cut"))
    assert all(a[name].equal(b[name]) for name in a)
    assert losses(tmp_path / "whole" / "study")[0]["loss"] == losses(tmp_path / "cut" / "study")[0]["loss"]

    taken = list(transfer.collect(tmp_path / "out" / "cut", tmp_path / "tree"))
    assert spec_id in taken
    assert call("fresh", only="mnist uvb")["finished"] == {}  # the training was collected into the tree above
    assert not (tmp_path / "fresh" / "study" / "models").exists()


def test_run_without_time_begins_nothing(call):
    summary = call(minutes=0.0)
    assert summary["finished"] == {}
    assert "time is up before mnist uvb" in summary["note"]


def test_run_measures_losses_of_the_headline_before_the_rest(call, tmp_path, monkeypatch):
    order = []
    real = run.run_here

    def noting(tasks, *rest):
        for task, error in real(tasks, *rest):
            order.append((task.spec.model, task.name))
            yield task, error

    monkeypatch.setattr(run, "run_here", noting)
    call()
    assert [pair for pair in order if pair[1] != "reference"] == [
        ("uvb", "losses"), ("uvb", "internals"), ("deen", "losses"),
    ]  # fmt: skip


def test_run_records_a_failed_training_and_continues(call, tmp_path, monkeypatch):
    real = run.Training.run

    def breaking(self):
        if self.spec.model == "uvb":
            raise RuntimeError("CUDA out of memory")
        return real(self)

    monkeypatch.setattr(run.Training, "run", breaking)
    assert call()["note"] == "everything is done"
    (failed,) = tmp_path.glob("place/study/models/*/failed.json")
    assert json.loads(failed.read_text())["error"] == "RuntimeError: CUDA out of memory"
    assert sorted(call()["finished"].values()) == [False, True]  # not tried again on this machine


@pytest.mark.parametrize(
    ("graphed", "compiled", "best"),
    [(True, True, "graph-compile-bf16"), (False, True, "compile-bf16"), (True, False, "eager-bf16")],
)
def test_plan_is_the_fastest_that_passed_its_checks(tmp_path, graphed, compiled, best):
    ledger = Ledger([tmp_path], "cpu")
    medians = {"graph-compile-bf16": 1.0, "compile-bf16": 2.0, "eager-bf16": 5.0}
    ledger.rows = [a_row(f"step/uvb/mnist/cuda-{name}", value, measure.machine()) for name, value in medians.items()]
    ledger.rows.append(a_row("step/uvb/mnist/cuda-eager-bf16", 0.001, "another GPU, torch 1"))
    here = {"machine": measure.machine()}
    ledger.checks = {"graphed/uvb": {"ok": graphed} | here, "compiled/uvb": {"ok": compiled} | here}
    plan = run.plan_for("vae", ledger, "cuda")
    assert (plan.compile, plan.graph, plan.precision) == ("compile" in best, "graph" in best, "bf16")


def test_plan_is_compiled_without_a_graph_if_nothing_was_measured(tmp_path):
    ledger = Ledger([tmp_path], "cpu")
    assert run.plan_for("uvb", ledger, "cuda") == Plan(device="cuda", precision="bf16", compile=True)
    ledger.checks = {name: {"ok": True, "machine": "another GPU, torch 1"} for name in ("graphed/uvb", "compiled/uvb")}
    assert run.plan_for("uvb", ledger, "cuda") == Plan(device="cuda", precision="bf16", compile=True)


@pytest.mark.parametrize("plan", [Plan(), Plan(precision="bf16"), Plan(precision="bf16", compile=True)], ids=run.way_of)
def test_variant_by_the_name_of_a_plan_runs_that_plan(monkeypatch, plan):
    plans = []
    monkeypatch.setattr(variants, "our_step", lambda model, shape, plan, *_, **__: plans.append(plan) or (lambda: None))
    variants.variant(run.way_of(plan), None, (1, 8, 8), "cpu", 2)
    assert plans == [plan]


def test_trainings_are_distinct_and_the_most_informative_first(digits):
    specs = in_order_of_value({"mnist": digits, "cifar10": digits})
    first = [f"{model} fast, learning_rate=0.0005 1" for model in ("uvb", "deen", "vae")]
    first.insert(1, "uvb muon, learning_rate=0.002 1")
    assert [key_of(s).split(" ", 1)[1] for s in specs[:4]] == first
    assert key_of(specs[-1]).endswith("deen paper 1")
    ids = [s.spec_id for s in in_order_of_value({"mnist": digits})]
    assert len(set(ids)) == len(ids) == 27


def test_warm_reports_compilations_that_fail_or_take_too_long(monkeypatch, capsys):
    """Each job runs in its own process, so the other jobs continue."""
    assert list(warm.rows("", (("nothing", "mnist", 2),))) == []
    monkeypatch.setattr(warm, "SECONDS", 0.0)
    assert list(warm.rows("", (("uvb", "mnist", 2),))) == []
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("compiling nothing on mnist: ")
    assert said[1] == "compiling uvb on mnist: not done after 0 s"
