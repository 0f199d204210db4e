"""How a study ends before its time: by a signal, by an outage, or by an error that nobody foresaw."""

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

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a polite kill, a closed terminal


@contextmanager
def translated(store: Store) -> Iterator[None]:
    """Turn whatever goes wrong in a study into the one line that its command prints. The only place where this is done.

    Raises:
        UserError: a mistake of the user, or a store that does not answer.
        CommandFailed: Ray has died, or an error nobody foresaw, whose traceback is in a log file.
    """
    try:
        yield
    except (UserError, CommandFailed):
        raise
    except Exception as error:
        if isinstance(error, RayError | ConnectionError):
            require_alive()
        elif isinstance(error, OSError) and not (store.local_path and store.exists("study.json")):
            line = f"lost {masked(store.uri)}: {last_line(error)}; once it answers, the same command goes on"
            raise UserError(line) from error
        log = log_error(error, store)
        raise CommandFailed(
            f"an error that nobody foresaw ended the study ({last_line(error)}); its traceback is in {log}; "
            "the same command goes on from here"
        ) from error


def heed_signals() -> None:
    """Have Ctrl-C, a polite kill and a closed terminal raise KeyboardInterrupt, which ends the study cleanly.

    Ray has handlers of its own, and a shell may ignore Ctrl-C for what runs in its background. `nohup` stays in force.
    """
    for number in SIGNALS if threading.current_thread() is threading.main_thread() else ():
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore signals for a block that ends Ray and MLflow's runs, so that an impatient Ctrl-C leaves neither behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
