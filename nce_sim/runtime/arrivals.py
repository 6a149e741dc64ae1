"""When requests arrive: a stream that is drawn as it is read, however long it is.

Random numbers are addressed by the number of the request, or of its burst, in blocks: the same
request arrives at the same time whoever asks, and no more than a block is ever kept.
"""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np

from nce_sim.config.scenario import (
    BurstArrivals,
    PeriodicArrivals,
    PoissonArrivals,
    Requests,
    TraceArrivals,
)
from nce_sim.config.trace_table import TIME, number_in, rows
from nce_sim.errors import InputError
from nce_sim.seeding import generator

BLOCK = 4096
"""Requests, or bursts, whose random numbers are drawn together."""


def arrivals(
    requests: Requests, duration_cycles: int, clock_mhz: float, seed: int
) -> Iterator[tuple[int, int]]:
    """Return number and cycle of arrival of each request before `duration_cycles`.

    Requests count from 0, and cycles from the start of the mission; cycles never fall, but several
    requests may share one. `clock_mhz` is the machine's clock, cycles per microsecond.

    Raises InputError, before anything arrives, for a file of arrivals that is not usable.
    """
    given = requests.arrivals
    times: Iterator[float]
    match given:
        case PeriodicArrivals():
            times = _periodic(given, clock_mhz, seed)
        case PoissonArrivals():
            times = _poisson(given, clock_mhz, seed)
        case BurstArrivals():
            times = _bursts(given, clock_mhz, seed)
        case TraceArrivals():
            for _ in _of_file(Path(given.file)):
                pass  # every line is checked before the mission starts
            times = (seconds * clock_mhz * 1e6 for seconds in _of_file(Path(given.file)))
    return _until(duration_cycles, times)


def _until(duration_cycles: int, times: Iterator[float]) -> Iterator[tuple[int, int]]:
    for request, time in enumerate(times):
        if time >= duration_cycles:
            return
        yield request, int(time)


def _periodic(given: PeriodicArrivals, clock_mhz: float, seed: int) -> Iterator[float]:
    """Yield times in cycles; none passes the next period's start, whatever rounding does."""
    period, jitter = given.period_us * clock_mhz, given.jitter_us * clock_mhz
    for block in count():
        late = jitter * generator(seed, "arrivals/jitter", block).random(BLOCK)
        request = np.arange(block * BLOCK, (block + 1) * BLOCK)
        yield from np.minimum(request * period + late, (request + 1) * period).tolist()


def _poisson(given: PoissonArrivals, clock_mhz: float, seed: int) -> Iterator[float]:
    """Yield times in cycles: sums of exponential gaps."""
    mean_gap = clock_mhz * 1e6 / given.rate_per_s
    last = 0.0
    for block in count():
        gaps = generator(seed, "arrivals/gaps", block).exponential(mean_gap, BLOCK)
        times = last + np.cumsum(gaps)
        last = float(times[-1])
        yield from times.tolist()


def _bursts(given: BurstArrivals, clock_mhz: float, seed: int) -> Iterator[float]:
    """Yield times in cycles; none passes the next burst's earliest start."""
    every, spacing = given.every_us * clock_mhz, given.spacing_us * clock_mhz
    for block in count():
        late = generator(seed, "arrivals/bursts", block).random(BLOCK)
        for burst, share in enumerate(late.tolist(), block * BLOCK):
            start = burst * every + share * given.jitter_us * clock_mhz
            for place in range(given.requests):
                yield min(start + place * spacing, (burst + 1) * every)


def _of_file(path: Path) -> Iterator[float]:
    """Yield times in seconds from a CSV file of one column, line by line."""
    lines = rows(path)
    where, header = next(lines)
    if header != (TIME,):
        raise InputError(
            f"{where}: the first line but for comments must be {TIME}, not {','.join(header)}"
        )
    before = None
    for where, cells in lines:
        if len(cells) != 1:
            raise InputError(f"{where}: there must be 1 column, {TIME}, not {len(cells)}")
        seconds = number_in(where, TIME, cells[0])
        if before is not None and seconds < before:
            raise InputError(f"{where}: {TIME} must not fall from {before:g}, but is {cells[0]}")
        before = seconds
        yield seconds
    if before is None:
        raise InputError(f"{where}: at least one line of numbers must follow")
