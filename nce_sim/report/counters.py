"""What the buffers hold and how busy the arrays are, as steps over time."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from nce_sim.machine.array import array_name
from nce_sim.machine.engine import Run
from nce_sim.machine.probe import COMPUTE
from nce_sim.schedule.domains import DOMAINS
from nce_sim.schedule.layout import RESIDENT
from nce_sim.schedule.program import LayerWork, Share
from nce_sim.schedule.tiles import OUTPUTS, WEIGHTS, Tile
from nce_sim.workload.layer import Kind, Layer

BUFFERS = ("input", "weight", "output", "resident")

Steps = list[tuple[int, float]]
"""(cycle, value from then on), in order."""


class _TileTimes(NamedTuple):
    """When a tile was loaded, computed and stored: (first cycle, cycle after the last)."""

    load: tuple[int, int]
    compute: tuple[int, int]
    store: tuple[int, int]


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
    changes: dict[str, dict[int, int]] = {name: defaultdict(int) for name in BUFFERS}
    times = _times(run, domain)
    for work in run.program.layers:
        tiles = work.tiles(domain)
        for number, tile in enumerate(tiles):
            last = number + 1 == len(tiles)
            following = None if last else tiles[number + 1]
            _add_tile(changes, work.layer, tile, following, times[work.layer.name, number])
    for start, end, size in _resident_maps(run, layers, domain):
        changes["resident"][start] += size
        changes["resident"][end] -= size
    return {name: _summed(of_buffer) for name, of_buffer in changes.items()}


def _add_tile(
    changes: Mapping[str, dict[int, int]], layer: Layer, tile: Tile, following: Tile | None,
    times: _TileTimes,
) -> None:  # fmt: skip
    """Add what a tile brings into the buffers; all of a buffer's half leaves at once."""
    inputs, weights = changes["input"], changes["weight"]
    inputs[times.load[0]] += tile.input_bytes
    weights[times.load[0]] += tile.data_bytes(WEIGHTS)
    if tile.stores:
        changes["output"][times.compute[0]] += tile.data_bytes(OUTPUTS)
        changes["output"][times.store[1]] -= tile.data_bytes(OUTPUTS)
    if following is None or not following.keeps_inputs:
        inputs[times.compute[1]] -= _held(inputs)


def _held(changes: Mapping[int, int]) -> int:
    return sum(changes.values())
