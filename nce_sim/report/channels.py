"""What passed through a channel when: the cycles that its ports were granted, stream by stream.

The timeline says which ports a channel served in turn. Within such a span the grants follow from
the quantum, each port moves its tiles' data in their order, and a tile's streams follow one another
in the order in which the tile lists them. So every cycle belongs to one stream; those of external
streams are the cycles in which the external memory moves data.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from nce_sim.machine.engine import BUS, CONTROLLER_PORT, MAP_PURPOSE, Run
from nce_sim.machine.memory import Transport, purpose
from nce_sim.machine.probe import Span
from nce_sim.schedule.domains import DOMAINS, PROTECTED
from nce_sim.schedule.layout import Region
from nce_sim.schedule.tiles import Stream


class Passage(NamedTuple):
    """A part of a stream on a channel; `tile` is -1 for the protection map."""

    purpose: str
    external: bool
    layer: str
    tile: int
    start_cycle: int
    end_cycle: int


class _Piece(NamedTuple):
    """A whole stream: how many cycles of the channel it takes."""

    purpose: str
    external: bool
    layer: str
    tile: int
    cycles: int


def local_port(domain: str) -> str:
    """Return the name of a domain's local port on the timeline."""
    return f"{domain} local port"


def passages(run: Run, channel: str) -> Iterator[tuple[Span, list[Passage]]]:
    """Yield each span of the bus or of a local port with what passed in it, in order of time."""
    queues = _pieces_of_bus(run) if channel == BUS else _pieces_of_local_port(run, channel)
    quantum = _quantum_cycles(run, channel)
    for span in run.timeline:
        if span.resource == channel:
            yield span, list(_passages_of(span, queues, quantum))


def _quantum_cycles(run: Run, channel: str) -> int:
    """Return the cycles of a whole grant."""
    config = run.machine.config
    widths = {
        local_port(name): d.buffers.port_bytes_per_cycle for name, d in config.domains.items()
    }
    width = widths.get(channel, config.bus.bytes_per_cycle)
    return max(1, int(config.bus.quantum_bytes / width))


def _passages_of(span: Span, queues: dict[str, deque[_Piece]], quantum: int) -> Iterator[Passage]:
    """Yield the passages of a span: its ports take turns, and only the last grant may be short."""
    ports = span.what.split(" + ")
    step = quantum if len(ports) > 1 else span.cycles
    for number, start in enumerate(range(span.start_cycle, span.end_cycle, step)):
        end = min(start + step, span.end_cycle)
        yield from _take(queues[ports[number % len(ports)]], start, end)


def _take(queue: deque[_Piece], start: int, end: int) -> Iterator[Passage]:
    """Take the cycles of one grant from the streams that wait at a port."""
    while start < end:
        piece = queue.popleft()
        taken = min(piece.cycles, end - start)
        if taken < piece.cycles:
            queue.appendleft(piece._replace(cycles=piece.cycles - taken))
        yield Passage(*piece[:4], start, start + taken)
        start += taken


def _pieces_of_bus(run: Run) -> dict[str, deque[_Piece]]:
    """Return what waits at each port of the bus, all layers in order."""
    queues = {CONTROLLER_PORT: deque(_map_fetches(run))}
    for domain in DOMAINS:
        queues |= _pieces_of_domain(run, domain, "bus_cycles")
    return queues


def _pieces_of_local_port(run: Run, channel: str) -> dict[str, deque[_Piece]]:
    (domain,) = (name for name in DOMAINS if local_port(name) == channel)
    return _pieces_of_domain(run, domain, "local_cycles")


def _pieces_of_domain(run: Run, domain: str, part: str) -> dict[str, deque[_Piece]]:
    """Return what a domain's load and store ports move on one channel: `part` of the way."""
    transport = Transport(run.machine.config)
    loads, stores = deque[_Piece](), deque[_Piece]()
    for work in run.program.layers:
        for number, tile in enumerate(work.tiles(domain)):
            for queue, streams in ((loads, tile.loads), (stores, tile.stores)):
                for stream, cycles in _cycles_by_stream(transport, domain, streams, part):
                    name = purpose(domain, stream)
                    queue.append(_Piece(name, stream.external, work.layer.name, number, cycles))
    return {f"{domain} load": loads, f"{domain} store": stores}


def _cycles_by_stream(
    transport: Transport, domain: str, streams: tuple[Stream, ...], part: str
) -> Iterator[tuple[Stream, int]]:
    """Yield the whole cycles of each stream; what is left of a cycle goes to the next stream."""
    before = 0
    for count, stream in enumerate(streams, 1):
        after = getattr(transport.load(domain, streams[:count]), part)
        if after > before:
            yield stream, after - before
        before = after


def _map_fetches(run: Run) -> Iterator[_Piece]:
    transport, region = Transport(run.machine.config), Region.of(run.machine.config)[PROTECTED]
    for work in run.program.layers:
        if work.map_bytes:
            way = transport.map_fetch(region.segment(work.map_bytes).moved_bytes)
            yield _Piece(MAP_PURPOSE, True, work.layer.name, -1, way.bus_cycles)
