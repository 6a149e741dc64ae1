"""What is on the bus in a cycle: whose transfer, how much of it has passed, and which word."""

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from nce_sim.config.machine_schema import exact
from nce_sim.machine.executions import Counts
from nce_sim.machine.probe import Span
from nce_sim.machine.storage import (
    INPUT_WORDS,
    OUTPUT_WORDS,
    WEIGHT_WORDS,
    Holding,
    Storage,
)
from nce_sim.schedule.domains import DOMAINS
from nce_sim.schedule.tiles import OUTPUTS, WEIGHTS, Stream, Tile


class Transfer(NamedTuple):
    """A tile's load or store (`span` of its port) while the bus serves it.

    `passed` of its `cycles` on the bus are over.
    """

    domain: str
    span: Span
    passed: int
    cycles: int


class Transfers:
    """The transfers of one run of a single image over the bus."""

    def __init__(self, storage: Storage) -> None:
        self.storage, self.program = storage, storage.program
        bus = self.program.machine.bus
        self._quantum = max(1, bus.quantum_bytes // exact(bus.bytes_per_cycle))

    @cached_property
    def _bus(self) -> tuple[list[int], list[tuple[Span, list[str]]]]:
        """Intervals in which the bus serves the same ports in turn, in order of time."""
        spans = sorted(
            (span for span in self.storage.spans if span.resource == "bus"),
            key=lambda span: span.start_cycle,
        )
        return [span.start_cycle for span in spans], [(s, s.what.split(" + ")) for s in spans]

    @cached_property
    def _spans(self) -> dict[str, tuple[list[int], list[Span]]]:
        """The transfers of each port, in order of time."""
        found = {}
        for domain in DOMAINS:
            for what in ("load", "store"):
                spans = [
                    span for span in self.storage.spans
                    if span.resource == f"{domain} {what}" and span.what == what
                ]  # fmt: skip
                found[f"{domain} {what}"] = [span.start_cycle for span in spans], spans
        return found

    def _served(self, interval: Span, ports: list[str], port: str, cycle: int) -> int:
        """Return the cycles of an interval that a port has had before a cycle."""
        turn, quantum = ports.index(port), self._quantum
        rounds, rest = divmod(cycle - interval.start_cycle, quantum * len(ports))
        return rounds * quantum + min(max(rest - turn * quantum, 0), quantum)

    def under_way(self, cycle: int) -> Transfer | None:
        """Return the transfer that the bus serves in a cycle.

        None while it rests or fetches the protection map.
        """
        starts, intervals = self._bus
        place = bisect_right(starts, cycle) - 1
        if place < 0 or cycle >= intervals[place][0].end_cycle:
            return None
        interval, ports = intervals[place]
        port = ports[(cycle - interval.start_cycle) // self._quantum % len(ports)]
        if port not in self._spans:
            return None
        begins, spans = self._spans[port]
        span = spans[bisect_right(begins, cycle) - 1]
        passed = cycles = 0
        first = max(0, bisect_right(starts, span.start_cycle) - 1)
        for each, served in intervals[first : bisect_right(starts, span.end_cycle)]:
            if port in served and span.start_cycle <= each.start_cycle < span.end_cycle:
                cycles += self._served(each, served, port, each.end_cycle)
                passed += self._served(
                    each, served, port, min(max(cycle, each.start_cycle), each.end_cycle)
                )
        return Transfer(port.split(" ")[0], span, passed, cycles)

    def word_of_transfer(self, transfer: Transfer, within: float = 0.5) -> tuple[Holding, int]:
        """Return the word that is on the bus, `within` (a share from 0) of the cycle's beat.

        It is named by the holding that it goes to or comes from, and by what it is there.
        """
        words = self.words_of(transfer.domain, transfer.span)
        offset = (transfer.passed + within) / transfer.cycles * sum(size for *_, size in words)
        for holding, places, size in words[:-1]:
            if offset < size:
                return holding, int(places[int(offset / size * len(places))])
            offset -= size
        holding, places, size = words[-1]
        return holding, int(places[min(int(offset / size * len(places)), len(places) - 1)])

    def words_of(self, domain: str, span: Span) -> list[tuple[Holding, Counts, int]]:
        """Return what of a tile crosses the bus: holding, words there, bytes that move.

        Streams come one after another, each in the order of its holding. What vector units move is
        left out.
        """
        place = self.storage.number[span.layer]
        work = self.program.layers[place]
        if not work.on_array:
            return []
        tile = work.tiles(domain)[span.tile]
        found = []
        for stream in on_bus(tile, domain, span.what):
            kind = {WEIGHTS: WEIGHT_WORDS, OUTPUTS: OUTPUT_WORDS}.get(stream.what, INPUT_WORDS)
            holding = self._first[domain, kind, place, span.tile]
            places = self.storage.places_of(holding)
            if kind == INPUT_WORDS:
                places = self._of_holder(place, stream.domain, places)
            found.append((holding, places, stream.moved_bytes))
        return found

    @cached_property
    def _first(self) -> dict[tuple[str, str, int, int], Holding]:
        """The holdings of double buffers, by the first tile that computes on them."""
        storage = self.storage
        return {
            (domain, each.words, each.work, each.tiles[0]): each
            for held in (storage.weight_buffers, storage.input_buffers, storage.output_buffers)
            for domain in DOMAINS
            for each in held[domain]
            if each.tiles is not None
        }

    def _of_holder(self, place: int, domain: str, places: Counts) -> Counts:
        """Return those of some inputs that a domain holds; the network's input is protected."""
        return places[self.storage.read_from(place, domain)[places]]


def on_bus(tile: Tile, domain: str, what: str) -> Iterator[Stream]:
    """Yield the streams that a tile moves over the bus."""
    for stream in tile.loads if what == "load" else tile.stores:
        if stream.external or stream.domain != domain:
            yield stream
