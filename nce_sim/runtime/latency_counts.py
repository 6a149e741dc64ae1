"""LatencyCounts of any number of requests in bounded memory: a histogram with log-spaced bins."""

from math import ceil, log

RESOLUTION = 1e-3
"""Width of a bin relative to its lower edge: 2^62 cycles fall into 43,000 bins."""

_LOG_STEP = log(1 + RESOLUTION)


class LatencyCounts:
    """Counts latencies in whole cycles; the largest one and the sum are exact."""

    def __init__(self) -> None:
        self.requests = self.most = self.sum = 0
        self._bins: dict[int, int] = {}

    def add(self, cycles: int) -> None:
        """Count a latency of at least one cycle."""
        number = int(log(cycles) / _LOG_STEP)
        self._bins[number] = self._bins.get(number, 0) + 1
        self.requests += 1
        self.sum += cycles
        if cycles > self.most:
            self.most = cycles

    @property
    def mean(self) -> float:
        """Mean latency in cycles; 0 without requests."""
        return self.sum / self.requests if self.requests else 0.0

    def quantile(self, share: float) -> int:
        """Return the least latency that at least `share` of the requests do not exceed.

        Never below the exact value, and at most 0.1 % above it; 0 without requests.
        """
        wanted, seen = max(1, ceil(share * self.requests)), 0
        for number in sorted(self._bins):
            seen += self._bins[number]
            if seen >= wanted:
                return min(self.most, int((1 + RESOLUTION) ** (number + 1)))
        return self.most
