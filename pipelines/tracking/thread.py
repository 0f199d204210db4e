"""The thread that keeps MLflow up to date with a running study, and the addresses of the study in MLflow."""

import threading

from pipelines.tracking.address import local_tracking_uri
from pipelines.tracking.projection import Status
from pipelines.tracking.tracker import Tracker

SYNC_SECONDS = 4.0  # how often MLflow is brought up to date


class Tracking:
    """A thread that connects to MLflow while Ray starts, and then brings MLflow up to date every few seconds."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker, self.stopping = tracker, threading.Event()
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.tracker.start()
            while not self.stopping.wait(SYNC_SECONDS):
                self.tracker.sync()
        except Exception as error:  # `check` raises it in the driver's thread
            self.error = error

    def check(self) -> None:
        """Raise the error that ended the thread, if there was one."""
        if self.error:
            raise self.error

    def sync(self) -> None:
        """Bring MLflow up to date now. First raise the error that ended the thread, if there was one."""
        self.check()
        self.tracker.sync()

    def finish(self, status: Status) -> None:
        """End all runs. If the thread is still connecting to MLflow, wait for it, at most until MLflow's requests time out."""
        self.stopping.set()
        self.thread.join()
        self.tracker.finish(status)


def views(tracker: Tracker) -> list[str]:
    """Lines that say where MLflow shows the study."""
    uri, paths = tracker.tracking_uri, tracker.view_paths
    if not paths:
        return []
    served = uri.startswith(("http://", "https://"))
    start = "make ui" if uri == local_tracking_uri() else f"mlflow ui --backend-store-uri {uri}"
    address = uri.rstrip("/") if served else "http://127.0.0.1:5000"
    return [
        "in MLflow" if served else f"in MLflow, after `{start}`",
        f"  the models:    {address}{paths['models']}",
        f"  loss over σ:   {address}{paths['sigma']}",
    ]
