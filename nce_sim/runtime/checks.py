"""Sampled duplicate execution: which computations of an inference are done twice, and who errs.

A share of what the unprotected lanes compute is computed once more where it comes out right, and
the two stored words are compared. Which computations these are is drawn for each request, whatever
faults strike; their number in each layer is the same every time, so that their cost is, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nce_sim.errors import InputError
from nce_sim.faults.models import check_number
from nce_sim.faults.table import Counts
from nce_sim.machine.lookup import Schedule
from nce_sim.schedule.domains import UNPROTECTED
from nce_sim.seeding import philox, uniforms_at


@dataclass(frozen=True)
class Checks:
    """How much is checked, and how wrong the checks are.

    `share` of the computations on unprotected lanes are checked. A check without a mismatch reports
    one with probability `false_alarm_rate`; of the mismatches `missed_share` go unreported.
    Raises InputError for numbers outside [0, 1], and for checks that know no difference.
    """

    share: float
    false_alarm_rate: float = 0.0
    missed_share: float = 0.0

    def __post_init__(self) -> None:
        check_number(self.share, "Checks: share", 1)
        check_errors(self.false_alarm_rate, self.missed_share)

    def reported_rate(self, mismatches_per_check: float) -> float:
        """Return the mismatches that are reported per check where so many are true."""
        found = mismatches_per_check * (1 - self.missed_share)
        return found + (1 - mismatches_per_check) * self.false_alarm_rate


def check_errors(false_alarm_rate: float, missed_share: float) -> None:
    """Raise InputError unless both are shares that leave a report with a meaning."""
    check_number(false_alarm_rate, "false_alarm_rate", 1)
    check_number(missed_share, "missed_share", 1)
    if false_alarm_rate + missed_share >= 1:
        raise InputError(
            f"false_alarm_rate {false_alarm_rate} and missed_share {missed_share} must add up to "
            f"less than 1: such checks report no more where there is a mismatch than where not"
        )


@dataclass(frozen=True)
class Sample:
    """The computations of one inference that are checked: neurons (within the layer) by layer.

    `errs` has a uniform number for each: it says whether the check of it goes wrong.
    """

    neurons: Mapping[str, Counts]
    errs: Mapping[str, NDArray[np.float64]]


class Sampler:
    """Chooses the computations of each request to check on the machine of a schedule.

    Each neuron has two uniform numbers for each request, whatever the split: of those on
    unprotected lanes the ones with the smallest first number are checked.
    """

    def __init__(self, schedule: Schedule, checks: Checks, seed: int) -> None:
        self.checks, self.seed = checks, seed
        works = [work for work in schedule.program.layers if work.on_array]
        starts = np.cumsum([0, *(work.layer.neurons for work in works)]).tolist()
        self.first = {work.layer.name: start for work, start in zip(works, starts, strict=False)}
        self.unprotected = {
            work.layer.name: np.flatnonzero(
                np.logical_or.reduce([share.mask for share in work.on(UNPROTECTED)])
            )
            for work in works
        }

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Checks of each layer: the share of all, rounded so that the sums are right."""
        up_to = np.cumsum([0, *map(len, self.unprotected.values())])
        checked = np.floor(self.checks.share * up_to + 0.5).astype(np.int64)
        return dict(zip(self.unprotected, np.diff(checked).tolist(), strict=True))

    @cached_property
    def checked(self) -> int:
        """Checks of each inference."""
        return sum(self.counts.values())

    def sample(self, request: int) -> Sample:
        """Return what is checked in the inference of a request."""
        to_choose, to_err = philox(self.seed, "run time/checks", request).random_raw(2).tolist()
        neurons, errs = {}, {}
        for name, count in self.counts.items():
            if count:
                places = self.first[name] + self.unprotected[name]
                chosen = np.argpartition(uniforms_at(to_choose, places), count - 1)[:count]
                neurons[name] = self.unprotected[name][chosen]
                errs[name] = uniforms_at(to_err, places[chosen])
        return Sample(neurons, errs)

    def reported(self, sample: Sample, differs: Mapping[str, NDArray[np.bool_]]) -> int:
        """Return how many mismatches are reported, given the neurons (flat) that differ by layer.

        Layers that `differs` lacks have none.
        """
        total = 0
        for name, neurons in sample.neurons.items():
            wrong = differs[name][neurons] if name in differs else np.zeros(len(neurons), bool)
            errs = np.where(wrong, self.checks.missed_share, self.checks.false_alarm_rate)
            total += int(np.count_nonzero(wrong ^ (sample.errs[name] < errs)))
        return total
