"""Every reader of a user's path refuses pipes and devices at once, because reading a pipe could wait for ever."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.study.config import StudyConfig
from pipelines.study.presets import read_preset
from uvb.data import load_dataset
from uvb.data.readers.pictures import read_pictures
from uvb.errors import UserError
from uvb.regular import regular

READERS: dict[str, Callable[[Path], object]] = {
    "a.png": lambda path: read_pictures(path, (1, 8, 8), 1.0),
    "b.npy": lambda path: read_pictures(path, (1, 8, 8), 1.0),
    "c.npz": lambda path: load_dataset(str(path)),
    "d.parquet": lambda path: load_dataset(str(path)),
    "e.arrow": lambda path: load_dataset(str(path)),
    "f.yaml": lambda path: read_preset(path, StudyConfig),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_readers_refuse_pipes_and_devices_in_one_line(
    name: str, make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UVB_CACHE", str(tmp_path / "cache"))
    make(tmp_path / name)
    with pytest.raises(UserError, match="not a regular file") as caught:
        READERS[name](tmp_path / name)
    assert "\n" not in str(caught.value)


def test_regular_lets_files_and_absent_paths_pass(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert regular(tmp_path / "file") == tmp_path / "file"
    assert regular(tmp_path / "absent") == tmp_path / "absent"
    with pytest.raises(OSError, match="not a regular file"):
        regular(tmp_path)
