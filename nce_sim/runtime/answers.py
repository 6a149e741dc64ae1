"""What an inference of a request gives: its answer, and what hardware could see of its faults."""

from dataclasses import dataclass
from typing import Protocol

from nce_sim.runtime.conditions import Conditions


@dataclass(frozen=True)
class Asked:
    """One inference that is about to start: the request, when, and with which split.

    `start_cycle` counts from the start of the mission; `point` is the index of the split in the
    grid. `conditions` are those of the start: they hold for the whole inference.
    """

    request: int
    start_cycle: int
    point: int
    conditions: Conditions


@dataclass(frozen=True)
class Answer:
    """What came of an inference.

    `right` tells whether the class was the label, `clean_right` whether it would have been without
    faults. `checked` computations were done twice, and `mismatches` of them were reported to
    differ. `extra_cycles` and `extra_energy_aj` are what waves that ran again, and the checks,
    added to the latency and the energy of the run; `due` tells whether hardware cried out over an
    error that it could not correct.
    """

    right: bool
    clean_right: bool
    checked: int
    mismatches: int
    extra_cycles: int = 0
    extra_energy_aj: int = 0
    due: bool = False


class Answerer(Protocol):
    """Answers requests: by real inference, or from a measured surface of accuracy."""

    def answer(self, asked: Asked) -> Answer:
        """Return what comes of an inference; the same for the same `asked`, whoever asks."""
