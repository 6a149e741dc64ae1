"""Where the elements of a map lie, and what moving some of them takes: one element at a time.

The rules are those of `nce_sim/schedule/layout.py`, written a second time and nothing shared.
"""

from fractions import Fraction
from math import ceil, floor

PROTECTED, UNPROTECTED = "protected", "unprotected"
DOMAINS = (PROTECTED, UNPROTECTED)
OTHER = {PROTECTED: UNPROTECTED, UNPROTECTED: PROTECTED}
SIZES = {"int8": 1, "fp16": 2, "bf16": 2, "fp32": 4}
CHECK_BITS = {"none": 0, "ideal": 0, "parity": 1, "secded": 8}
"""Of a word of 64 bits."""


class Memory:
    """The layout of one machine's external memory."""

    def __init__(self, config):
        self.size = SIZES[config.number_format]
        self.burst, self.row = config.memory.burst_bytes, config.memory.row_bytes
        self.holes = config.layout == "holes"
        check_bits = CHECK_BITS[config.memory.protected_scheme]
        self.stored = {PROTECTED: 1 + Fraction(check_bits, 64), UNPROTECTED: Fraction(1)}

    def segment(self, domain, data_bytes):
        """Return bytes moved and rows opened for data in one piece from a burst's border on."""
        moved = ceil(data_bytes * self.stored[domain] / self.burst) * self.burst
        return moved, ceil(Fraction(moved, self.row))

    def bursts(self, domain, first, last):
        """Return the bursts of elements first to last of a row, those at the ends whole."""
        element = self.size * self.stored[domain]
        return range(floor(first * element / self.burst), ceil((last + 1) * element / self.burst))

    def moved_of_row(self, domain, holders, first, last):
        """Return the bytes that a domain moves for columns first to last of a channel's row."""
        own = [column for column, holder in enumerate(holders) if holder == domain]
        if not self.holes:
            places = [place for place, column in enumerate(own) if first <= column <= last]
            return len(self.bursts(domain, places[0], places[-1])) * self.burst if places else 0
        held = {burst for column in own for burst in self.bursts(domain, column, column)}
        return len(held & set(self.bursts(domain, first, last))) * self.burst

    def rows_opened(self, domain, channels, height, width, first, last):
        """Return the memory's rows under map rows first to last of so many channels in a row."""
        pitch = len(self.bursts(domain, 0, width - 1)) * self.burst
        opened = set()
        for channel in range(channels):
            start, end = ((channel * height + row) * pitch for row in (first, last + 1))
            opened |= set(range(start // self.row, (end - 1) // self.row + 1))
        return len(opened)


class Map:
    """A map of channels x height x width: who holds each element, and in which kind of memory."""

    def __init__(self, shape, unprotected, external):
        """`unprotected` holds (channel, position) pairs; a vector is one row of one channel."""
        self.channels, self.height, self.width = shape if len(shape) == 3 else (1, 1, *shape)
        self.external = external
        self.unprotected = {
            (channel, *divmod(position, self.width)) if len(shape) == 3 else (0, 0, channel)
            for channel, position in unprotected
        }

    def holder(self, channel, row, column):
        return UNPROTECTED if (channel, row, column) in self.unprotected else PROTECTED

    def flat(self, first, stop):
        """Return places first to stop as elements."""
        rows = (divmod(place, self.width) for place in range(first, stop))
        return {(*divmod(row, self.height), column) for row, column in rows}

    def moved(self, memory, domain, elements, flattened=False):
        """Return (data bytes, moved bytes, rows opened) of a domain's part of some elements.

        In a flattened map the rows of all channels follow one another.
        """
        own = [element for element in elements if self.holder(*element) == domain]
        data = len(own) * memory.size
        if not own or not self.external[domain]:
            return data, data, 0
        columns = {}
        for channel, row, column in elements:
            columns.setdefault((channel, row), []).append(column)
        moved = sum(
            memory.moved_of_row(
                domain, [self.holder(*place, x) for x in range(self.width)], min(xs), max(xs)
            )
            for place, xs in columns.items()
        )
        return data, moved, self._rows_opened(memory, domain, columns, flattened)

    def _rows_opened(self, memory, domain, rows, flattened):
        """Return the memory's rows from the first to the last map row that any channel needs."""
        if flattened:
            rows = [(0, channel * self.height + row) for channel, row in rows]
        channels, height = len({channel for channel, _ in rows}), self.height
        if flattened:
            height *= self.channels
        needed = [row for _, row in rows]
        return memory.rows_opened(domain, channels, height, self.width, min(needed), max(needed))
