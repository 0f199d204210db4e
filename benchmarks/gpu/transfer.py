"""Pack data sets for a lent GPU, and collect its results.

    python -m benchmarks.gpu.transfer pack --data ../shared/data     before a lease: writes .gpu_data/, which git ignores
    python -m benchmarks.gpu.transfer collect FOLDER                 after a call: FOLDER has what the call wrote to --out

A lease is the time for which the GPU machine is lent. A call is one command on that machine.

`collect` replaces unfinished trainings, but no finished training. It keeps the newest check of each name, and the newest row
of each name and kind of GPU.
"""

import argparse
import io
import json
import lzma
import shutil
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from benchmarks import bench
from benchmarks.gpu.ledger import write_json
from benchmarks.measure import ROOT, commit
from uvb.data import ImageSet, load_dataset
from uvb.errors import UserError
from uvb.experiments.walk_jump import statistics

PACKED = ROOT / ".gpu_data"
RESULTS = ROOT / "results" / "h200"
PACKED_LIMIT = 50 * 2**20  # a lease carries 64 MiB to the GPU machine, and the working tree needs the rest
ARCHIVE_LIMIT = 15 * 2**20  # a lease brings back files of at most 16 MiB
ARRAYS_BYTES = 600_000  # the most bytes of arrays that are kept of one experiment on one model
LEDGER = ("bench.json", "checks.json", "failures.json")  # rows of benchmarks, checks, failed jobs: benchmarks/gpu/ledger.py


def pack(images: ImageSet, place: Path) -> Path:
    """Write the images to ``<name>.safetensors.xz`` in `place`. Return its path."""
    place.mkdir(exist_ok=True)
    plain, packed = place / f"{images.name}.safetensors", place / f"{images.name}.safetensors.xz"
    images.save(plain)
    packed.write_bytes(lzma.compress(plain.read_bytes(), preset=6))
    plain.unlink()
    return packed


def unpack(place: Path, scratch: Path) -> dict[str, ImageSet]:
    """Read all packed data sets and verify their checksums. Return the sets by name."""
    scratch.mkdir(parents=True, exist_ok=True)
    sets: dict[str, ImageSet] = {}
    for packed in sorted(place.glob("*.safetensors.xz")):
        plain = scratch / packed.stem
        if not plain.exists():
            part = plain.with_suffix(".part")
            part.write_bytes(lzma.decompress(packed.read_bytes()))
            part.replace(plain)
        images = ImageSet.load(plain)
        sets[images.name] = images
    return sets


def files_of(study: Path, spec_id: str) -> list[Path]:
    """A model's own JSON files and its experiments' results, without weights and checkpoints."""
    return sorted([*(study / "models" / spec_id).glob("*.json"), *study.glob(f"tasks/*/{spec_id}/*")])


def bundle(study: Path, out: Path, spec_ids: Sequence[str]) -> None:
    """Put the ledger and the models `spec_ids` into out/results*.tar.gz. Begin a new archive before one becomes too large."""
    parts: list[list[tuple[str, bytes]]] = [[]]
    for files in ([study / name for name in LEDGER], *(files_of(study, spec_id) for spec_id in spec_ids)):
        together = [(str(path.relative_to(study)), slim(path)) for path in files if path.exists()]
        if sum(len(content) for _, content in parts[-1] + together) > ARCHIVE_LIMIT:
            parts.append([])
        parts[-1] += together
    out.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(parts):
        name = out / f"results{number or ''}.tar.gz"
        with tarfile.open(name.with_suffix(".part"), "w:gz") as tar:
            for path, content in part:
                member = tarfile.TarInfo(path)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        name.with_suffix(".part").replace(name)


def slim(path: Path) -> bytes:
    """A file's content. Large arrays become float16. If arrays exceed ARRAYS_BYTES together, the largest are left out."""
    if path.suffix != ".safetensors":
        return path.read_bytes()
    arrays: dict[str, Tensor] = {}
    size = 0
    for name, array in sorted(load_file(path).items(), key=lambda item: item[1].numel()):
        small = array.half() if array.is_floating_point() and array.numel() > 20_000 else array
        size += small.nbytes
        if size <= ARRAYS_BYTES:
            arrays[name] = small.contiguous()
    return save(arrays)


def finished(study: Path, spec_id: str) -> bool:
    """Whether a training and all its experiments have ended."""
    return (study / "models" / spec_id / "measured.json").exists()


def collect(source: Path, target: Path) -> Iterator[str]:
    """Copy the archives below `source` into `target`. Yield each ledger file's name and each model's spec_id."""
    target.mkdir(parents=True, exist_ok=True)
    for archive in sorted(source.rglob("results*.tar.gz")):
        with TemporaryDirectory() as scratch:
            new = Path(scratch)
            with tarfile.open(archive) as tar:
                tar.extractall(new, filter="data")
            for name in LEDGER:
                if (new / name).exists():
                    write_json(target / name, merged(new / name, target / name))
                    yield name
            for model in sorted((new / "models").glob("*")):
                if finished(target, model.name):
                    continue
                for old in (target / "models" / model.name, *target.glob(f"tasks/*/{model.name}")):
                    shutil.rmtree(old, ignore_errors=True)
                for path in files_of(new, model.name):
                    kept = target / path.relative_to(new)
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, kept)
                fill_mixing(target, model.name)
                yield f"{model.name}{'' if finished(target, model.name) else ' (unfinished)'}"


def merged(new: Path, old: Path) -> Any:
    """The content of `new`, and the entries that only `old` has.

    The key of a row is its machine and name. The key of any other entry is its name.
    """
    blob = json.loads(new.read_text())
    before = json.loads(old.read_text()) if old.exists() else None
    if not before:
        return blob
    if isinstance(blob, list):
        return list({(row["machine"], row["name"]): row for row in (*before, *blob)}.values())
    if "checks" in blob:
        return blob | {"checks": before["checks"] | blob["checks"]}
    return before | blob


def fill_mixing(study: Path, spec_id: str) -> None:
    """Add to the results of walks the statistics that need ArviZ, because the GPU machine lacks ArviZ."""
    for path in study.glob(f"tasks/walk_jump*/{spec_id}/result.json"):
        blob, stored = json.loads(path.read_text()), path.with_name("arrays.safetensors")
        if not blob.get("variants") or not stored.exists():
            continue
        arrays = load_file(stored)
        stopped = {row["chain"] for row in blob["diverged"]}
        sound = [chain for chain in range(arrays["energy"].shape[1]) if chain not in stopped]
        series = {"scores": arrays["scores"], "scores2": arrays["scores2"], "energy": arrays["energy"][:, sound]}
        told = {"scores": blob["variants"]["jump"], "scores2": blob["variants"]["second_jump"], "energy": blob["energy"]}
        for name, figures in told.items():
            if figures["iat"] is None:
                figures.update(statistics(series[name].float(), blob["steps_per_jump"]))
        write_json(path, blob)


def pack_all(data: Path) -> None:
    for name, source in (("mnist", "mnist"), ("cifar10", str(data / "cifar10"))):
        if not (PACKED / f"{name}.safetensors.xz").exists():
            try:
                print(f"packing {name} ...", flush=True)
                pack(load_dataset(source, data, download=False), PACKED)
            except UserError as error:
                print(f"left out: {error}")
    if not [*PACKED.glob("*.safetensors.xz")]:
        sys.exit(f"nothing is packed: put MNIST/ or cifar10/ into {data}, or name the folder that holds them with --data")
    (PACKED / "commit.txt").write_text(commit() + "\n")
    total = sum(path.stat().st_size for path in PACKED.iterdir())
    print(f"{PACKED.name}/: {', '.join(p.name for p in sorted(PACKED.iterdir()))}; {total / 2**20:.1f} MiB")
    if total > PACKED_LIMIT:
        sys.exit(f"{total / 2**20:.0f} MiB is over {PACKED_LIMIT / 2**20:.0f} MiB: remove a data set from {PACKED.name}/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    data = ROOT.parent / "shared" / "data"
    commands.add_parser("pack").add_argument("--data", type=Path, default=data, help="folder with MNIST/ and cifar10/")
    collecting = commands.add_parser("collect")
    collecting.add_argument("source", type=Path)
    collecting.add_argument("--target", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.command == "pack":
        return pack_all(args.data)
    taken = list(collect(args.source, args.target))
    if not taken:
        sys.exit(f"no new results*.tar.gz below {args.source}")
    print("\n".join(taken))
    if args.target == RESULTS:
        bench.write(bench.gpu_rows(), bench.PLACE)


if __name__ == "__main__":
    main()
