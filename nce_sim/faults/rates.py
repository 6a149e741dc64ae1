"""A rate over time, from a table in `traces/`."""

import csv
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nce_sim.config.bundle import bundled, unknown_name
from nce_sim.errors import InputError

COLUMNS = ("time_s", "rate_factor")


@dataclass(frozen=True)
class RateTrace:
    """Factors of a rate, each from its time on; the last one holds for ever.

    `time_s` rises from 0; both have one entry a step.
    """

    name: str
    time_s: tuple[float, ...]
    rate_factor: tuple[float, ...]

    @property
    def largest(self) -> float:
        """The largest factor."""
        return max(self.rate_factor)

    def at(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the factor at each time since the start of the mission."""
        place = np.searchsorted(np.array(self.time_s), seconds, side="right") - 1
        return np.array(self.rate_factor)[np.maximum(place, 0)]


def load_trace(name_or_path: str | Path) -> RateTrace:
    """Load a bundled trace by name, or any by the path of its CSV file.

    Lines that begin with # are comments. Raises InputError, with file and line, for columns other
    than time_s and rate_factor, times that do not rise from 0, and factors below 0 or not finite.
    """
    path = Path(name_or_path)
    if path.suffix != ".csv":
        path = bundled("traces") / f"{name_or_path}.csv"
        if not path.is_file():
            known = [each.stem for each in bundled("traces").glob("*.csv")]
            raise unknown_name("trace", str(name_or_path), known)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as reason:
        raise InputError(f"cannot read {path}: {reason}") from reason
    numbered = [
        (number, line) for number, line in enumerate(lines, 1)
        if line.strip() and not line.startswith("#")
    ]  # fmt: skip
    rows = list(csv.reader(line for _, line in numbered))
    if not rows or tuple(rows[0]) != COLUMNS:
        found = "nothing" if not rows else ",".join(rows[0])
        raise InputError(f"{path}: the first line must be {','.join(COLUMNS)}, not {found}")
    steps = [_step(path, number, row) for (number, _), row in zip(numbered[1:], rows[1:],
             strict=True)]  # fmt: skip
    if not steps or steps[0][0] != 0:
        raise InputError(f"{path}: the first time_s must be 0")
    for (number, _), before, after in zip(numbered[2:], steps, steps[1:], strict=False):
        if after[0] <= before[0]:
            raise InputError(f"{path}, line {number}: time_s {after[0]:g} does not rise")
    times, factors = zip(*steps, strict=True)
    return RateTrace(path.stem, times, factors)


def _step(path: Path, number: int, row: list[str]) -> tuple[float, float]:
    where = f"{path}, line {number}"
    if len(row) != len(COLUMNS):
        raise InputError(f"{where}: {len(row)} columns in place of {len(COLUMNS)}")
    try:
        time_s, factor = (float(cell) for cell in row)
    except ValueError as reason:
        raise InputError(f"{where}: not a number: {reason}") from reason
    if not (isfinite(time_s) and isfinite(factor)) or factor < 0:
        raise InputError(f"{where}: rate_factor is a number of at least 0, not {row[1]}")
    return time_s, factor
