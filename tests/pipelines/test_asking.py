"""A question to an address: its answer, its error, and how long a command waits for a silent address."""

import threading
import time

import pytest

from pipelines.asking import LEAST_SECONDS, Question, Silent, patience


def test_question_gives_the_answer_and_the_error() -> None:
    assert Question(lambda: 7).answer() == 7
    assert Question(lambda: None).answer() is None
    with pytest.raises(ZeroDivisionError):
        Question(lambda: 1 / 0).answer()


def test_question_runs_while_others_run() -> None:
    """Two questions wait for each other, so both must have begun before either is answered."""
    together = threading.Barrier(2, timeout=60)
    questions = [Question(together.wait, 60.0) for _ in range(2)]
    assert sorted(question.answer() for question in questions) == [0, 1]


def test_question_gives_up_on_silence_and_says_when() -> None:
    question = Question(lambda: time.sleep(60), 0.2)
    time.sleep(0.3)
    with pytest.raises(Silent, match=r"^no answer within [\d.]+ s$") as caught:
        question.answer()
    assert 0.3 < caught.value.seconds < 50


def test_patience_counts_from_the_beginning_and_grows_with_the_load() -> None:
    assert patience(8.0, 0.0) == 8.0
    assert patience(8.0, 4.0) == 4.0  # the libraries took 4 s to load
    assert patience(8.0, 7.0) == LEAST_SECONDS
    assert patience(0.3, 7.0) == pytest.approx(2.1)  # 0.3 times the time that has passed
    assert patience(8.0, 60.0) == pytest.approx(18.0)  # a busy machine also slows the thread that asks
