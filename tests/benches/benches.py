"""Test benches: each component of the machine alone under synthetic traffic, and what it counts.

Nothing here is random: the traffic comes from a fixed sequence of numbers.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simpy

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from hardware import conv, fused, linear, machine  # noqa: E402

from nce_sim.config.machine import load_machine  # noqa: E402
from nce_sim.machine.buffer import Credits, Progress  # noqa: E402
from nce_sim.machine.channel import Channel  # noqa: E402
from nce_sim.machine.controller import Controller  # noqa: E402
from nce_sim.machine.memory import Transport  # noqa: E402
from nce_sim.schedule.balance import fuse_by_layer  # noqa: E402
from nce_sim.schedule.compaction import (  # noqa: E402
    distinct_positions,
    neurons_by_window,
    pack_windows,
    wave_sizes,
)
from nce_sim.schedule.domains import DOMAINS  # noqa: E402
from nce_sim.schedule.layout import EXTERNAL, RESIDENT, Region, StoredMap  # noqa: E402
from nce_sim.schedule.program import build_program  # noqa: E402
from nce_sim.schedule.retry import repeat  # noqa: E402
from nce_sim.schedule.tiles import (  # noqa: E402
    CROSSINGS,
    INPUTS,
    OUTPUTS,
    WEIGHTS,
    Stream,
    WeightStore,
)
from nce_sim.schedule.waves import Array, plan_waves  # noqa: E402

Counts = dict[str, Any]
BENCHES: dict[str, Callable[[], Counts]] = {}


def bench(function: Callable[[], Counts]) -> Callable[[], Counts]:
    BENCHES[function.__name__] = function
    return function


def numbers(seed: int = 1) -> Iterator[int]:
    """Yield numbers below 2^16 from the generator of the C standard's example."""
    state = seed
    while True:
        state = (state * 1103515245 + 12345) % 2**31
        yield state >> 15


def marks(shape: tuple[int, ...], percent: int, seed: int = 1) -> np.ndarray:
    drawn = numbers(seed)
    flat = [next(drawn) % 100 < percent for _ in range(int(np.prod(shape)))]
    return np.array(flat).reshape(shape)


def drive(quantum: int | None, priority: bool) -> Counts:
    """Let five ports send forty transfers each, at any time."""
    env, ports = simpy.Environment(), tuple("abcde")
    watched, ends = [], dict.fromkeys(ports, 0)
    channel = Channel(env, ports, quantum, priority, lambda *interval: watched.append(interval))

    def send(port: str, drawn: Iterator[int]) -> Iterator[simpy.Event]:
        for _ in range(40):
            yield env.timeout(next(drawn) % 40)
            yield channel.request(port, 1 + next(drawn) % 20)
            ends[port] += int(env.now)

    for place, port in enumerate(ports):
        env.process(send(port, numbers(place)))
    env.run()
    return {
        "busy_cycles": channel.traffic.busy_cycles,
        "intervals": len(watched),
        "idle_cycles": int(env.now) - channel.traffic.busy_cycles,
        "sum_of_ends": ends,
    }


@bench
def channel() -> Counts:
    return {
        f"quantum {quantum}, {'priority' if priority else 'round robin'}": drive(quantum, priority)
        for quantum in (1, 7, None)
        for priority in (False, True)
    }


@bench
def double_buffers() -> Counts:
    """A producer that takes a half every 2 cycles, a consumer that needs 5 for each."""
    env = simpy.Environment()
    halves, made = Credits(env), Progress(env)
    taken, used = [], []

    def produce() -> Iterator[simpy.Event]:
        for _ in range(10):
            half = halves.take()
            if half is not None:
                yield half
            taken.append(int(env.now))
            yield env.timeout(2)
            made.step()

    def consume() -> Iterator[simpy.Event]:
        for number in range(10):
            item = made.of(number)
            if item is not None:
                yield item
            yield env.timeout(5)
            halves.give_back()
            used.append(int(env.now))

    env.process(produce())
    env.process(consume())
    env.run()
    return {"taken": taken, "used": used, "free": halves.free, "finished": made.finished}


@bench
def controller() -> Counts:
    env = simpy.Environment()
    sequencer = Controller(env, machine().config.controller)
    closed = []

    def close() -> Iterator[simpy.Event]:
        for _ in range(4):
            yield env.timeout(sequencer.issue_cycles)
            yield sequencer.close_layer()
            closed.append(int(env.now))

    env.process(close())
    env.run()
    return {"issue_cycles": sequencer.issue_cycles, "closed": closed}


@bench
def transport() -> Counts:
    """Three hundred tiles of up to three streams on each bundled machine."""
    found = {}
    for name in ("nce-28nm", "nce-small", "nce-fused", "os-32x32"):
        moves, drawn = Transport(load_machine(name).config), numbers()
        sums = [0, 0, 0]
        for number in range(300):
            streams = tuple(
                Stream(
                    (WEIGHTS, INPUTS, CROSSINGS)[next(drawn) % 3], DOMAINS[next(drawn) % 2],
                    next(drawn) % 2 == 0, 0, 1 + next(drawn) % 9999, 0,
                )
                for _ in range(1 + number % 3)
            )  # fmt: skip
            stored = Stream(OUTPUTS, "protected", number % 2 == 0, 0, 1 + next(drawn) % 999, 0)
            for way in (moves.load("protected", streams), moves.store("protected", (stored,))):
                sums = [total + cycles for total, cycles in zip(sums, way, strict=True)]
        found[name] = dict(zip(("latency", "bus", "local"), sums, strict=True))
        found[name]["map_fetch"] = list(moves.map_fetch(1234))
    return found


@bench
def layout() -> Counts:
    """Whole reads, bands and flat ranges of a map of 12 x 20 x 28, half of it external."""
    found = {}
    mask, needed = marks((12, 20, 28), 40), marks((1, 5, 28), 50, seed=2)[0]
    for kind in ("packed", "holes"):
        regions = Region.of(machine(layout=kind, memory__row_bytes=512).config)
        for place in (EXTERNAL, RESIDENT):
            places = {"protected": EXTERNAL, "unprotected": place}
            stored = StoredMap(mask, places, regions)
            reads = {
                "whole": stored.read(0, np.ones(mask.shape, bool), np.arange(12)),
                "bands": stored.read_all_channels([7], [needed])[0],
                "flat": stored.read_flat(100, 3210),
            }
            for what, demands in reads.items():
                found[f"{kind}, {place}, {what}"] = {d: list(demands[d]) for d in DOMAINS}
            found[f"{kind}, {place}, kept"] = {d: stored.kept_bytes(d) for d in DOMAINS}
    return found


@bench
def weights() -> Counts:
    regions = Region.of(load_machine("nce-28nm").config)
    found = {}
    for domain in DOMAINS:
        for own_order in (False, True):
            store = WeightStore(domain, regions[domain], own_order)
            streams = [store.stream(channels, 2 * 27 * channels) for channels in range(1, 17)]
            found[f"{domain}, {'own' if own_order else 'foreign'} order"] = {
                "data": sum(stream.data_bytes for stream in streams),
                "moved": sum(stream.moved_bytes for stream in streams),
                "rows_opened": sum(stream.rows_opened for stream in streams),
            }
    return found


@bench
def compaction() -> Counts:
    mask, found = marks((21, 200), 35), {}
    families = np.arange(21) // 3
    for window in (16, 24, 200):
        packed = pack_windows(mask, window)
        counts = neurons_by_window(packed)
        chunks = -(-int(counts.max()) // 8)
        neurons, columns = wave_sizes(counts, 8, 4, chunks)
        touched = (distinct_positions(packed, 8, 4, chunks, f) for f in (None, families))
        found[f"window {window}"] = {
            "waves": int(np.count_nonzero(neurons)),
            "neurons": int(neurons.sum()),
            "columns": int(columns.sum()),
            "positions, positions by family": [int(positions.sum()) for positions in touched],
        }
    return found


@bench
def waves() -> Counts:
    layers = {
        "convolution": conv(inputs=(16, 14, 14), channels=40),
        "depthwise": conv(inputs=(40, 14, 14), channels=40, groups=40),
        "fully connected": linear("fc", "input", 300, 500),
    }
    found = {}
    for name, layer in layers.items():
        for dataflow in ("broadcast", "systolic_os"):
            config = load_machine("nce-28nm").config.protected.array
            lanes = Array.create(config, dataflow, 1)
            plan = plan_waves(layer, marks(layer.out_shape, 45), lanes, batch=3)
            found[f"{name}, {dataflow}"] = {
                "window": plan.window, "waves": plan.waves, "cycles": plan.total_cycles,
                "fill": plan.fill_cycles, "ports": plan.port_cycles,
                "image_rows": plan.image_rows,
            }  # fmt: skip
    return found


def small_program(**changes: Any):
    layers = (
        conv(inputs=(6, 10, 10), channels=20, bias=True),
        conv("conv2", "conv1", inputs=(20, 10, 10), channels=9, stride=(2, 2)),
    )
    masks = {layer.name: marks(layer.out_shape, 80) for layer in layers}
    return build_program(layers, machine(**changes).config, masks, batch=2)


@bench
def tiles() -> Counts:
    found = {}
    for weight_bytes in (150, 512, 4000):
        program = small_program(protected__buffers__weight_bytes=weight_bytes)
        for work in program.layers:
            for array in DOMAINS:
                cut = work.tiles(array)
                found[f"{weight_bytes}, {work.layer.name}, {array}"] = {
                    "tiles": len(cut), "cycles": sum(tile.cycles for tile in cut),
                    "loaded": sum(tile.moved_bytes for tile in cut),
                    "stored": sum(s.moved_bytes for tile in cut for s in tile.stores),
                    "ranges": sum(tile.chunk is not None for tile in cut),
                }  # fmt: skip
    return found


@bench
def overflowing() -> Counts:
    found = {}
    for scheme in ("none", "temporal_tmr"):
        program = small_program(overflow=True, protected__array__scheme=scheme)
        found[scheme] = [
            {f"{s.domain} on {s.array}": s.elements for s in work.shares} for work in program.layers
        ]
    return found


@bench
def fusing() -> Counts:
    layers = [conv(f"conv{number}", inputs=(1, 2, 2), channels=1) for number in range(12)]
    drawn = numbers()
    costs = {layer.name: [next(drawn) % 60 for _ in range(4)] for layer in layers}
    found = {}
    for switch in (0, 5, 20, 1000):
        fabric = fused(fabric__columns=13, fabric__clusters=2, fabric__switch_cycles=switch)
        chosen = fuse_by_layer(
            layers, fabric.config.fabric,
            lambda layer, arrays: costs[layer.name][arrays["protected"].columns - 1],
        )  # fmt: skip
        found[f"switching in {switch}"] = [by["protected"].columns for by in chosen.values()]
    return found


@bench
def repeating() -> Counts:
    found = {}
    for weight_bytes in (150, 4000):
        program = small_program(
            protected__array__scheme="dmr_retry", protected__buffers__weight_bytes=weight_bytes
        )
        for work in program.layers:
            share = work.on("protected")[0]
            marked = marks((2, *share.plan.neurons.shape), 30)
            again = repeat(share, marked)
            found[f"{weight_bytes}, {work.layer.name}"] = {
                "waves": int(again.mismatches.sum()), "cycles": again.repeat_cycles,
                "tiles": len(again.tiles) - len(share.tiles),
                "loaded": sum(t.moved_bytes for t in again.tiles)
                - sum(t.moved_bytes for t in share.tiles),
            }  # fmt: skip
    return found
