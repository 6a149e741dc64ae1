"""How maps and weights lie in external memory, and what a transfer therefore moves.

A map is stored by rows of each channel, every row from a burst's border. `packed`: a row holds its
domain's elements only, closed up and indexed by the protection map. `holes`: every element keeps
its place of the dense map. A reader asks, of each row, for the span from the first to the last
element that it needs, and whole bursts of it move; in a layout with holes, those bursts that hold
any element of the domain. In the protected region the check bits of 64-bit words lie inline.

Weights lie in the order in which the schedule loads them: a tile's weights are one segment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nce_sim.config.machine_schema import MachineConfig
from nce_sim.config.technology import BYTES_BY_FORMAT
from nce_sim.protection.schemes import MEMORY_SCHEMES
from nce_sim.schedule.compaction import WORD_BITS, Words, pack_windows
from nce_sim.schedule.domains import DOMAINS, PROTECTED, UNPROTECTED

RESIDENT, EXTERNAL = "resident", "external"
"""Where a map lies: in a domain's local buffer, or in its region of the external memory."""

ECC_WORD_BITS = 64

LOW_BITS = np.array([(1 << count) - 1 for count in range(WORD_BITS)], np.uint16)

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]


class Demand(NamedTuple):
    """What a transfer asks of one domain's part of a map.

    `moved_bytes` are whole bursts with check bits, and `rows_opened` the rows of the memory that
    they lie in, if the part is external; of a resident part, its elements and 0.
    """

    elements: int
    moved_bytes: int
    rows_opened: int


Demands = dict[str, Demand]
"""Demands by the domain that holds the data."""

NOTHING = Demand(0, 0, 0)
PARTIAL_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Region:
    """One domain's region of the external memory."""

    element_bytes: int
    burst_bytes: int
    row_bytes: int
    check_bits: int
    holes: bool

    @staticmethod
    def of(machine: MachineConfig) -> dict[str, "Region"]:
        """Return both regions of a machine."""
        check_bits = {
            UNPROTECTED: 0,
            PROTECTED: MEMORY_SCHEMES[machine.memory.protected_scheme].check_bits(ECC_WORD_BITS),
        }
        return {
            domain: Region(
                element_bytes=BYTES_BY_FORMAT[machine.number_format],
                burst_bytes=machine.memory.burst_bytes,
                row_bytes=machine.memory.row_bytes,
                check_bits=check_bits[domain],
                holes=machine.layout == "holes",
            )
            for domain in DOMAINS
        }

    @cached_property
    def bursts_per_element(self) -> Fraction:
        """Bursts that an element takes, its check bits included."""
        stored = Fraction(ECC_WORD_BITS + self.check_bits, ECC_WORD_BITS)
        return self.element_bytes * stored / self.burst_bytes

    def segment(self, data_bytes: int) -> Demand:
        """Return what moves for one contiguous segment that begins at a burst's border."""
        stored = -(-data_bytes * (ECC_WORD_BITS + self.check_bits) // ECC_WORD_BITS)
        moved = -(-stored // self.burst_bytes) * self.burst_bytes
        return Demand(data_bytes // self.element_bytes, moved, -(-moved // self.row_bytes))

    def first_burst(self, element: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the burst of its row in which each element begins."""
        share = self.bursts_per_element
        return element * share.numerator // share.denominator

    def bursts_before(self, elements: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the bursts that hold the first so many elements of a row."""
        share = self.bursts_per_element
        return -(-elements * share.numerator // share.denominator)


class StoredMap:
    """A map between two layers: which elements are unprotected, and where each part lies.

    `unprotected` is channels x height x width; a vector is one channel of one row, unless it is a
    flattened map, which keeps its rows. Each domain's part is laid out by itself.
    """

    def __init__(
        self, unprotected: Mask, place: Mapping[str, str], regions: Mapping[str, Region]
    ) -> None:
        as_map = unprotected if unprotected.ndim == 3 else unprotected.reshape(1, 1, -1)
        self.unprotected, self.place, self.regions = as_map, dict(place), regions
        self.channels, self.height, self.width = as_map.shape
        self._by_row: dict[str, Counts] = {}
        self._bursts_by_row: dict[str, Counts] = {}
        self._bursts_up_to: dict[str, Counts] = {}

    def moved_to(self, place: Mapping[str, str]) -> "StoredMap":
        """Return the same map with its parts in other places."""
        other = StoredMap(self.unprotected, place, self.regions)
        for name in ("_words", "_before_word"):
            if name in self.__dict__:
                other.__dict__[name] = self.__dict__[name]
        other._by_row = self._by_row
        return other

    def is_external(self, domain: str) -> bool:
        """Tell whether a part lies in external memory."""
        return self.place[domain] == EXTERNAL

    def elements(self, domain: str) -> int:
        """Return the number of elements of a part."""
        return int(self.by_row(domain).sum())

    def kept_bytes(self, domain: str) -> int:
        """Return the bytes that a part takes in a resident buffer; holes take their place, too."""
        region, elements = self.regions[domain], self.elements(domain)
        kept = self.unprotected.size if region.holes and elements else elements
        return kept * region.element_bytes

    def by_row(self, domain: str) -> Counts:
        """Return the elements of each row of a part: channels x height."""
        if domain not in self._by_row:
            unprotected = self._before_word[:, :, -1].astype(np.int64)
            self._by_row[UNPROTECTED] = unprotected
            self._by_row[PROTECTED] = self.width - unprotected
        return self._by_row[domain]

    @cached_property
    def _words(self) -> Words:
        """The unprotected elements as bits: channels x height x words."""
        packed = pack_windows(self.unprotected.reshape(-1, self.width), self.width)
        return packed.reshape(self.channels, self.height, -1)

    @cached_property
    def _before_word(self) -> NDArray[np.int32]:
        """Unprotected elements of each row before each word, and in all."""
        counts = np.bitwise_count(self._words)
        before = np.zeros((*counts.shape[:2], counts.shape[2] + 1), np.int32)
        for word in range(counts.shape[2]):
            np.add(before[:, :, word], counts[:, :, word], out=before[:, :, word + 1])
        return before

    def _unprotected_before(self, channels: Counts, rows: Counts, columns: Counts) -> Counts:
        """Count the unprotected elements of rows before columns; all are broadcast together."""
        word, bit = np.divmod(columns, WORD_BITS)
        bits = self._words[channels, rows, np.minimum(word, self._words.shape[2] - 1)]
        bits = bits & LOW_BITS[bit]  # at the end of the last word, bit is 0
        return self._before_word[channels, rows, word] + np.bitwise_count(bits).astype(np.int64)

    def bursts_by_row(self, domain: str) -> Counts:
        """Return the bursts of each whole row of a part: channels x height."""
        if domain not in self._bursts_by_row:
            region = self.regions[domain]
            self._bursts_by_row[domain] = (
                self._up_to(domain)[:, :, -1]
                if region.holes
                else region.bursts_before(self.by_row(domain))
            )
        return self._bursts_by_row[domain]

    @cached_property
    def _row_sums(self) -> dict[str, tuple[Counts, Counts]]:
        """Elements and bursts of each row in all channels, by domain."""
        return {
            domain: (self.by_row(domain).sum(axis=0), self.bursts_by_row(domain).sum(axis=0))
            for domain in DOMAINS
        }

    def _up_to(self, domain: str) -> Counts:
        """Count, in a layout with holes, the bursts of a row with any element among the first."""
        if domain not in self._bursts_up_to:
            own = self.unprotected if domain == UNPROTECTED else ~self.unprotected
            region, columns = self.regions[domain], np.arange(self.width)
            first = region.first_burst(columns)
            last = region.bursts_before(columns + 1) - 1
            held = np.zeros((self.channels, self.height, int(last[-1]) + 1), bool)
            for step in range(int((last - first).max()) + 1):
                bursts = np.minimum(first + step, last)
                starts = np.flatnonzero(np.diff(bursts, prepend=-1))
                held[:, :, bursts[starts]] |= np.logical_or.reduceat(own, starts, axis=2)
            up_to = np.zeros((*held.shape[:2], held.shape[2] + 1), np.int64)
            np.cumsum(held, axis=2, out=up_to[:, :, 1:])
            self._bursts_up_to[domain] = up_to
        return self._bursts_up_to[domain]

    def spans(
        self, channels: Counts, rows: Counts, first: Counts, end: Counts
    ) -> dict[str, Counts]:
        """Return the bursts of spans, by domain that lies in external memory.

        A span is a channel's row from column `first` to before column `end`; all arguments are
        broadcast to channels x spans.
        """
        external = [domain for domain in DOMAINS if self.is_external(domain)]
        if not external:
            return {}
        if self.regions[PROTECTED].holes:
            return {domain: self._spans_with_holes(domain, channels, rows, first, end)
                    for domain in external}  # fmt: skip
        ends = np.stack(np.broadcast_arrays(first, end), axis=-1)
        counts = self._unprotected_before(channels[..., None], rows[..., None], ends)
        before = {UNPROTECTED: counts[..., 0], PROTECTED: first - counts[..., 0]}
        after = {UNPROTECTED: counts[..., 1], PROTECTED: end - counts[..., 1]}
        return {
            domain: np.where(
                after[domain] > before[domain],
                self.regions[domain].bursts_before(after[domain])
                - self.regions[domain].first_burst(before[domain]),
                0,
            )
            for domain in external
        }

    def _spans_with_holes(
        self, domain: str, channels: Counts, rows: Counts, first: Counts, end: Counts
    ) -> Counts:
        region, up_to = self.regions[domain], self._up_to(domain)
        start, stop = region.first_burst(first), region.bursts_before(end)
        return np.where(end > first, up_to[channels, rows, stop] - up_to[channels, rows, start], 0)

    def read(self, top: int, needed: Mask, channels: Counts) -> Demands:
        """Return the demand, by domain, for `needed` positions of some channels.

        `needed` is channels x rows x width, its first row being row `top` of the map.
        """
        return self.read_by_sets(top, needed, channels, len(channels))[0]

    def read_by_sets(
        self, top: int, needed: Mask, channels: Counts, set_size: int
    ) -> list[Demands]:
        """Return the demands for sets of so many channels, in the order given; see `read`."""
        rows = top + np.arange(needed.shape[1])
        held = self.unprotected[channels[:, None], rows] & needed
        unprotected = np.count_nonzero(held, axis=(1, 2))
        every = np.count_nonzero(needed, axis=(1, 2))
        elements = {UNPROTECTED: unprotected, PROTECTED: every - unprotected}
        spans = self.spans(channels[:, None], rows[None], *_ends(needed))
        bursts = {domain: spans[domain].sum(axis=1) if domain in spans else np.zeros_like(every)
                  for domain in DOMAINS}  # fmt: skip
        found = []
        for start in range(0, len(channels), set_size):
            part = slice(start, start + set_size)
            rows_read = rows[needed[part].any(axis=(0, 2))]
            channels_read = int(np.count_nonzero(every[part]))
            found.append(
                {
                    domain: self._demand(
                        domain, int(elements[domain][part].sum()), int(bursts[domain][part].sum()),
                        rows_read, channels_read,
                    )
                    for domain in DOMAINS
                }
            )  # fmt: skip
        return found

    def read_all_channels(self, tops: Sequence[int], needed: Sequence[Mask]) -> list[Demands]:
        """Return the demands, by domain, for sets of positions that all channels need.

        Each set is rows x width, its first row being the row of the map given in `tops`. Whole
        rows are added up from sums, and the others of all sets are counted together.
        """
        of_set = np.repeat(np.arange(len(tops)), [len(each) for each in needed])
        rows = np.concatenate(
            [top + np.arange(len(each)) for top, each in zip(tops, needed, strict=True)]
        )
        every = np.concatenate(needed)
        whole: Mask = np.all(every, axis=1)
        touched: Mask = np.any(every, axis=1)
        partial = np.flatnonzero(~whole & touched)
        counts = self._rows_of_all_channels(rows, whole)
        self._count_partial(counts, rows[partial], every[partial], partial)
        found = []
        for number in range(len(tops)):
            inside = slice(*np.searchsorted(of_set, [number, number + 1]))
            held = rows[inside][touched[inside]]
            found.append(
                {
                    domain: self._demand(
                        domain, int(elements[inside].sum()), int(bursts[inside].sum()), held,
                        self.channels,
                    )
                    for domain, (elements, bursts) in counts.items()
                }
            )  # fmt: skip
        return found

    def _rows_of_all_channels(self, rows: Counts, whole: Mask) -> dict[str, tuple[Counts, Counts]]:
        """Return elements and bursts of the rows that are whole, 0 for the others, by domain."""
        return {
            domain: (np.where(whole, sums[0][rows], 0), np.where(whole, sums[1][rows], 0))
            for domain, sums in self._row_sums.items()
        }

    def _count_partial(
        self, counts: dict[str, tuple[Counts, Counts]], rows: Counts, needed: Mask, places: Counts
    ) -> None:
        """Put the elements and bursts of rows of which not all is needed in their places."""
        first, end = _ends(needed)
        channels = np.arange(self.channels)[:, None]
        for start in range(0, len(rows), PARTIAL_ROWS_AT_ONCE):
            part = slice(start, start + PARTIAL_ROWS_AT_ONCE)
            held = self.unprotected[:, rows[part]] & needed[part]
            unprotected = np.count_nonzero(held, axis=(0, 2))
            counts[UNPROTECTED][0][places[part]] = unprotected
            every = self.channels * np.count_nonzero(needed[part], axis=1)
            counts[PROTECTED][0][places[part]] = every - unprotected
            spans = self.spans(channels, rows[part], first[part], end[part])
            for domain, bursts in spans.items():
                counts[domain][1][places[part]] = bursts.sum(axis=0)

    def read_flat(self, start: int, stop: int) -> Demands:
        """Return the demand, by domain, for places start to stop of the flattened map."""
        if any(self.place[domain] == EXTERNAL for domain in DOMAINS):
            width = self.width
            head, tail = start // width, -(-stop // width)
            needed = np.zeros((tail - head, width), bool)
            needed.reshape(-1)[start - head * width : stop - head * width] = True
            return self._as_one_channel.read_all_channels([head], [needed])[0]
        unprotected = int(self._flat_up_to[stop] - self._flat_up_to[start])
        elements = {UNPROTECTED: unprotected, PROTECTED: stop - start - unprotected}
        return {
            domain: Demand(count, count * self.regions[domain].element_bytes, 0)
            for domain, count in elements.items()
        }

    @cached_property
    def _flat_up_to(self) -> Counts:
        return np.concatenate([[0], np.cumsum(self.unprotected, dtype=np.int64)])

    @cached_property
    def _as_one_channel(self) -> "StoredMap":
        """The same rows as one channel."""
        return StoredMap(self.unprotected.reshape(1, -1, self.width), self.place, self.regions)

    def _demand(
        self, domain: str, elements: int, bursts: int, rows: Counts, channels: int
    ) -> Demand:
        """Return the demand for elements and bursts that lie in some rows of some channels."""
        region = self.regions[domain]
        if not self.is_external(domain):
            return Demand(elements, elements * region.element_bytes, 0)
        if elements == 0:
            return NOTHING
        opened = rows_opened(
            channels, self.height, int(rows[0]), int(rows[-1]) + 1, self.width, region
        )
        return Demand(elements, bursts * region.burst_bytes, opened)


def _ends(needed: Mask) -> tuple[Counts, Counts]:
    """Return where the span of each row begins and ends (last axis); both 0 if it is empty."""
    some = needed.any(axis=-1)
    first = np.where(some, needed.argmax(axis=-1), 0)
    end = np.where(some, needed.shape[-1] - needed[..., ::-1].argmax(axis=-1), 0)
    return first, end


@lru_cache(maxsize=4096)
def rows_opened(
    channels: int, height: int, first: int, last: int, width: int, region: Region
) -> int:
    """Return the memory rows that map rows first to last of consecutive channels lie in.

    Each map row has room for all its elements, so that its place is known without counting.
    """
    pitch = int(region.bursts_before(np.asarray(width))) * region.burst_bytes
    base = np.arange(channels) * height
    start = (base + first) * pitch // region.row_bytes
    end = ((base + last) * pitch - 1) // region.row_bytes
    return int((end - start + 1).sum() - np.count_nonzero(start[1:] <= end[:-1]))
