"""What happens over time in a bounded number of bins, however long it goes on.

When time runs past the last bin, neighbours are merged and bins are twice as wide from then on.
Sums are whole numbers and exact. Two missions that begin with bins of one width have bins of which
one width is a multiple of the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest

import numpy as np
from numpy.typing import NDArray

MOST_BINS = 512
FIRST_BIN_CYCLES = 1024


@dataclass(frozen=True)
class TimeBins:
    """Sums by bin: bin n lasts from n to n + 1 times `bin_cycles`, the last one to `end_cycle`.

    Each column of `sums` has one float64 a bin.
    """

    bin_cycles: int
    end_cycle: int
    sums: Mapping[str, NDArray[np.float64]]

    @property
    def starts(self) -> NDArray[np.int64]:
        """First cycle of each bin."""
        return np.arange(0, max(self.end_cycle, 1), self.bin_cycles)

    @property
    def cycles(self) -> NDArray[np.int64]:
        """Cycles of each bin."""
        return np.minimum(self.bin_cycles, self.end_cycle - self.starts)


class Binned:
    """Adds up what happens at a cycle (`counts`) and what goes on for a time (`flows`)."""

    def __init__(
        self, counts: Sequence[str], flows: Sequence[str], bin_cycles: int = FIRST_BIN_CYCLES
    ) -> None:
        self.bin_cycles = bin_cycles
        self._counts = {name: [0] * MOST_BINS for name in counts}
        self._flows = {name: _Flow() for name in flows}

    def count(self, cycle: int, amounts: Mapping[str, int]) -> None:
        """Add to the bin of a cycle."""
        self._reach(cycle)
        place = cycle // self.bin_cycles
        for name, amount in amounts.items():
            self._counts[name][place] += amount

    def flow(self, name: str, start: int, end: int, rate: int = 1) -> None:
        """Add `rate` for each cycle from `start` to before `end`."""
        if end > start:
            self._reach(end - 1)
            self._flows[name].add(start, end, rate, self.bin_cycles)

    def spread(self, name: str, start: int, end: int, amount: int) -> None:
        """Add an amount evenly from `start` to before `end`; what is left over to the end."""
        rate, left = divmod(amount, end - start)
        self.flow(name, start, end, rate)
        self.flow(name, end - 1, end, left)

    def table(self, end_cycle: int) -> TimeBins:
        """Return all sums of what ended before `end_cycle`."""
        used = max(1, -(-end_cycle // self.bin_cycles))
        sums = {
            **self._counts,
            **{name: flow.sums(self.bin_cycles) for name, flow in self._flows.items()},
        }
        found = {name: np.array(each[:used], np.float64) for name, each in sums.items()}
        return TimeBins(self.bin_cycles, end_cycle, found)

    def _reach(self, cycle: int) -> None:
        """Double the width of the bins until a cycle is in one of them."""
        while cycle >= self.bin_cycles * MOST_BINS:
            for name, counts in self._counts.items():
                self._counts[name] = _merged(counts)
            for flow in self._flows.values():
                flow.merge(self.bin_cycles)
            self.bin_cycles *= 2


class _Flow:
    """A flow by bin: `parts` are of bins that it fills in part, `steps` those of its rate in full
    bins, so that a flow over many bins costs no more than one over a few.
    """

    def __init__(self) -> None:
        self.parts, self.steps = [0] * MOST_BINS, [0] * MOST_BINS

    def add(self, start: int, end: int, rate: int, width: int) -> None:
        first, last = start // width, (end - 1) // width
        if first == last:
            self.parts[first] += rate * (end - start)
            return
        self.parts[first] += rate * ((first + 1) * width - start)
        self.parts[last] += rate * (end - last * width)
        self.steps[first + 1] += rate
        self.steps[last] -= rate

    def sums(self, width: int) -> list[int]:
        full = accumulate(self.steps)
        return [part + width * rate for part, rate in zip(self.parts, full, strict=True)]

    def merge(self, width: int) -> None:
        self.parts, self.steps = _merged(self.sums(width)), [0] * MOST_BINS


def _merged(sums: list[int]) -> list[int]:
    """Add up each two neighbours; the second half is empty."""
    pairs = zip_longest(sums[::2], sums[1::2], fillvalue=0)
    return [sum(pair) for pair in pairs] + [0] * (MOST_BINS // 2)
