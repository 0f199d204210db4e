"""A study that ends early: the line that it prints, its log, and the signals that end it."""

import os
import signal
from pathlib import Path

import pytest
from ray.exceptions import GetTimeoutError, RayError

from pipelines.errors import CommandFailed
from pipelines.files.store import Store
from pipelines.study import endings
from pipelines.study.endings import heed_signals, translated, undisturbed
from uvb.errors import UserError


def ends(store: Store, error: BaseException) -> BaseException:
    """The error that a study raises when `error` happens in it."""
    with pytest.raises(BaseException) as caught, translated(store):  # noqa: PT011  # the caller checks which
        raise error
    return caught.value


def test_translated_passes_clear_errors_on(tmp_path: Path) -> None:
    for error in (UserError("yours"), CommandFailed("ours"), KeyboardInterrupt()):
        assert ends(Store(tmp_path), error) is error


def test_translated_logs_an_unexpected_error(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_json("study.json", {})
    for error in (ZeroDivisionError("so"), OSError("not the store's doing")):
        line = str(ends(store, error))
        assert "unexpected error" in line
        assert str(tmp_path / "errors.log") in line
        assert "\n" not in line
    assert (tmp_path / "errors.log").read_text().count("Traceback") == 2


def test_translated_names_a_lost_store(tmp_path: Path) -> None:
    error = ends(Store(tmp_path / "gone"), OSError("no route to host"))
    assert isinstance(error, UserError)
    assert "no route to host; when it answers again, run the same command to continue" in str(error)


def test_translated_names_a_bucket_that_is_lost_while_ray_is_alive() -> None:
    error = ends(Store("memory://bucket/study"), ConnectionResetError("reset by peer"))
    assert isinstance(error, UserError)
    assert str(error).startswith("lost memory://bucket/study: ConnectionResetError: reset by peer")
    assert "unexpected" in str(ends(Store("memory://bucket/study"), GetTimeoutError("Ray is slow")))  # an OSError of Ray


def test_translated_asks_whether_ray_has_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead() -> None:
        raise CommandFailed("Ray lost its control server")

    monkeypatch.setattr(endings, "require_alive", dead)
    assert str(ends(Store(tmp_path), RayError("?"))) == "Ray lost its control server"


@pytest.fixture
def handlers():
    before = {number: signal.getsignal(number) for number in endings.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", endings.SIGNALS)
def test_heed_signals_interrupts_a_study(number: int) -> None:
    heed_signals()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


@pytest.mark.usefixtures("handlers")
def test_heed_signals_respects_nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    heed_signals()
    os.kill(os.getpid(), signal.SIGHUP)


@pytest.mark.usefixtures("handlers")
def test_undisturbed_ignores_a_second_interrupt() -> None:
    heed_signals()
    ended = []
    with undisturbed():
        for number in endings.SIGNALS:
            os.kill(os.getpid(), number)
        ended.append(True)
    assert ended
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
