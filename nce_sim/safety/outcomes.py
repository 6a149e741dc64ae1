"""What one fault does: the probabilities that it ends in a wrong answer, or in none."""

from dataclasses import dataclass

from nce_sim.config.voltage_curves import Range
from nce_sim.safety.ranges import ONE, ZERO


@dataclass(frozen=True)
class Outcome:
    """Probabilities, given one fault of a class in an element, at a uniform place and time.

    `sdc`: an answer other than without faults, and nobody notices (SDC-1); `critical_sdc`: a right
    answer becomes a wrong one; `due`: detected, and not repaired. `source` says how it is known,
    `behind_scheme` whether it holds behind the element's protection scheme already.
    """

    sdc: Range
    critical_sdc: Range
    due: Range
    source: str
    behind_scheme: bool


WORST = Outcome(
    ONE,
    ONE,
    ZERO,
    "not injected: every fault is taken to end in a wrong answer",
    behind_scheme=False,
)  # fmt: skip

"""For what cannot be injected."""

DETECTED = Outcome(
    ZERO, ZERO, ONE, "not injected: a wrong check bit is taken for a wrong word", behind_scheme=True
)
"""For check bits of a code that detects and does not correct."""


def of_one_fault(share: Range, faults: int) -> Range:
    """Return the probability of an event for one fault from its share under several at once.

    Faults that strike at independent places and times and do not act together leave no event with
    probability (1 - p)^n, so p = 1 - (1 - share)^(1/n). Monotone, so that ends stay ends.
    """
    return Range(*(1 - (1 - each) ** (1 / faults) for each in share))
