"""The splits among which a policy chooses, as the machine was simulated with each."""

from collections.abc import Mapping
from dataclasses import dataclass

from nce_sim.machine.engine import Run
from nce_sim.resilience.split import Split


@dataclass(frozen=True)
class GridPoint:
    """One split on the machine: `run` has its schedule, latency and energy."""

    fraction: float
    split: Split
    run: Run


@dataclass(frozen=True)
class Transition:
    """What changing from one split to another takes, beyond draining the inference under way."""

    cycles: int
    energy_aj: int


@dataclass(frozen=True)
class Grid:
    """Splits in order of rising unprotected fraction, and what changing between them takes.

    `transitions` has an entry for each ordered pair of different indices.
    """

    points: tuple[GridPoint, ...]
    transitions: Mapping[tuple[int, int], Transition]
