"""The ledger, the GPU script's record of finished jobs, repeats none on one kind of machine, and continues after a failure."""

import json

import pytest

from benchmarks import measure
from benchmarks.gpu import ledger as module
from benchmarks.gpu.ledger import Ledger
from benchmarks.gpu.variants import Steps
from tests.support.builders import TINY, a_row


def here(name, value=1.0):
    return a_row(name, value, measure.machine())


def test_ledger_measures_once_and_keeps_what_it_found(tmp_path):
    sent = []
    first = Ledger([tmp_path], "cpu", send=sent.append)
    first.measure("a", lambda: [here("a")])
    first.measure("many/", lambda: [here("many/x"), here("many/y")])
    first.measure("broken", lambda: 1 / 0)
    first.check("right", lambda: {"ok": True})
    assert sent == ["a", "many/", "broken", "right"]
    again = Ledger([tmp_path], "cpu")
    assert all(again.known(job) for job in sent)
    assert not again.known("ma")
    for job in sent:
        again.measure(job, lambda: pytest.fail("measured twice"))
    (why,) = again.failures.values()
    assert why == "ZeroDivisionError: division by zero"


def test_ledger_ignores_rows_of_other_machines(tmp_path):
    (tmp_path / "bench.json").write_text(json.dumps([a_row("a", 1.0, "another GPU, torch 1")]))
    (tmp_path / "checks.json").write_text(json.dumps({"checks": {"b": {"ok": True, "machine": "another GPU, torch 1"}}}))
    ledger = Ledger([tmp_path], "cpu")
    assert not ledger.known("a")
    assert not ledger.known("b")


def test_ledger_begins_no_job_without_time_for_it(tmp_path):
    ledger = Ledger([tmp_path], "cpu", left=lambda: 30.0)
    ledger.measure("long", lambda: pytest.fail("begun"), seconds=40.0)
    ledger.measure("short", lambda: [here("short")], seconds=20.0)
    assert [row["name"] for row in ledger.rows] == ["short"]
    late = Ledger([tmp_path / "late"], "cpu", left=lambda: -1.0)
    late.check("check", lambda: pytest.fail("begun"))
    late.measure("row", lambda: pytest.fail("begun"))


def test_ledger_records_only_the_job_that_lost_the_device(tmp_path, monkeypatch):
    """The ledger records the job as failed, so that the next call skips it."""

    def lost(device):
        raise measure.DeviceLost("an illegal memory access was encountered")

    monkeypatch.setattr(module, "require_alive", lost)
    ledger = Ledger([tmp_path], "cpu")
    with pytest.raises(measure.DeviceLost):
        ledger.measure("a", lambda: 1 / 0)
    assert Ledger([tmp_path], "cpu").known("a")


def test_steps_are_timed_beside_the_eager_fp32_step(tmp_path):
    steps = Steps("deen", "mnist", "cpu", {"bf16": 1.0, "fp32": 1.0, "bytes": 1.0}, TINY, batch=2)
    ledger = Ledger([tmp_path], "cpu")
    ledger.measure(f"step/{steps.at}-eager-bf16", lambda: steps.rows("eager-bf16"))
    step, *shares = ledger.rows
    assert step["name"] == "step/deen/mnist/cpu-eager-bf16"
    assert step["ratio"] > 0
    assert [row["name"].split("/")[0] for row in shares] == ["peak-share", "roofline-share", "ready"]
    assert next(steps.reference())["name"] == "step/deen/mnist/cpu-eager-fp32"
