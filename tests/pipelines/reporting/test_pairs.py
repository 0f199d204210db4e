"""Which models form a pair. Both models of a pair are measured on the same images with the same noise."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pipelines.files.study_files import StudyFiles
from pipelines.reporting.headlines import headlines
from pipelines.reporting.pairing import pairs
from pipelines.reporting.render import said
from pipelines.reporting.statistics import main_group, own_estimator
from pipelines.reporting.tables import losses
from tests.support import fake_study
from uvb.models.capacity import widths_at


def test_pairs_are_differences_of_the_same_images(study: Path) -> None:
    """The test computes mean, clustered error and interval again from the stored arrays."""
    uvb, deen = fake_study.spec("uvb"), fake_study.spec("deen")
    a, b = (load_file(study / "tasks" / "losses" / s.spec_id / "arrays.safetensors")["test/energy"] for s in (uvb, deen))
    row = pairs(StudyFiles(study)).set_index(["first_id", "second_id", "split"]).loc[(uvb.spec_id, deen.spec_id, "test")]
    difference = [float(x) - float(y) for x, y in zip(a, b, strict=True)]
    mean = sum(difference) / 200
    stderr = math.sqrt(sum((d - mean) ** 2 for d in difference) / 199 / 200)
    assert row["difference"] == pytest.approx(mean)
    assert row["stderr"] == pytest.approx(stderr)
    assert (row["low"], row["high"]) == pytest.approx((mean - 1.96 * stderr, mean + 1.96 * stderr), abs=1e-4)
    # Pairing cancels what an image adds to both losses.
    unpaired = math.hypot(a.std(), b.std()) / math.sqrt(200)
    assert stderr < unpaired / 3


def test_pairs_join_only_models_trained_alike(tmp_path: Path) -> None:
    fake_study.add_model(tmp_path, fake_study.spec("uvb", seed=0))
    fake_study.add_model(tmp_path, fake_study.spec("deen", seed=1))
    fake_study.add_model(tmp_path, fake_study.spec("deen", 0.5))
    fake_study.add_model(tmp_path, fake_study.spec("deen", activation="relu"))
    deen = fake_study.spec("deen")
    fake_study.add_model(tmp_path, dataclasses.replace(deen, data=dataclasses.replace(deen.data, train_images=1000)))
    fake_study.add_model(tmp_path, dataclasses.replace(deen, recipe=deen.recipe.changed(epochs=3)))
    assert pairs(StudyFiles(tmp_path)).empty
    fake_study.add_model(tmp_path, deen)
    assert set(pairs(StudyFiles(tmp_path))["second_id"]) == {deen.spec_id}


def test_pairs_compare_every_model_with_uvb_and_deen(tmp_path: Path) -> None:
    """UVB and DEEN are compared with each other once, so no pair appears twice."""
    for model in ("uvb", "deen", "vae", "uvb_laplace"):
        fake_study.add_model(tmp_path, fake_study.spec(model))
    files = StudyFiles(tmp_path)
    table = pairs(files).query("split == 'test'").set_index(["first", "second"])["difference"]
    others = [(m, s) for m in ("vae", "uvb_laplace") for s in ("uvb", "deen")]
    assert set(table.index) == {("uvb", "deen"), *others}
    own = own_estimator(losses(files)).query("split == 'test'").set_index("model")["loss"]
    for first, second in table.index:
        assert table[first, second] == pytest.approx(own[first] - own[second], abs=1e-5)


def test_pairs_join_models_of_equal_capacity_only(tmp_path: Path) -> None:
    """UVB and DEEN, each of half and full size, make two pairs, not four."""
    for factor in (0.5, 1.0):
        for model in ("uvb", "deen"):
            fake_study.add_model(tmp_path, fake_study.spec(model, widths=widths_at(model, (1, 8, 8), factor)))
    files = StudyFiles(tmp_path)
    tests = pairs(files).query("split == 'test'")
    size = {model.spec_id: model.done["parameters"] for model in files.models.values()}
    assert len(tests) == 2
    assert all(abs(size[a] / size[b] - 1) < 0.02 for a, b in zip(tests["first_id"], tests["second_id"], strict=True))
    main = main_group(losses(files))
    assert main.groupby("model")["parameters"].nunique().eq(1).all()
    assert set(main["parameters"]) == {min(size[a] for a in tests["first_id"]), min(size[b] for b in tests["second_id"])}


def test_pairs_take_the_nearest_of_several_sizes(tmp_path: Path) -> None:
    """Each seed has one pair. Further sizes do not count as further seeds."""
    seeds = range(4)  # spec_ids are hashes, so the order of the sizes depends on the seed
    for seed, (model, factor) in itertools.product(seeds, [("uvb", 1.0), *(("deen", f) for f in (0.92, 0.95, 1.0, 1.05))]):
        fake_study.add_model(tmp_path, fake_study.spec(model, seed=seed, widths=widths_at(model, (1, 8, 8), factor)))
    files = StudyFiles(tmp_path)
    table = pairs(files).query("split == 'test'")
    size = {model.spec_id: model.done["parameters"] for model in files.models.values()}
    (uvb,) = {size[i] for i, m in files.models.items() if m.spec.model == "uvb"}
    deens = {size[i] for i, m in files.models.items() if m.spec.model == "deen"}
    assert len(deens) == 4
    assert sorted(table["seed"]) == list(seeds)
    assert {size[i] for i in table["second_id"]} == {min(deens, key=lambda n: abs(np.log(n / uvb)))}
    (headline,) = headlines(losses(files), table)
    assert "mean of 4 seeds" in said(headline)[1]


def test_pairs_leave_out_models_measured_with_other_settings(tmp_path: Path) -> None:
    """Losses with other settings were measured with other noise, even if the arrays have the same shape."""
    specs = [fake_study.spec(model) for model in ("uvb", "deen")]
    for spec, settings in zip(specs, ("a", "b"), strict=True):
        fake_study.add_model(tmp_path, spec)
        path = tmp_path / "tasks" / "losses" / spec.spec_id / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"settings": settings}))
    assert pairs(StudyFiles(tmp_path)).empty
    path.write_text(json.dumps(json.loads(path.read_text()) | {"settings": "a"}))
    assert len(pairs(StudyFiles(tmp_path))) == 2
