"""A rate over time, from a table in `traces/`."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nce_sim.config.bundle import bundled, unknown_name
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
    """Load a bundled trace by name, or any by the path of its CSV file.

    Lines that begin with # are comments. Raises InputError, with file and line, for columns other
    than time_s and rate_factor, times that do not rise from 0, and factors below 0 or not finite.
    """
    path = Path(name_or_path)
    if path.suffix != ".csv":
        path = bundled("traces") / f"{name_or_path}.csv"
        if not path.is_file():
            raise unknown_name("trace", str(name_or_path), list_traces())
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as reason:
        raise InputError(f"cannot read {path}: {reason}") from reason
    rows = [
        (f"{path}, line {number}", tuple(cell.strip() for cell in line.split(",")))
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    where, header = rows[0] if rows else (f"{path}, line {len(lines) + 1}", ("nothing",))
    if header != COLUMNS:
        raise InputError(
            f"{where}: the first line but for comments must be {','.join(COLUMNS)}, not "
            f"{','.join(header)}"
        )
    steps: list[tuple[float, float]] = []
    for where, row in rows[1:]:
        step = _step(where, row)
        if not steps and step[0] != 0:
            raise InputError(f"{where}: the first time_s must be 0, not {row[0]}")
        if steps and step[0] <= steps[-1][0]:
            raise InputError(f"{where}: time_s must rise from {steps[-1][0]:g}, not be {row[0]}")
        steps.append(step)
    if not steps:
        raise InputError(f"{where}: at least one line of numbers must follow")
    times, factors = zip(*steps, strict=True)
    return RateTrace(path.stem, times, factors)


def list_traces() -> list[str]:
    """Return the names of the bundled traces."""
    return sorted(path.stem for path in bundled("traces").glob("*.csv"))


def describe_trace(name: str) -> str:
    """Return the first line of a bundled trace, a comment that says what it stands for."""
    with (bundled("traces") / f"{name}.csv").open(encoding="utf-8-sig") as lines:
        first = lines.readline()
    return first.lstrip("#").strip() if first.startswith("#") else ""


def _step(where: str, row: tuple[str, ...]) -> tuple[float, float]:
    if len(row) != len(COLUMNS):
        raise InputError(
            f"{where}: there must be {len(COLUMNS)} columns, {','.join(COLUMNS)}, not {len(row)}"
        )
    numbers = []
    for name, cell in zip(COLUMNS, row, strict=True):
        try:
            numbers.append(float(cell))
        except ValueError as reason:
            raise InputError(f"{where}: {name} must be a number, not '{cell}'") from reason
        check_number(numbers[-1], f"{where}: {name}")
    return numbers[0], numbers[1]
