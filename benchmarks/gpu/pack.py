"""Put the data sets that a lent GPU machine needs into .gpu_data/, which git ignores and `run` carries.

    python -m benchmarks.gpu.pack --data ../shared/data

The folder travels with the working tree, 64 MiB in all, so images are packed by lzma; what is already there is kept.
"""

import argparse
import lzma
import sys
from pathlib import Path

from benchmarks.measure import ROOT, commit
from uvb.data import ImageSet, load_dataset
from uvb.errors import UserError

PLACE = ROOT / ".gpu_data"
LIMIT = 50 * 2**20  # of 64 MiB; the rest is for the working tree


def pack(images: ImageSet, place: Path) -> Path:
    """One ``<name>.safetensors.xz``."""
    place.mkdir(exist_ok=True)
    plain, packed = place / f"{images.name}.safetensors", place / f"{images.name}.safetensors.xz"
    images.save(plain)
    packed.write_bytes(lzma.compress(plain.read_bytes(), preset=6))
    plain.unlink()
    return packed


def unpack(place: Path, scratch: Path) -> dict[str, ImageSet]:
    """Every packed data set by name, checksums verified."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with MNIST/ and cifar10/")
    args = parser.parse_args()
    for name, source in (("mnist", "mnist"), ("cifar10", str(args.data / "cifar10"))):
        if not (PLACE / f"{name}.safetensors.xz").exists():
            try:
                print(f"packing {name} ...", flush=True)
                pack(load_dataset(source, args.data, download=False), PLACE)
            except UserError as error:
                print(f"left out: {error}")
    (PLACE / "commit.txt").write_text(commit() + "\n")
    total = sum(path.stat().st_size for path in PLACE.iterdir())
    print(f"{PLACE.name}/: {', '.join(p.name for p in sorted(PLACE.iterdir()))}; {total / 2**20:.1f} MiB")
    if total > LIMIT:
        sys.exit(f"{total / 2**20:.0f} MiB is over {LIMIT / 2**20:.0f}; remove a data set from {PLACE.name}/")


if __name__ == "__main__":
    main()
