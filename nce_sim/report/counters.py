"""What the buffers hold and how busy the arrays are, as steps over time."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from nce_sim.machine.array import array_name
from nce_sim.machine.engine import Run
from nce_sim.machine.probe import COMPUTE
from nce_sim.schedule.layout import RESIDENT
from nce_sim.schedule.program import LayerWork, Share
from nce_sim.schedule.tiles import OUTPUTS, WEIGHTS, Tile
from nce_sim.workload.layer import Kind, Layer
from nce_sim.workload.steps import machine_steps

Steps = list[tuple[int, float]]
"""(cycle, value from then on), in order."""

Change = tuple[int, int]
"""(cycle, bytes that come or go)."""


class TileTimes(NamedTuple):
    """When a tile was loaded, computed and stored, as (first cycle, cycle after the last).

    What took no time is (0, 0).
    """

    load: tuple[int, int] = (0, 0)
    compute: tuple[int, int] = (0, 0)
    store: tuple[int, int] = (0, 0)


def tile_times(run: Run, domain: str) -> dict[tuple[str, int], TileTimes]:
    """Return the times of an array's (or a vector unit's) tiles by layer and number."""
    parts = {
        (f"{domain} load", "load"): "load",
        (array_name(domain), COMPUTE): "compute",
        (f"{domain} vector unit", COMPUTE): "compute",
        (f"{domain} store", "store"): "store",
    }
    found: dict[tuple[str, int], TileTimes] = defaultdict(TileTimes)
    for span in run.timeline:
        part = parts.get((span.resource, span.what))
        if part is not None:
            key = span.layer, span.tile
            found[key] = found[key]._replace(**{part: (span.start_cycle, span.end_cycle)})
    return found


def capacities(run: Run, domain: str) -> dict[str, int]:
    """Return the bytes that a domain's buffers can hold, both halves of the double ones."""
    buffers = run.machine.config.domains[domain].buffers
    return {
        "input": 2 * buffers.input_bytes,
        "weight": 2 * buffers.weight_bytes,
        "output": 2 * buffers.output_bytes,
        "resident": buffers.resident_bytes,
    }


def buffer_fill(run: Run, layers: Sequence[Layer], domain: str) -> dict[str, Steps]:
    """Return the bytes that a domain's buffers hold or are getting, by buffer.

    Operands count from the start of their load until the last tile that computes on them ends;
    outputs from the start of their computation until they are stored; resident maps from the start
    of the layer that makes them until the end of the last layer that reads them. `layers` are all
    layers of the network.
    """
    changes: dict[str, list[Change]] = {name: [] for name in capacities(run, domain)}
    times = tile_times(run, domain)
    for work in run.program.layers:
        tiles = work.tiles(domain)
        of_layer = [times[work.layer.name, number] for number in range(len(tiles))]
        changes["input"] += _operands(
            tiles, of_layer, lambda tile: tile.input_bytes, lambda tile: tile.keeps_inputs
        )
        changes["weight"] += _operands(
            tiles, of_layer, lambda tile: tile.data_bytes(WEIGHTS), lambda tile: tile.keeps_weights
        )
        for tile, when in zip(tiles, of_layer, strict=True):
            changes["output"].append((when.compute[0], tile.data_bytes(OUTPUTS)))
            changes["output"].append((when.store[1], -tile.data_bytes(OUTPUTS)))
    changes["resident"] += _resident_maps(run, layers, domain)
    return {name: _summed(of_buffer) for name, of_buffer in changes.items()}


def _operands(
    tiles: Sequence[Tile], times: Sequence[TileTimes], size: Callable[[Tile], int],
    keeps: Callable[[Tile], bool],
) -> Iterator[Change]:  # fmt: skip
    """Yield what loads bring and what goes with the last tile that computes on it."""
    held = 0
    for number, (tile, when) in enumerate(zip(tiles, times, strict=True)):
        yield when.load[0], size(tile)
        held += size(tile)
        if number + 1 == len(tiles) or not keeps(tiles[number + 1]):
            yield when.compute[1], -held
            held = 0


def _resident_maps(run: Run, layers: Sequence[Layer], domain: str) -> Iterator[Change]:
    """Yield when a domain's resident maps come and go."""
    last_reader = _last_readers(machine_steps(tuple(layers)))
    for work in run.program.layers:
        own = [share for share in work.shares if share.domain == domain]
        elements = sum(share.elements for share in own)
        if not elements or any(share.outputs != RESIDENT for share in own):
            continue
        if run.machine.config.layout == "holes":
            elements = work.layer.outputs
        size = elements * run.program.element_bytes * run.program.batch
        reader = last_reader.get(work.layer.name)
        end = run.latency_cycles if reader is None else run.layer_intervals[reader][1]
        yield run.layer_intervals[work.layer.name][0], size
        yield end, -size


def _last_readers(layers: Iterable[Layer]) -> dict[str, str]:
    """Return the last layer that reads each map; a flattened map is the same map."""
    same: dict[str, str] = {}
    found: dict[str, str] = {}
    for layer in layers:
        if layer.kind is Kind.FLATTEN:
            same[layer.name] = same.get(layer.source, layer.source)
            continue
        for source in layer.sources:
            found[same.get(source, source)] = layer.name
    return found


def _summed(changes: Iterable[Change]) -> Steps:
    """Return the running sum; all that happens in a cycle is one step."""
    by_cycle: dict[int, int] = defaultdict(int)
    for cycle, size in changes:
        by_cycle[cycle] += size
    steps: Steps = []
    held = 0
    for cycle, size in sorted(by_cycle.items()):
        held += size
        if size:
            steps.append((cycle, held))
    return steps


def utilisation(run: Run, domain: str) -> Steps:
    """Return the share of an array's lanes that do useful work, tile by tile; 0 between tiles."""
    times = tile_times(run, domain)
    by_cycle: dict[int, float] = {}
    for work in run.program.layers:
        if not work.on_array:
            continue
        array = work.arrays[domain]
        for number, macs in enumerate(useful_macs(work, domain)):
            start, end = times[work.layer.name, number].compute
            by_cycle[start] = macs / (array.lanes * array.macs_per_cycle * (end - start))
            by_cycle.setdefault(end, 0.0)
    return sorted(by_cycle.items())


def useful_macs(work: LayerWork, domain: str) -> list[int]:
    """Return the multiply-accumulates of each tile of an array; of a repeated wave, the last."""
    found: list[int] = []
    for share in work.on(domain):
        seen: set[tuple[object, ...]] = set()
        of_share = []
        for tile in reversed(share.tiles):
            key = (tile.image, tile.windows, tile.groups, tile.chunk, tile.reduction)
            of_share.append(0 if key in seen else _macs(share, tile))
            seen.add(key)
        found += reversed(of_share)
    return found


def _macs(share: Share, tile: Tile) -> int:
    assert share.plan is not None
    start, stop = tile.reduction
    neurons = tile.neurons
    if tile.chunk is not None:
        neurons = int(share.plan.neurons[tile.windows[0], tile.groups[0], tile.chunk])
    return neurons * (stop - start)
