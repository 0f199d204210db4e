"""Searches, in which Tune's scheduler ASHA stops bad trainings early."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

REDUCTION = 3  # ASHA lets the best third of the trainings go on after each rung
REPORTS = 20  # about how many times a training reports its loss to the scheduler


@dataclass(frozen=True)
class Search:
    """How a Tune scheduler stops trainings early. Each training is a trial. Trainings of one model and noise level compete.

    Attributes:
        scheduler: makes a scheduler that reads ``loss`` (the test loss of the curves) and ``epoch``.
        report_epochs: how many epochs lie between two reports to the scheduler.
    """

    scheduler: Callable[[], Any]
    report_epochs: int


def asha_search(epochs: int) -> Search:
    """A search among trainings of `epochs` epochs, in which ASHA stops bad ones."""
    from ray.tune.schedulers import ASHAScheduler

    least = max(1, epochs // REDUCTION**2)
    asha = partial(ASHAScheduler, time_attr="epoch", max_t=epochs, grace_period=least, reduction_factor=REDUCTION)
    return Search(asha, report_epochs=max(1, epochs // REPORTS))
