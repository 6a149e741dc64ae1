"""The tables of `traces/`: what changes over the time of a mission, as CSV.

`time_s` comes first; the other columns name what holds from that time on. Lines that begin with #
are comments, the first of which says what the table stands for.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from nce_sim.config.bundle import bundled, unknown_name
from nce_sim.errors import InputError

TIME = "time_s"
ABSOLUTE_ZERO_C = -273.15


@dataclass(frozen=True)
class Allowed:
    """Which numbers a column may hold, in words and as a test."""

    words: str
    test: Callable[[float], bool]


AT_LEAST_ZERO = Allowed("a number of at least 0", lambda value: value >= 0)
COLUMNS: Mapping[str, Allowed] = {
    TIME: AT_LEAST_ZERO,
    "rate_factor": AT_LEAST_ZERO,
    "dead_share": Allowed("a number from 0 to 1", lambda value: 0 <= value <= 1),
    "temperature_c": Allowed(
        f"a number above {ABSOLUTE_ZERO_C}", lambda value: value > ABSOLUTE_ZERO_C
    ),
    "supply_v": Allowed("a number above 0", lambda value: value > 0),
    "power_budget_mw": Allowed("a number above 0", lambda value: value > 0),
}
"""Every column that a table may have."""

CONDITIONS = tuple(name for name in COLUMNS if name != TIME)


@dataclass(frozen=True)
class TraceTable:
    """A table by column; all columns have one entry a step, and `time_s` rises from 0."""

    name: str
    columns: Mapping[str, tuple[float, ...]]


def read_trace(name_or_path: str | Path, needed: str | None = None) -> TraceTable:
    """Read a bundled table by name, or any by the path of its CSV file.

    It must have the column `needed`, or any one beside `time_s` if that is None. Raises InputError,
    with file and line, for a file that cannot be read or holds no table, for columns that are
    missing, unknown or there twice, for lines of another length, times that do not rise from 0, and
    cells that are empty or no number that is allowed in their column.
    """
    path = _path_of(name_or_path)
    lines = rows(path)
    where, header = next(lines)
    _check_header(where, header, needed)
    steps: list[list[float]] = []
    for where, cells in lines:
        step = _step(where, header, cells)
        if not steps and step[0] != 0:
            raise InputError(f"{where}: the first {TIME} must be 0, not {cells[0]}")
        if steps and step[0] <= steps[-1][0]:
            raise InputError(f"{where}: {TIME} must rise from {steps[-1][0]:g}, not be {cells[0]}")
        steps.append(step)
    if not steps:
        raise InputError(f"{where}: at least one line of numbers must follow")
    columns = dict(zip(header, zip(*steps, strict=True), strict=True))
    return TraceTable(path.stem, columns)


def rows(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield place and cells of every line that is neither empty nor a comment, one at a time.

    A file without any yields "nothing" at the line after its last. Raises InputError if the file
    cannot be read.
    """
    number, found = 0, False
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip() and not line.lstrip().startswith("#"):
                    found = True
                    yield f"{path}, line {number}", tuple(map(str.strip, line.split(",")))
    except (OSError, UnicodeDecodeError) as reason:
        raise InputError(f"cannot read {path}: {reason}") from reason
    if not found:
        yield f"{path}, line {number + 1}", ("nothing",)


def number_in(where: str, column: str, cell: str) -> float:
    """Return the number in a cell; raises InputError if its column does not allow it."""
    try:
        value = float(cell)
    except ValueError as reason:
        raise InputError(f"{where}: {column} must be a number, not '{cell}'") from reason
    allowed = COLUMNS[column]
    if not isfinite(value) or not allowed.test(value):
        raise InputError(f"{where}: {column} must be {allowed.words}, not {cell}")
    return value


def list_traces() -> list[str]:
    """Return the names of the bundled traces."""
    return sorted(path.stem for path in bundled("traces").glob("*.csv"))


def describe_trace(name: str) -> str:
    """Return the first line of a bundled trace, a comment that says what it stands for."""
    with (bundled("traces") / f"{name}.csv").open(encoding="utf-8-sig") as lines:
        first = lines.readline()
    return first.lstrip("#").strip() if first.startswith("#") else ""


def _path_of(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix == ".csv":
        return path
    path = bundled("traces") / f"{name_or_path}.csv"
    if not path.is_file():
        raise unknown_name("trace", str(name_or_path), list_traces())
    return path


def _check_header(where: str, header: tuple[str, ...], needed: str | None) -> None:
    """Refuse a header unless it begins with time_s, and has no column that is not known."""
    wanted = f"{TIME} and any of {', '.join(CONDITIONS)}" if needed is None else f"{TIME},{needed}"
    said = f"{where}: the first line but for comments must be {wanted}, not {','.join(header)}"
    unknown = [name for name in header if name not in COLUMNS]
    if header[0] != TIME or len(header) == 1 or (needed is not None and needed not in header):
        raise InputError(said)
    if unknown:
        known = ", ".join(CONDITIONS)
        raise InputError(f"{said}: '{unknown[0]}' is no column of a trace, but {known} are")
    if len(set(header)) < len(header):
        raise InputError(f"{said}: a column stands there twice")


def _step(where: str, header: tuple[str, ...], cells: tuple[str, ...]) -> list[float]:
    if len(cells) != len(header):
        raise InputError(
            f"{where}: there must be {len(header)} columns, {','.join(header)}, not {len(cells)}"
        )
    return [number_in(where, name, cell) for name, cell in zip(header, cells, strict=True)]
