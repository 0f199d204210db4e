"""Read the study's folder for MLflow. A `FolderError` is a failure of the folder; any other error is a failure of MLflow."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.files.masking import masked
from pipelines.files.store import Store
from uvb.errors import UserError, first_line

if TYPE_CHECKING:
    import pandas as pd


class FolderError(UserError):
    """The study's own folder failed, not MLflow."""


class StudyFolder:
    """A study's files. If a file is absent, a method raises FileNotFoundError, unless its docstring says otherwise.

    Raises:
        FolderError: by every method, if the folder cannot be read or written.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.name = store, f"the study's folder {masked(store.uri)}"

    @contextmanager
    def guarded(self) -> Iterator[Store]:
        """Yield the store. Turn an error in the block, other than FileNotFoundError, into a FolderError."""
        try:
            yield self.store
        except FileNotFoundError:
            raise
        except Exception as error:
            raise FolderError(f"{self.name} cannot be read or written ({first_line(error)})") from error

    def stamps(self) -> dict[str, tuple[int, int]]:
        """Path -> (modification time in ns, size) of every file (`Store.stamps`)."""
        with self.guarded() as store:
            return store.stamps()

    def write_json(self, path: str, value: Any) -> None:
        with self.guarded() as store:
            store.write_json(path, value)

    def read_bytes(self, path: str) -> bytes:
        with self.guarded() as store:
            return store.read_bytes(path)

    def read_json(self, path: str) -> Any:
        """The content of a JSON file; None if there is no such file."""
        try:
            with self.guarded() as store:
                return store.read_json(path)
        except FileNotFoundError:
            return None

    def table(self, path: str) -> "pd.DataFrame":
        import pandas as pd

        return pd.read_parquet(io.BytesIO(self.read_bytes(path)))

    def rows(self, path: str) -> list[dict[str, Any]]:
        """The rows of a table; [] if there is no such file."""
        try:
            return self.table(path).to_dict("records")
        except FileNotFoundError:
            return []

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """Yield a local file with the name and content of a file of the study."""
        if self.store.local_path:
            yield self.store.local_path / path
            return
        with tempfile.TemporaryDirectory(prefix="uvb-track-") as scratch:
            local = Path(scratch) / Path(path).name
            local.write_bytes(self.read_bytes(path))
            yield local

    @contextmanager
    def model(self, spec_id: str) -> Iterator[Path]:
        """Yield a trained model as a local folder."""
        with tempfile.TemporaryDirectory(prefix="uvb-track-") as scratch:
            with self.guarded() as store:
                folder = store.download(f"models/{spec_id}/model", None if store.local_path else scratch)
            yield folder
