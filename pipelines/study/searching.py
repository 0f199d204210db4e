"""Searches: Tune's ASHA stops bad trainings early."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

REDUCTION = 3  # ASHA keeps a third at each rung
REPORTS = 20  # how often a training tells the scheduler its loss


@dataclass(frozen=True)
class Search:
    """How a Tune scheduler stops trainings early. The trainings of one model and noise level compete; each is a trial.

    Attributes:
        scheduler: makes a scheduler over ``loss`` (the test loss of the curves) by ``epoch``.
        report_epochs: how many epochs lie between two reports to the scheduler.
    """

    scheduler: Callable[[], Any]
    report_epochs: int = 1


def asha_search(epochs: int) -> Search:
    """A search by ASHA among trainings of `epochs` epochs."""
    from ray.tune.schedulers import ASHAScheduler

    least = max(1, epochs // REDUCTION**2)
    asha = partial(ASHAScheduler, time_attr="epoch", max_t=epochs, grace_period=least, reduction_factor=REDUCTION)
    return Search(asha, report_epochs=max(1, epochs // REPORTS))
