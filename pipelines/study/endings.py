"""What ends a study early: a signal, an outage, or an unexpected error."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import RayError

from pipelines.cluster.ray_runtime import require_alive
from pipelines.errors import CommandFailed, last_line, log_error
from pipelines.files.masking import masked
from pipelines.files.store import Store
from uvb.errors import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, `kill`, a closed terminal


@contextmanager
def translated(store: Store) -> Iterator[None]:
    """Turn every error in a block into an error that the command prints as one line.

    Raises:
        UserError: the user made a mistake, or a store does not answer.
        CommandFailed: Ray has died, or the error is unexpected. A log file has the traceback of an unexpected error.
    """
    try:
        yield
    except (UserError, CommandFailed):
        raise
    except Exception as error:
        if isinstance(error, RayError | ConnectionError):
            require_alive()
        of_a_file = isinstance(error, OSError) and not isinstance(error, RayError)  # Ray's GetTimeoutError is an OSError, too
        if of_a_file and not (store.local_path and store.exists("study.json")):
            line = f"lost {masked(store.uri)}: {last_line(error)}; when it answers again, run the same command to continue"
            raise UserError(line) from error
        log = log_error(error, store)
        raise CommandFailed(
            f"an unexpected error ended the study ({last_line(error)}); its traceback is in {log}; "
            "run the same command again to continue"
        ) from error


def heed_signals() -> None:
    """Let Ctrl-C, `kill` and a closed terminal raise KeyboardInterrupt, which ends the study cleanly.

    This replaces Ray's own handlers. A shell starts a background command with SIGINT ignored. After this call such a command
    heeds SIGINT, too. Under `nohup` a study still outlives its terminal. Only the main thread can set handlers. In another
    thread, do nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        under_nohup = number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN
        if not under_nohup:
            signal.signal(number, signal.default_int_handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore signals in a block that ends MLflow's runs and Ray. A second Ctrl-C would leave them running."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
