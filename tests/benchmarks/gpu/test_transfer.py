"""The transfer of data sets to a GPU machine, and of results back."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.gpu import transfer
from pipelines.executor.measuring import Settings, run_here, tasks_for
from pipelines.executor.training import Training, lay_out
from pipelines.files.store import Store
from tests.support.builders import a_row, tiny_spec
from uvb.data import ImageSet
from uvb.measure.losses import EvalConfig
from uvb.plan import Plan


def test_packed_images_come_back_whole(tmp_path):
    pixels = torch.randint(0, 256, (20, 1, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = ImageSet("some", pixels[:15], pixels[15:])
    transfer.pack(images, tmp_path / "packed")
    assert transfer.unpack(tmp_path / "packed", tmp_path / "scratch")["some"].checksum == images.checksum


def test_pack_without_data_says_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PACKED", tmp_path / "packed")
    with pytest.raises(SystemExit, match=r"^nothing is packed: put MNIST/ or cifar10/ into .*/data, .*--data$"):
        transfer.pack_all(tmp_path / "data")
    assert not (tmp_path / "packed").exists()


def training(study, name, text, finished):
    folder = study / "models" / name
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.safetensors").write_text("weights, which stay")
    (folder / "curves.json").write_text(text)
    (study / "tasks" / "losses" / name).mkdir(parents=True)
    (study / "tasks" / "losses" / name / "result.json").write_text(text)
    if finished:
        (folder / "measured.json").write_text("{}")


def test_collect_replaces_only_unfinished_trainings(tmp_path):
    there, out, here = tmp_path / "there", tmp_path / "out", tmp_path / "here"
    training(there, "aaa", "1", True)
    training(there, "bbb", "1", False)
    training(here, "bbb", "0", False)
    (there / "bench.json").write_text("[]")
    transfer.bundle(there, out, ["aaa", "bbb"])
    assert set(transfer.collect(out, here)) == {"aaa", "bbb (unfinished)", "bench.json"}
    assert (here / "models" / "bbb" / "curves.json").read_text() == "1"
    assert not (here / "models" / "aaa" / "model").exists()
    (there / "models" / "aaa" / "curves.json").write_text("2")
    transfer.bundle(there, tmp_path / "again", ["aaa"])
    assert set(transfer.collect(tmp_path / "again", here)) == {"bench.json"}
    assert (here / "models" / "aaa" / "curves.json").read_text() == "1"


def test_bundle_begins_another_archive_before_one_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "ARCHIVE_LIMIT", 100)
    for name in ("aaa", "bbb"):
        training(tmp_path / "place", name, json.dumps("x" * 40), True)
    transfer.bundle(tmp_path / "place", tmp_path / "out", ["aaa", "bbb"])
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert set(transfer.collect(tmp_path / "out", tmp_path / "tree")) == {"aaa", "bbb"}


def test_slim_leaves_out_the_largest_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "ARRAYS_BYTES", 90_000)
    path = tmp_path / "arrays.safetensors"
    save_file({"huge": torch.zeros(60_000), "large": torch.zeros(30_000), "small": torch.ones(10)}, path)
    (tmp_path / "slim.safetensors").write_bytes(transfer.slim(path))
    kept = load_file(tmp_path / "slim.safetensors")
    assert {name: array.dtype for name, array in kept.items()} == {"large": torch.float16, "small": torch.float32}


def test_merged_keeps_the_rows_of_both_gpus(tmp_path):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps([a_row("a", 1.0, "one"), a_row("a", 2.0, "two"), a_row("b", 3.0, "one")]))
    new.write_text(json.dumps([a_row("a", 9.0, "one")]))
    values = {(r["machine"], r["name"]): r["value"] for r in transfer.merged(new, old)}
    assert values == {("one", "a"): 9.0, ("two", "a"): 2.0, ("one", "b"): 3.0}
    old.write_text(json.dumps({"machine": "one", "checks": {"a": 1, "b": 1}}))
    new.write_text(json.dumps({"machine": "two", "checks": {"b": 2}}))
    assert transfer.merged(new, old) == {"machine": "two", "checks": {"a": 1, "b": 2}}


def test_fill_mixing_computes_the_statistics_that_need_arviz(store: Store, digits):
    spec, plan = tiny_spec(digits), Plan()
    lay_out(store, digits, {spec: plan})
    assert Training(spec, plan, store, 1e9).run()["outcome"] == "done"
    settings = Settings(EvalConfig(60, 50, 1), plan, scale=0.2)
    tasks = [task for task in tasks_for([spec], ["walk_jump"]) if task.name == "walk_jump"]
    assert [error for _, error in run_here(tasks, store, settings)] == [""]
    whole = store.read_json(f"{tasks[0].folder}/result.json")
    bare = store.read_json(f"{tasks[0].folder}/result.json")
    for figures in (*bare["variants"].values(), bare["energy"]):
        figures.update(dict.fromkeys(("iat", "ess_per_step", "split_rhat")))
    store.write_json(f"{tasks[0].folder}/result.json", bare)
    transfer.fill_mixing(store.local_path, spec.spec_id)
    filled = store.read_json(f"{tasks[0].folder}/result.json")
    for kind in ("jump", "second_jump"):
        for name in ("iat", "ess_per_step", "split_rhat"):
            assert filled["variants"][kind][name] == pytest.approx(whole["variants"][kind][name], rel=1e-3)
        assert filled["variants"][kind]["transition"] == whole["variants"][kind]["transition"]
    assert filled["energy"] == pytest.approx(whole["energy"], rel=1e-3)
