"""Data sets of the hub without a network: they are read from the cache of `datasets`, or refused in one line.

The names of splits and of data sets are tested too.
"""

import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.data_helpers import fails, pixels, png, write_parquet
from uvb.data import load_dataset
from uvb.data.readers import hub
from uvb.data.readers.names import split_in, split_of
from uvb.naming import dataset_stem

datasets = pytest.importorskip("datasets")


def test_load_hub_refuses_an_unknown_set_soon_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    absent = "hf:nobody/nothing is not in the local cache, and {}; run once with a network"
    fails(absent.format("HF_HUB_OFFLINE forbids the network"), "hf:nobody/nothing")
    fails(absent.format("downloads are off"), "hf:nobody/nothing", download=False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "reachable", lambda url: False)
    fails(absent.format("https://.* cannot be reached"), "hf:nobody/nothing")
    fails("give hf:owner/name", "hf:")
    fails("give hf:owner/name", "hf:a/b/c")
    assert time.monotonic() - started < 10


def test_load_hub_reads_the_librarys_cache_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test builds the cache that a download would leave: `datasets` keeps a data set under owner___name."""
    write_parquet(tmp_path / "clone/train-0.parquet", [png(a) for a in pixels(8, 4, 4)], label=[0, 1] * 4)
    write_parquet(tmp_path / "clone/test-0.parquet", [png(a) for a in pixels(4, 4, 4, seed=1)], label=[0, 1] * 2)
    prepared = datasets.load_dataset(str(tmp_path / "clone"), cache_dir=str(tmp_path / "prepared"))
    folder = Path(prepared["train"].cache_files[0]["filename"]).parent
    cache = tmp_path / "cache" / "owner___name" / "default" / "0.0.0" / "1234567890abcdef"
    cache.parent.mkdir(parents=True)
    folder.rename(cache)
    for file in cache.glob("*.arrow"):
        file.rename(file.with_name(file.name.replace("clone", "name")))
    info = cache / "dataset_info.json"
    info.write_text(info.read_text().replace('"clone"', '"name"'))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    images = load_dataset("hf:owner/name")
    assert (images.name, len(images.train), len(images.test), images.classes) == ("name", 8, 4, ("0", "1"))
    assert np.array_equal(images.test[:, 0].numpy(), pixels(4, 4, 4, seed=1))
    assert images.report is not None
    assert images.report.source == "hf:owner/name"


def test_suffixes_in_capitals_are_read_alike(tmp_path: Path) -> None:
    pictures = [png(a) for a in pixels(8, 4, 4)]
    write_parquet(tmp_path / "train-0.parquet", pictures, label=[0, 1] * 4)
    prepared = datasets.load_dataset("parquet", data_files=str(tmp_path / "train-0.parquet"), cache_dir=str(tmp_path / "cache"))
    Path(prepared["train"].cache_files[0]["filename"]).rename(tmp_path / "A.ARROW")
    (tmp_path / "train-0.parquet").rename(tmp_path / "B.PARQUET")
    arrow, parquet = (load_dataset(tmp_path / name) for name in ("A.ARROW", "B.PARQUET"))
    assert arrow.train.equal(parquet.train)
    assert [images.report.kind for images in (arrow, parquet) if images.report] == ["Arrow", "Parquet"]


def test_load_hub_uses_no_network_if_download_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(url: str) -> bool:
        raise AssertionError(f"asked for {url}")

    monkeypatch.setattr(hub, "reachable", asked)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    fails("is not in the local cache", "hf:nobody/nothing", download=False)


def test_names_of_splits_include_the_librarys() -> None:
    from datasets.data_files import SPLIT_KEYWORDS

    ours = {"train": "train", "validation": "validation", "test": "test"}
    for split, names in SPLIT_KEYWORDS.items():
        assert {split_of(name) for name in names} == {ours[str(split)]}
    assert split_in("cifar10-Train-00000-of-00002") == "train"
    assert split_in("training_data") == "train"
    assert split_in("contrast") is None


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("mnist", "mnist"),
        ("a/faces.v1.npz", "faces.v1"),
        ("a/faces.v2.parquet", "faces.v2"),
        ("my.folder/", "my.folder"),
        ("hf:owner/name", "name"),
        ("hf:owner/name:small", "name-small"),
        (".", ""),
    ],
)
def test_dataset_stem_is_the_paths_stem_or_the_hubs_name(dataset: str, name: str) -> None:
    assert dataset_stem(dataset) == name
