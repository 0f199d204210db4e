"""Files and folders that get their name only when they are complete."""

from pathlib import Path

import pytest

from uvb.atomic import replacing


@pytest.mark.parametrize("name", ["a" * 251 + ".png", "ä" * 120 + ".npz"])
def test_replacing_writes_the_longest_names_that_a_disk_takes(name: str, tmp_path: Path) -> None:
    for content in ("first", "second"):
        with replacing(tmp_path / name, durable=False) as temporary:
            assert temporary.suffix == Path(name).suffix  # Pillow and NumPy look at it
            temporary.write_text(content)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "second"
