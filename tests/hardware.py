"""Helpers of the hardware tests: small networks as chains of layers, machines from dicts, masks.

Nothing here needs torch.
"""

import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nce_sim.config.machine import Machine, MachineConfig, load_machine
from nce_sim.config.technology import Technology
from nce_sim.errors import InputError
from nce_sim.machine.engine import Run, simulate
from nce_sim.resilience.split import Split
from nce_sim.schedule.tiles import Stream, Tile
from nce_sim.schedule.waves import Placement
from nce_sim.workload.layer import INPUT, Kind, Layer

Masks = dict[str, NDArray[np.bool_]]

EFFORT = int(os.environ.get("NCE_TEST_EFFORT", "1"))
"""More than 1: as many times the examples, and other ones each time."""


def examples(count: int) -> settings:
    """Return the settings of a property test with `count` examples, the same ones each time."""
    return settings(max_examples=count * EFFORT, deadline=None, derandomize=EFFORT == 1)


def patient(count: int) -> settings:
    """Return the settings of a property test whose examples take long to draw, or are refused."""
    return settings(examples(count), suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Chain:
    """A network without parameters."""

    layers: tuple[Layer, ...]


def conv(
    name: str = "conv1", source: str = INPUT, *, inputs: tuple[int, int, int], channels: int,
    kernel: tuple[int, int] = (3, 3), stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1), dilation: tuple[int, int] = (1, 1), groups: int = 1,
    bias: bool = False,
) -> Layer:  # fmt: skip
    size = [
        (inputs[1 + axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1)
        // stride[axis]
        + 1
        for axis in range(2)
    ]
    if min(size) < 1:
        raise ValueError(f"the kernel is larger than the map: {size}")
    return Layer(
        name, Kind.CONV2D, source, inputs, (channels, *size), kernel, stride, padding, dilation,
        groups, relu=True, has_neurons=True, bias=bias,
    )  # fmt: skip


def linear(name: str, source: str, inputs: int, outputs: int, *, bias: bool = False) -> Layer:
    return Layer(name, Kind.LINEAR, source, (inputs,), (outputs,), has_neurons=True, bias=bias)


def max_pool(
    name: str, source: str, inputs: tuple[int, int, int], kernel: int = 2, stride: int = 2,
    padding: int = 0,
) -> Layer:  # fmt: skip
    size = [(inputs[axis] + 2 * padding - kernel) // stride + 1 for axis in (1, 2)]
    return Layer(
        name, Kind.MAX_POOL, source, inputs, (inputs[0], *size), (kernel, kernel),
        (stride, stride), (padding, padding), groups=inputs[0],
    )  # fmt: skip


def global_pool(
    name: str, source: str, inputs: tuple[int, int, int], *, as_vector: bool = False
) -> Layer:
    shape = (inputs[0],) if as_vector else (inputs[0], 1, 1)
    return Layer(
        name, Kind.AVERAGE_POOL, source, inputs, shape, inputs[1:], inputs[1:],
        groups=inputs[0], has_neurons=True,
    )  # fmt: skip


def add(name: str, source: str, *others: str, inputs: tuple[int, int, int]) -> Layer:
    return Layer(name, Kind.ADD, source, inputs, inputs, groups=inputs[0], others=others)


def flatten(name: str, source: str, inputs: tuple[int, ...]) -> Layer:
    return Layer(name, Kind.FLATTEN, source, inputs, (int(np.prod(inputs)),))


def allcnn_c() -> tuple[Layer, ...]:
    """All-CNN-C on 3x32x32 (Springenberg et al. 2015), without parameters."""
    plan = [
        (96, 3, 1), (96, 3, 1), (96, 3, 2), (192, 3, 1), (192, 3, 1), (192, 3, 2), (192, 3, 1),
        (192, 1, 1), (10, 1, 1),
    ]  # fmt: skip
    layers: list[Layer] = []
    shape, source = (3, 32, 32), INPUT
    for number, (channels, size, step) in enumerate(plan, 1):
        layer = conv(
            f"conv{number}", source, inputs=shape, channels=channels, kernel=(size, size),
            stride=(step, step), padding=(size // 2, size // 2),
        )  # fmt: skip
        layers.append(layer)
        shape, source = layer.out_shape, layer.name
    layers.append(global_pool("pool1", source, shape))
    return tuple(layers)


def vgg16() -> tuple[Layer, ...]:
    """VGG-16 on 3x224x224 (Simonyan and Zisserman 2015), without parameters."""
    plan = [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]
    layers: list[Layer] = []
    shape, source = (3, 224, 224), INPUT
    for block, (channels, count) in enumerate(plan, 1):
        for number in range(1, count + 1):
            name = f"conv{block}_{number}"
            layers.append(conv(name, source, inputs=shape, channels=channels, bias=True))
            shape, source = layers[-1].out_shape, name
        layers.append(max_pool(f"pool{block}", source, shape))
        shape, source = layers[-1].out_shape, f"pool{block}"
    layers.append(flatten("flat", source, shape))
    source, size = "flat", layers[-1].outputs
    for number, outputs in enumerate((4096, 4096, 1000), 1):
        layers.append(linear(f"fc{number}", source, size, outputs, bias=True))
        source, size = f"fc{number}", outputs
    return tuple(layers)


SMALL_DOMAIN = {
    "array": {
        "rows": 4, "columns": 4, "macs_per_cycle": 1, "activation_words": 8, "weight_words": 4,
        "pipeline_cycles": 2, "scheme": "none",
    },
    "buffers": {
        "input_bytes": 512, "weight_bytes": 512, "output_bytes": 128, "resident_bytes": 512,
        "port_bytes_per_cycle": 4, "scheme": "none", "codec_cycles": 0,
    },
    "vector_lanes": 2,
}  # fmt: skip

SMALL_MACHINE = {
    "name": "test", "description": "made by the tests", "technology": "28nm", "clock_mhz": 100,
    "number_format": "fp16", "dataflow": "broadcast", "layout": "packed", "weights": "duplicate",
    "overflow": False,
    "protected": SMALL_DOMAIN, "unprotected": deepcopy(SMALL_DOMAIN),
    "bus": {
        "bytes_per_cycle": 8, "quantum_bytes": 16, "arbitration": "round_robin",
        "length_factor": 1.5,
    },
    "memory": {
        "bytes_per_cycle": 6.4, "efficiency": {"weights": 1.0, "maps": 1.0, "writes": 1.0},
        "latency_cycles": 10, "outstanding_requests": 8, "burst_bytes": 16, "row_bytes": 64,
        "refresh_interval_cycles": 100, "refresh_cycles": 0, "protected_scheme": "secded",
        "codec_cycles": 0, "kind": "lpddr4",
    },
    "controller": {"cycles_per_tile": 3, "cycles_per_barrier": 7},
}  # fmt: skip

SMALL_FABRIC = {
    "rows": 4, "columns": 7, "macs_per_cycle": 1, "activation_words_per_row": 2,
    "weight_words_per_column": 1, "pipeline_cycles": 2, "scheme": "tmr", "clusters": 1,
    "fuse_per_layer": True, "switch_cycles": 5, "switch_pj": 10,
}  # fmt: skip


@cache
def technology() -> Technology:
    return load_machine("nce-small").technology


def machine_dict(**changes: Any) -> dict[str, Any]:
    """Return the small machine as a dict; `protected__array__rows=2` changes one field."""
    content = deepcopy(SMALL_MACHINE)
    return _change(content, changes)


def _change(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    for path, value in changes.items():
        *folders, last = path.split("__")
        place: Any = content
        for folder in folders:
            place = place[folder]
        place[last] = value
    return content


def fused_dict(**changes: Any) -> dict[str, Any]:
    """Return the small machine with a fabric in place of its arrays, as a dict."""
    content = {**machine_dict(), "fabric": deepcopy(SMALL_FABRIC)}
    for domain in ("protected", "unprotected"):
        del content[domain]["array"]
    return _change(content, changes)


def machine(**changes: Any) -> Machine:
    """Return the small machine with some fields changed."""
    return Machine(
        config=MachineConfig.model_validate(machine_dict(**changes)), technology=technology()
    )


def changed(original: Machine, **changes: Any) -> Machine:
    """Return a machine with some fields changed."""
    content = original.config.model_dump()
    if content["fabric"] is not None:
        for domain in ("protected", "unprotected"):
            del content[domain]["array"]
    config = MachineConfig.model_validate(_change(content, changes))
    return Machine(config=config, technology=original.technology)


def fused(**changes: Any) -> Machine:
    """Return the small machine with a fabric, some fields changed."""
    return Machine(
        config=MachineConfig.model_validate(fused_dict(**changes)), technology=technology()
    )


def split_of(masks: Masks) -> Split:
    return Split(0.5, "neuron", masks)


def dense(layers: tuple[Layer, ...], *, unprotected: bool = False) -> Split:
    """Send all neurons to one domain."""
    return split_of(
        {layer.name: np.full(layer.out_shape, unprotected) for layer in layers if layer.neurons}
    )


def random_mask(shape: tuple[int, ...], seed: int) -> NDArray[np.bool_]:
    """Return a mask with few, many, all or no marks, evenly spread or by channel."""
    draw = np.random.default_rng(seed)
    density = draw.choice([0.0, 0.1, 0.4, 0.5, 0.9, 1.0])
    if draw.random() < 0.5:
        by_channel = draw.random(shape[0]) < density
        noise = draw.random(shape) < draw.choice([0.0, 0.2])
        return by_channel.reshape(-1, *[1] * (len(shape) - 1)) ^ noise
    return draw.random(shape) < density


def random_masks(layers: tuple[Layer, ...], seed: int) -> Masks:
    return {
        layer.name: random_mask(layer.out_shape, seed + number)
        for number, layer in enumerate(layers)
        if layer.has_neurons
    }


@lru_cache(maxsize=512)
def slow_inputs(
    layer: Layer, neuron: int, reduction: tuple[int, int] | None = None
) -> set[tuple[int, ...]]:
    """Return the input elements of a neuron; for a range of K, those of whole input channels."""
    if layer.kind is Kind.LINEAR:
        start, stop = reduction or (0, layer.in_shape[0])
        return {(feature,) for feature in range(start, stop)}
    shape = layer.out_shape if len(layer.out_shape) == 3 else (layer.channels, 1, 1)
    channel, row, column = (int(index) for index in np.unravel_index(neuron, shape))
    per_group = layer.in_shape[0] // layer.groups
    base = channel // (layer.channels // layer.groups) * per_group
    start, stop = reduction or (0, per_group * layer.window)
    numbers = range(start // layer.window, -(-stop // layer.window))
    found = set()
    for i in range(layer.kernel[0]):
        for j in range(layer.kernel[1]):
            y = row * layer.stride[0] + i * layer.dilation[0] - layer.padding[0]
            x = column * layer.stride[1] + j * layer.dilation[1] - layer.padding[1]
            if 0 <= y < layer.in_shape[1] and 0 <= x < layer.in_shape[2]:
                found |= {(base + number, y, x) for number in numbers}
    return found


def neurons_of(tile: Tile, placed: Placement) -> list[int]:
    """Return the neurons of a tile's waves."""
    here = (placed.window >= tile.windows[0]) & (placed.window < tile.windows[1])
    here &= (placed.group >= tile.groups[0]) & (placed.group < tile.groups[1])
    if tile.chunk is not None:
        here &= placed.chunk == tile.chunk
    return placed.neuron[here].tolist()


def kept(tiles: Sequence[Tile], what: str) -> list[list[Tile]]:
    """Group consecutive tiles that keep the operands ("inputs", "weights") of the first."""
    found: list[list[Tile]] = []
    for tile in tiles:
        if getattr(tile, f"keeps_{what}"):
            found[-1].append(tile)
        else:
            found.append([tile])
    return found


def decimal(number: float) -> Fraction:
    return Fraction(str(number))


def memory_rate(config: MachineConfig, efficiency: float) -> Fraction:
    """Return bytes a cycle of the memory, for one port."""
    memory = config.memory
    rate = decimal(memory.bytes_per_cycle) * decimal(efficiency)
    rate *= 1 - Fraction(memory.refresh_cycles, memory.refresh_interval_cycles)
    if memory.latency_cycles:
        under_way = memory.outstanding_requests * memory.burst_bytes
        rate = min(rate, Fraction(under_way, memory.latency_cycles))
    return rate


def stream_time(config: MachineConfig, array: str, stream: Stream) -> tuple[str, Fraction, int]:
    """Return the path that a stream of a tile takes, its time there, and its latency."""
    bus, port = (
        decimal(rate)
        for rate in (
            config.bus.bytes_per_cycle, config.domains[stream.domain].buffers.port_bytes_per_cycle,
        )
    )  # fmt: skip
    if stream.external:
        efficiency = {"weights": "weights", "outputs": "writes"}.get(stream.what, "maps")
        rate = min(bus, memory_rate(config, getattr(config.memory.efficiency, efficiency)))
        codec = config.memory.codec_cycles if stream.domain == "protected" else 0
        return "bus", stream.moved_bytes / rate, config.memory.latency_cycles + codec
    codec = config.domains[stream.domain].buffers.codec_cycles
    if stream.domain == array:
        return f"{array} port", stream.moved_bytes / port, codec
    return "bus", stream.moved_bytes / min(bus, port), codec


pairs = st.tuples(st.integers(1, 2), st.integers(1, 2))


@st.composite
def convolutions(
    draw: st.DrawFn, inputs: tuple[int, int, int] | None = None, name: str = "conv1",
    source: str = INPUT,
) -> Layer:  # fmt: skip
    """Draw any convolution: strided, padded, dilated, grouped, depthwise."""
    shape = inputs or draw(st.tuples(st.integers(1, 6), st.integers(1, 7), st.integers(1, 7)))
    groups = draw(st.sampled_from([d for d in range(1, shape[0] + 1) if shape[0] % d == 0]))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(pairs)
    padding = tuple(
        draw(st.integers(max(0, -(-(d * (k - 1) + 1 - size) // 2)), 3))
        for k, d, size in zip(kernel, dilation, shape[1:], strict=True)
    )
    return conv(
        name, source, inputs=shape, channels=groups * draw(st.integers(1, 6 // groups + 1)),
        kernel=kernel, stride=draw(pairs), padding=padding, dilation=dilation, groups=groups,
        bias=draw(st.booleans()),
    )  # fmt: skip


@st.composite
def residual_blocks(
    draw: st.DrawFn, shape: tuple[int, int, int], number: int, source: str
) -> list[Layer]:
    """Draw one or two convolutions that keep the shape, and the sum of their maps with the source.

    The sum may have three parts.
    """
    layers: list[Layer] = []
    names = [source]
    for step in range(draw(st.integers(1, 2))):
        size = draw(st.sampled_from([1, 3]))
        layers.append(
            conv(
                f"conv{number}_{step}", names[-1], inputs=shape, channels=shape[0],
                kernel=(size, size), padding=(size // 2, size // 2), bias=draw(st.booleans()),
            )
        )  # fmt: skip
        names.append(layers[-1].name)
    others = names[:-1] if draw(st.booleans()) else names[:1]
    return [*layers, add(f"add{number}", names[-1], *others, inputs=shape)]


@st.composite
def chains(draw: st.DrawFn) -> tuple[Layer, ...]:
    """Draw a network: convolutions, pooling, residual blocks, then a head of some kind."""
    layers: list[Layer] = []
    shape = draw(st.tuples(st.integers(1, 4), st.integers(2, 7), st.integers(2, 7)))
    source = INPUT
    for number in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["conv", "conv", "pool", "residual"]))
        if kind == "pool" and number > 0 and min(shape[1:]) >= 2:
            kernel = draw(st.integers(2, min(3, *shape[1:])))
            layer = max_pool(
                f"pool{number}", source, shape, kernel, draw(st.integers(1, 2)),
                draw(st.integers(0, 1)),
            )  # fmt: skip
            layers.append(layer)
        elif kind == "residual":
            layers += draw(residual_blocks(shape, number, source))
        else:
            layers.append(draw(convolutions(shape, f"conv{number}", source)))
        shape, source = layers[-1].out_shape, layers[-1].name
    head = draw(st.sampled_from(["none", "global", "vector", "linear", "two linear"]))
    if head in ("global", "vector"):
        layers.append(global_pool("head", source, shape, as_vector=head == "vector"))
    elif head != "none":
        layers.append(flatten("flat", source, shape))
        outputs, bias = st.integers(1, 12), draw(st.booleans())
        layers.append(linear("fc1", "flat", layers[-1].outputs, draw(outputs), bias=bias))
        if head == "two linear":
            layers.append(linear("fc2", "fc1", layers[-1].outputs, draw(outputs)))
    return tuple(layers)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """Draw a small machine: two unlike domains with their own arrays, or one fabric."""
    content = machine_dict(
        dataflow=draw(st.sampled_from(["broadcast", "systolic_os"])),
        number_format=draw(st.sampled_from(["int8", "fp16"])),
        layout=draw(st.sampled_from(["packed", "holes"])),
        weights=draw(st.sampled_from(["duplicate", "protected_only"])),
        overflow=draw(st.booleans()),
        memory=draw(memories()),
        controller__cycles_per_tile=draw(st.integers(0, 5)),
        controller__cycles_per_barrier=draw(st.integers(0, 9)),
        controller__rotation=draw(st.sampled_from(["none", "layers", "inferences", "repeats"])),
    )
    if draw(st.integers(0, 3)) == 0:
        content["fabric"] = draw(fabrics())
    for domain in ("protected", "unprotected"):
        content[domain] = {"buffers": draw(buffers()), "vector_lanes": draw(st.integers(1, 4))}
        if "fabric" not in content:
            content[domain]["array"] = draw(arrays())
    content["bus"] = draw(buses(content))
    return Machine(config=MachineConfig.model_validate(content), technology=technology())


@st.composite
def buses(draw: st.DrawFn, content: dict[str, Any]) -> dict[str, Any]:
    """Draw a bus with a quantum of at least a cycle and at most an eighth of any buffer."""
    halves = (f"{name}_bytes" for name in ("input", "weight", "output"))
    held = [content[d]["buffers"][half] for half in halves for d in ("protected", "unprotected")]
    quantum = draw(st.sampled_from([q for q in (1, 3, 5, 8, 12, 50) if q * 8 <= min(held)]))
    widths = [width for width in (0.7, 1, 2.5, 8, 50) if width <= quantum]
    return {
        "bytes_per_cycle": draw(st.sampled_from(widths)),
        "quantum_bytes": quantum,
        "arbitration": draw(st.sampled_from(["round_robin", "priority"])),
        "length_factor": 1.5,
    }


@st.composite
def memories(draw: st.DrawFn) -> dict[str, Any]:
    interval = draw(st.sampled_from([10, 100]))
    shares = st.sampled_from([1.0, 0.85, 0.3])
    return {
        "bytes_per_cycle": draw(st.sampled_from([0.7, 3, 6.4, 25.6])),
        "efficiency": {name: draw(shares) for name in ("weights", "maps", "writes")},
        "latency_cycles": draw(st.integers(0, 20)),
        "outstanding_requests": draw(st.sampled_from([1, 2, 16])),
        "burst_bytes": draw(st.sampled_from([1, 6, 16, 64])),
        "row_bytes": draw(st.sampled_from([16, 64, 200])),
        "refresh_interval_cycles": interval,
        "refresh_cycles": draw(st.sampled_from([0, 1, interval // 3])),
        "kind": "lpddr4",
        "protected_scheme": draw(st.sampled_from(["none", "ideal", "parity", "secded"])),
        "codec_cycles": draw(st.integers(0, 2)),
    }


@st.composite
def arrays(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "rows": draw(st.integers(1, 5)),
        "columns": draw(st.integers(1, 5)),
        "macs_per_cycle": draw(st.integers(1, 3)),
        "activation_words": draw(st.integers(1, 9)),
        "weight_words": draw(st.integers(1, 9)),
        "pipeline_cycles": draw(st.integers(0, 4)),
        "scheme": draw(st.sampled_from(SCHEMES)),
        "clip": draw(st.booleans()),
    }


SCHEMES = (
    "none", "ideal", "tmr", "dmr_retry", "temporal_dmr", "temporal_tmr", "parity", "hardened",
)  # fmt: skip


@st.composite
def fabrics(draw: st.DrawFn) -> dict[str, Any]:
    scheme = draw(st.sampled_from(["tmr", "dmr_retry"]))
    copies = 3 if scheme == "tmr" else 2
    columns = draw(st.integers(copies + 1, 10))
    return {
        "rows": draw(st.integers(1, 4)),
        "columns": columns,
        "macs_per_cycle": draw(st.integers(1, 2)),
        "activation_words_per_row": draw(st.integers(1, 2)),
        "weight_words_per_column": draw(st.integers(1, 2)),
        "pipeline_cycles": draw(st.integers(0, 4)),
        "scheme": scheme,
        "clusters": draw(st.integers(1, (columns - 1) // copies)),
        "fuse_per_layer": draw(st.booleans()),
        "switch_cycles": draw(st.sampled_from([0, 7, 50])),
        "switch_pj": 10,
    }


@st.composite
def buffers(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "input_bytes": draw(st.sampled_from([60, 120, 250, 1000])),
        "weight_bytes": draw(st.sampled_from([10, 40, 200, 1000])),
        "output_bytes": draw(st.sampled_from([50, 80, 400])),
        "resident_bytes": draw(st.sampled_from([0, 50, 150, 2000])),
        "port_bytes_per_cycle": draw(st.sampled_from([1, 2.5, 16])),
        "scheme": draw(st.sampled_from(["none", "parity", "secded"])),
        "codec_cycles": draw(st.integers(0, 2)),
    }


@st.composite
def runs(draw: st.DrawFn, *, single: bool = False) -> Run:
    """Draw a network, a machine that it fits, a split, a batch and a rate of mismatches; run it.

    `single`: of one image, and no wave is repeated.
    """
    layers, hardware = draw(chains()), draw(machines())
    masks = random_masks(layers, draw(st.integers(0, 2**32)))
    batch = 1 if single else draw(st.sampled_from([1, 1, 1, 2, 3]))
    rate = 0.0 if single else draw(st.sampled_from([0.0, 0.0, 0.001, 0.02, 1.0]))
    try:
        return simulate(
            Chain(layers), hardware, split_of(masks), batch=batch, mismatch_rate=rate, seed=batch
        )
    except InputError:
        assume(False)
        raise
