"""A run as a trace that ui.perfetto.dev opens: every resource is a track."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nce_sim.machine.array import array_name
from nce_sim.machine.engine import BUS, MAP_PURPOSE, Run
from nce_sim.machine.memory import Transport, purpose
from nce_sim.machine.probe import BARRIER, COMPUTE, SWITCH, Span
from nce_sim.report.channels import Passage, local_port, passages
from nce_sim.report.counters import buffer_fill, tile_times, utilisation
from nce_sim.report.trace_file import (
    Arguments,
    Counter,
    Process,
    Slice,
    events_of,
    trace_json,
    write_trace_file,
)
from nce_sim.schedule.domains import DOMAINS, PROTECTED
from nce_sim.schedule.program import LayerWork
from nce_sim.schedule.tiles import Stream, Tile
from nce_sim.workload.layer import Layer

LAYERS, MEMORY, CONTROLLER, MAPS = "layers", "external memory", "controller", "protection map"
SHARED = "shared"
SHARED_TRACKS = (LAYERS, BUS, MEMORY, CONTROLLER, MAPS)


def write_trace(run: Run, layers: Sequence[Layer], path: Path) -> None:
    """Write the trace of a run of the network with these layers; compressed if `path` ends in .gz.

    The same run gives the same bytes. Raises InputError if the file cannot be written.
    """
    write_trace_file(trace_bytes(run, layers), path)


def trace_bytes(run: Run, layers: Sequence[Layer]) -> bytes:
    """Return the trace as JSON in UTF-8, one event a line."""
    config = run.machine.config
    about = {"machine": config.name, "clock_mhz": config.clock_mhz, "images": run.program.batch}
    events = events_of(_processes(run), slices(run), counters(run, layers), config.clock_mhz)
    return trace_json(events, about)


def _processes(run: Run) -> dict[str, Process]:
    """Return the tracks by process, in the order in which they are shown."""
    parts = ("array", "vector unit", "tile issue", "load", "store", "local port")
    return {
        SHARED: Process(f"{run.machine.config.name}: shared", SHARED_TRACKS),
        **{
            domain: Process(f"{domain} domain", tuple(f"{domain} {part}" for part in parts))
            for domain in DOMAINS
        },
    }


def slices(run: Run) -> Iterator[Slice]:
    """Yield all slices of a run, track by track."""
    yield from _layer_slices(run)
    yield from _controller_slices(run)
    for domain in DOMAINS:
        yield from _domain_slices(run, domain)
        yield from _channel_slices(passages(run, local_port(domain)))
    on_bus = list(passages(run, BUS))
    yield from _channel_slices(on_bus)
    yield from _memory_slices(on_bus)
    yield from _map_slices(on_bus)


def _layer_slices(run: Run) -> Iterator[Slice]:
    for name, (start, end) in run.layer_intervals.items():
        causes = {
            domain: {cause: cycles for cause, cycles in of_array.items() if cycles}
            for domain, of_array in run.cycles_by_layer_and_cause[name].items()
        }
        macs = run.useful_macs_by_layer.get(name, {})
        yield Slice(LAYERS, name, start, end, {"cycles_by_cause": causes, "macs": macs})


def _controller_slices(run: Run) -> Iterator[Slice]:
    """Yield what keeps both arrays waiting: barriers, late protection maps, changes of fusing."""
    barrier = run.machine.config.controller.cycles_per_barrier
    protected, unprotected = (
        {
            (span.layer, span.start_cycle, span.end_cycle)
            for span in run.timeline
            if span.domain_of_array == domain and span.what == BARRIER
        }
        for domain in DOMAINS
    )
    for layer, (start, end) in run.layer_intervals.items():
        if barrier:
            yield Slice(CONTROLLER, f"barrier after {layer}", end - barrier, end, {"layer": layer})
        for _, begin, stop in sorted(
            wait for wait in protected & unprotected if wait[:2] == (layer, start)
        ):
            if stop < end:
                yield Slice(CONTROLLER, f"wait for map of {layer}", begin, stop, {"layer": layer})
    for span in run.timeline:
        if span.what == SWITCH and span.domain_of_array == PROTECTED:
            yield Slice(CONTROLLER, SWITCH, span.start_cycle, span.end_cycle, {"layer": span.layer})


def _domain_slices(run: Run, domain: str) -> Iterator[Slice]:
    """Yield what an array, its vector unit and its ports do, and when its tiles are issued."""
    works = {work.layer.name: (work, work.tiles(domain)) for work in run.program.layers}
    transport = Transport(run.machine.config)
    units, ports = (array_name(domain), f"{domain} vector unit"), ("load", "store")
    for span in run.timeline:
        if span.resource in units:
            yield _unit_slice(span, *works[span.layer])
        elif span.resource in [f"{domain} {port}" for port in ports]:
            tile = works[span.layer][1][span.tile]
            streams = tile.loads if span.what == "load" else tile.stores
            arguments = _stream_arguments(domain, streams)
            if span.what == "load":
                arguments["latency_cycles"] = transport.load(domain, streams).latency_cycles
            yield _slice(span, f"{span.layer} tile {span.tile}", arguments)
    issue = run.machine.config.controller.cycles_per_tile
    for (layer, number), times in tile_times(run, domain).items():
        start = times.load[0]
        if issue and times.load != (0, 0):
            arguments = {"layer": layer, "tile": number}
            yield Slice(
                f"{domain} tile issue", f"{layer} tile {number}", start - issue, start, arguments
            )


def _slice(span: Span, name: str, arguments: Arguments) -> Slice:
    about = {"layer": span.layer, "tile": span.tile}
    return Slice(
        span.resource, name, span.start_cycle, span.end_cycle,
        {**{key: value for key, value in about.items() if value not in ("", -1)}, **arguments},
    )  # fmt: skip


def _unit_slice(span: Span, work: LayerWork, tiles: tuple[Tile, ...]) -> Slice:
    """Return what an array or a vector unit did: a tile, or a wait named by its cause."""
    name = span.layer if span.tile < 0 else f"{span.layer} tile {span.tile}"
    arguments: Arguments = {"cause": span.what}
    if span.what != COMPUTE:
        return _slice(span, f"{span.what}: {name}", arguments)
    tile = tiles[span.tile]
    arguments |= {
        "image": "all" if tile.image is None else tile.image,
        "windows": list(tile.windows),
        "groups": list(tile.groups),
        "reduction": list(tile.reduction),
        "neurons": tile.neurons,
    }
    if work.on_array:
        arguments["lanes"] = work.arrays[span.resource.partition(" ")[0]].lanes
    return _slice(span, name, arguments)


def _stream_arguments(domain: str, streams: Iterable[Stream]) -> Arguments:
    """Return the bytes that streams move, in all and by purpose."""
    moved: dict[str, int] = {}
    data = 0
    for stream in streams:
        data += stream.data_bytes
        name = purpose(domain, stream)
        moved[name] = moved.get(name, 0) + stream.moved_bytes
    return {"data_bytes": data, "moved_bytes": sum(moved.values()), "bytes_by_purpose": moved}


def _channel_slices(served: Iterable[tuple[Span, list[Passage]]]) -> Iterator[Slice]:
    for span, passed in served:
        arguments = {"cycles_by_purpose": _cycles_by_purpose(passed), "tiles": _tiles(passed)}
        yield _slice(span, span.what, arguments)


def _memory_slices(served: Iterable[tuple[Span, list[Passage]]]) -> Iterator[Slice]:
    """Yield the intervals in which data of the external memory pass the bus.

    They do not reach over the spans of the bus, in each of which the same ports are served.
    """
    for _, passed in served:
        together: list[Passage] = []
        for each in passed:
            if together and not (each.external and together[-1].end_cycle == each.start_cycle):
                yield _memory_slice(together)
                together = []
            if each.external:
                together.append(each)
        if together:
            yield _memory_slice(together)


def _memory_slice(passed: list[Passage]) -> Slice:
    layers = dict.fromkeys(each.layer for each in passed)
    return Slice(
        MEMORY, " + ".join(layers), passed[0].start_cycle, passed[-1].end_cycle,
        {"cycles_by_purpose": _cycles_by_purpose(passed), "tiles": _tiles(passed)},
    )  # fmt: skip


def _map_slices(served: Iterable[tuple[Span, list[Passage]]]) -> Iterator[Slice]:
    """Yield the fetch of each layer's protection map, from its first to its last grant."""
    found: dict[str, tuple[int, int]] = {}
    for _, passed in served:
        for each in passed:
            if each.purpose == MAP_PURPOSE:
                start, _ = found.get(each.layer, (each.start_cycle, 0))
                found[each.layer] = start, each.end_cycle
    for layer, (start, end) in found.items():
        yield Slice(MAPS, f"map of {layer}", start, end, {"layer": layer})


def _cycles_by_purpose(passed: Iterable[Passage]) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in passed:
        cycles = each.end_cycle - each.start_cycle
        found[each.purpose] = found.get(each.purpose, 0) + cycles
    return found


def _tiles(passed: Iterable[Passage]) -> str:
    """Return which tiles' data passed."""
    names = (f"{p.layer} tile {p.tile}" if p.tile >= 0 else f"map of {p.layer}" for p in passed)
    return ", ".join(dict.fromkeys(names))


def counters(run: Run, layers: Sequence[Layer]) -> Iterator[Counter]:
    """Yield utilisation in per cent and what the buffers hold in bytes, by domain."""
    for domain in DOMAINS:
        for cycle, share in utilisation(run, domain):
            yield Counter(domain, "array utilisation", "%", cycle, round(100 * share, 3))
        for buffer, steps in buffer_fill(run, layers, domain).items():
            for cycle, held in steps:
                yield Counter(domain, f"{buffer} buffer", "bytes", cycle, held)
