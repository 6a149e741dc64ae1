"""A rate over time, from a table in `traces/`."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nce_sim.config.trace_table import read_trace
from nce_sim.errors import InputError
from nce_sim.faults.models import check_number

COLUMNS = ("time_s", "rate_factor")


@dataclass(frozen=True)
class RateTrace:
    """Factors of a rate, each from its time on; the last one holds for ever.

    `time_s` rises from 0; both have one entry a step.
    """

    name: str
    time_s: tuple[float, ...]
    rate_factor: tuple[float, ...]

    def __post_init__(self) -> None:
        times = self.time_s
        if len(times) != len(self.rate_factor):
            raise InputError(
                f"RateTrace: time_s and rate_factor must have equally many entries, not "
                f"{len(times)} and {len(self.rate_factor)}"
            )
        for name in COLUMNS:
            for value in getattr(self, name):
                check_number(value, f"RateTrace: {name}")
        if not times or times[0] != 0 or any(b <= a for a, b in pairwise(times)):
            raise InputError(f"RateTrace: time_s must rise from 0, not {list(times)}")

    @property
    def largest(self) -> float:
        """The largest factor."""
        return max(self.rate_factor)

    def at(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the factor at each time since the start of the mission."""
        place = np.searchsorted(np.array(self.time_s), seconds, side="right") - 1
        return np.array(self.rate_factor)[np.maximum(place, 0)]


def load_trace(name_or_path: str | Path) -> RateTrace:
    """Load the rates of a bundled trace by name, or of any by the path of its CSV file.

    Other columns of the trace play no part. Raises InputError as `read_trace` does, and for a trace
    without rate_factor.
    """
    table = read_trace(name_or_path, needed="rate_factor")
    return RateTrace(table.name, table.columns["time_s"], table.columns["rate_factor"])
