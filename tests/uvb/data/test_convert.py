"""The cache of converted sets. A set is converted once, in parallel, and again if its files change.

After a kill the next command continues the conversion. An unfinished conversion is never taken for a finished one.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tests.support.data_helpers import fails, pixels, png, put, put_classes, same_images, seed_zero_order, write_parquet
from uvb.data import ImageSet, cache, convert, image_file, image_set, load_dataset
from uvb.data.image_file import Contents, ImageFile
from uvb.data.readers.decode import Target
from uvb.errors import UserError


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UVB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    put_classes(tmp_path / "faces", 6, "ant", "bee")
    return tmp_path / "faces"


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list. From now on, the number of each piece that this process decodes is appended to the list."""
    seen: list[int] = []
    run = convert.Job.run

    def noted(job: convert.Job, piece: int, file: ImageFile, target: Target) -> int:
        seen.append(piece)
        return run(job, piece, file, target)

    monkeypatch.setattr(convert.Job, "run", noted)
    return seen


def test_convert_runs_once_for_a_set(faces: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = decoded(monkeypatch)
    first, again = load_dataset(str(faces)), load_dataset(str(faces))
    assert seen == [0]
    assert same_images(first, again)
    assert (first.checksum, first.report, first.classes) == (again.checksum, again.report, again.classes)
    assert sorted(path.name for path in empty_cache.rglob("*") if path.is_file()) == sorted(
        [f"{first.checksum}.safetensors", *(path.name for path in (empty_cache / "sources").iterdir())]
    )


def let_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next `cache.find` find nothing, as if another process wrote the set while this one waited for the lock."""
    find = cache.find

    def nothing(fingerprint: str, name: str) -> None:
        monkeypatch.setattr(cache, "find", find)

    monkeypatch.setattr(cache, "find", nothing)


def test_convert_leaves_nothing_when_another_process_converted_the_set(
    faces: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, seen = load_dataset(str(faces)), decoded(monkeypatch)
    let_wait(monkeypatch)
    assert load_dataset(str(faces)).checksum == first.checksum
    assert seen == []
    assert not list((empty_cache / "work").iterdir())


def test_workplace_lets_one_in_at_a_time_and_leaves_nothing(empty_cache: Path) -> None:
    def work(_: int) -> None:
        with cache.workplace("key") as folder:
            (folder / "images.part").touch(exist_ok=False)  # fails if another one is in the folder
            time.sleep(0.002)
            cache.clear(folder)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert not list((empty_cache / "work").iterdir())


def test_workplace_keeps_the_files_of_an_interrupted_conversion(empty_cache: Path) -> None:
    with cache.workplace("key") as folder:
        (folder / "images.part").touch()
    with cache.workplace("key") as folder:
        assert [path.name for path in folder.iterdir()] == ["images.part"]


@pytest.mark.parametrize("change", ["written", "added", "removed", "renamed"])
def test_convert_runs_again_when_files_change(faces: Path, change: str) -> None:
    before = load_dataset(str(faces))
    picture = faces / "ant" / "000.png"
    if change == "written":
        picture.write_bytes(png(pixels(1, 4, 4, seed=77)[0]))
    elif change == "added":
        put(faces / "ant" / "999.png", png(pixels(1, 4, 4, seed=77)[0]))
    elif change == "removed":
        picture.unlink()
    else:
        picture.rename(faces / "bee" / "moved.png")
    assert load_dataset(str(faces)).checksum != before.checksum


def test_cache_keeps_equal_images_of_two_paths_in_one_file(faces: Path, tmp_path: Path, empty_cache: Path) -> None:
    shutil.copytree(faces, tmp_path / "copy")
    first, second = load_dataset(str(faces)), load_dataset(str(tmp_path / "copy"))
    assert (first.checksum, first.name, second.name) == (second.checksum, "faces", "copy")
    assert len(list((empty_cache / "sets").iterdir())) == 1


@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed"])
def test_cache_mends_a_damaged_file(faces: Path, empty_cache: Path, damage: str) -> None:
    whole = load_dataset(str(faces)).train.clone()
    (file,) = (empty_cache / "sets").iterdir()
    content = bytearray(file.read_bytes())
    file.unlink()
    if damage != "removed":
        content[-1] ^= 1
        file.write_bytes(content if damage == "flipped" else content[:-7])
    assert torch.equal(load_dataset(str(faces)).train, whole)


def test_convert_gives_the_same_set_with_many_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the last images is in colour, so all images must be read again. Even then the sets are equal."""
    array = pixels(3000, 2, 2)
    images: list[bytes | None] = [png(image) for image in array]
    images[2900] = png(pixels(1, 2, 2, 3)[0])
    path = write_parquet(tmp_path / "a.parquet", images)
    one = load_dataset(str(path))
    assert one.shape == (3, 2, 2)
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(convert, "FEW", 100)
    monkeypatch.setattr(convert, "usable_cpus", lambda: 3)
    assert load_dataset(str(path)).checksum == one.checksum


def test_convert_names_the_first_bad_image_with_many_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images: list[bytes | None] = [png(image) for image in pixels(3000, 2, 2)]
    images[1700] = images[2900] = b"no image"
    monkeypatch.setattr(convert, "FEW", 100)
    fails("row 1700 is not an image that can be read", write_parquet(tmp_path / "a.parquet", images))


SLOW_LOADER = """
import signal, sys, time
from uvb.data import convert, load_dataset
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores SIGINT
run = convert.Job.run
def slow(self, piece, *rest):
    time.sleep(0.3)
    return run(self, piece, *rest)
def progress(done, total):
    print(done, total, flush=True)
    if done > 1500:
        time.sleep(60)  # the test ends this process now
convert.Job.run, convert.SYNC_SECONDS = slow, 0.0
print(load_dataset(sys.argv[1], progress=progress).checksum)
"""


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_convert_continues_after_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signal_number: int) -> None:
    array = pixels(5000, 2, 2)
    path = write_parquet(tmp_path / "a.parquet", [png(image) for image in array])
    command = [sys.executable, "-c", SLOW_LOADER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as loader:
        assert loader.stdout is not None
        for _ in range(3):
            loader.stdout.readline()
        loader.send_signal(signal_number)
        loader.wait(20)
    journal = next((tmp_path / "cache" / "work").glob("*/journal"))
    written = len(journal.read_text().splitlines()) - 1  # the first line names the set
    assert written >= 2
    seen = decoded(monkeypatch)
    monkeypatch.setattr(convert, "FEW", 1 << 30)
    images = load_dataset(str(path))
    assert len(seen) == 8 - written  # the file has 8 pieces
    assert np.array_equal(images.train[:, 0].numpy(), array[seed_zero_order(5000)[500:]])
    assert not list((tmp_path / "cache" / "work").iterdir())


def test_convert_leaves_no_processes_when_it_is_killed(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [png(image) for image in pixels(5000, 2, 2)])
    with subprocess.Popen([sys.executable, "-c", SLOW_LOADER, str(path)], stdout=subprocess.PIPE, text=True) as loader:
        assert loader.stdout is not None
        loader.stdout.readline()
        children = [int(pid) for pid in Path(f"/proc/{loader.pid}/task/{loader.pid}/children").read_text().split()]
        loader.kill()
        loader.wait(20)
    assert children
    for _ in range(50):
        if not any(_running(pid) for pid in children):
            return
        time.sleep(0.1)
    pytest.fail("processes are left")


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"  # a zombie has ended
    except OSError:
        return False


def test_convert_refuses_files_that_change_while_it_reads(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = convert.Job.run

    def meddled(job: convert.Job, piece: int, file: ImageFile, target: Target) -> int:
        put(faces / "ant" / "new.png", png(pixels(1, 4, 4, seed=5)[0]))
        return run(job, piece, file, target)

    monkeypatch.setattr(convert.Job, "run", meddled)
    fails(": files changed while they were read; run again", faces)


def test_cache_says_in_one_line_that_it_cannot_be_written(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in the way").write_text("")
    monkeypatch.setenv("UVB_CACHE", str(tmp_path / "in the way"))
    fails("cannot write the cache of images .*UVB_CACHE", faces)
    monkeypatch.setenv("UVB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 100, 0))
    fails("where 0.0 GB are free; free some space, or set UVB_CACHE", faces)


def test_image_set_load_does_not_read_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checksum comes from the header. A flipped pixel is noticed when the file is fetched, not when it is loaded."""
    monkeypatch.setattr(image_set, "VERIFIED_BYTES", 0)
    images = ImageSet("small", torch.from_numpy(pixels(6, 1, 4, 4)), torch.from_numpy(pixels(2, 1, 4, 4)), classes=("a", "b"))
    path = tmp_path / "images.safetensors"
    images.save(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    back = ImageSet.load(path)
    assert (back.checksum, back.classes, back.brightest) == (images.checksum, ("a", "b"), int(images.train.max()))


def test_cache_files_are_safetensors(faces: Path) -> None:
    images = load_dataset(str(faces))
    with safe_open(cache.set_path(images.checksum), framework="pt") as file:
        assert torch.equal(file.get_tensor("train"), images.train)
        assert json.loads(file.metadata()["classes"]) == ["ant", "bee"]


def test_image_file_hashes_training_and_test_images_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_file, "BLOCK_BYTES", 3 * 16)
    assert image_file.block_ranges(7, 4, 3) == [(0, 3), (3, 6), (6, 7), (7, 10), (10, 11)]
    array = pixels(11, 1, 4, 4)
    file = ImageFile(tmp_path / "a.safetensors", Contents("a", (1, 4, 4), 7, 4))
    file.create()
    file.write(array[::-1], np.arange(11)[::-1].copy())
    checksum, survey = file.seal()
    images = ImageSet("a", torch.from_numpy(array[:7]), torch.from_numpy(array[7:]))
    assert checksum == images.checksum == ImageSet.load(file.path).checksum
    assert (survey.darkest, survey.brightest) == (int(array.min()), int(array.max()))
    assert survey.mean == pytest.approx(array[:7].mean())


def test_validation_writes_a_large_set_once_and_equals_the_set_in_memory(
    faces: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = load_dataset(str(faces)).validation()
    monkeypatch.setattr(image_set, "VERIFIED_BYTES", 0)
    for _ in range(2):
        mapped = load_dataset(str(faces)).validation()
        assert (mapped.checksum, mapped.name, mapped.classes) == (in_memory.checksum, "faces-validation", ("ant", "bee"))
    assert len(list((empty_cache / "sets").iterdir())) == 2
    assert mapped.report is not None
    assert [split.images for split in mapped.report.splits] == [8, 2]
    assert not list((empty_cache / "work").iterdir())


def test_validation_does_not_write_a_set_that_another_process_wrote(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_set, "VERIFIED_BYTES", 0)
    images = load_dataset(str(faces))
    written = images.validation()
    let_wait(monkeypatch)
    monkeypatch.setattr(ImageFile, "fill", lambda *_: pytest.fail("the set is written again"))
    assert images.validation().checksum == written.checksum


def test_image_set_load_refuses_false_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for content in (b"", b"\xff" * 100, (8).to_bytes(8, "little") + b"not json", (2).to_bytes(8, "little") + b"{}"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not an image set, or damaged"):
            ImageSet.load(path)
