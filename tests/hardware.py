"""Helpers of the hardware tests: small networks as chains of layers, machines from dicts, masks.

Nothing here needs torch.
"""

import os
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nce_sim.config.machine import Machine, MachineConfig, load_machine
from nce_sim.config.technology import Technology
from nce_sim.resilience.split import Split
from nce_sim.workload.layer import INPUT, Kind, Layer

Masks = dict[str, NDArray[np.bool_]]

EFFORT = int(os.environ.get("NCE_TEST_EFFORT", "1"))
"""More than 1: as many times the examples, and other ones each time."""


def examples(count: int) -> settings:
    """Return the settings of a property test with `count` examples, the same ones each time."""
    return settings(max_examples=count * EFFORT, deadline=None, derandomize=EFFORT == 1)


@dataclass(frozen=True)
class Chain:
    """A network without parameters."""

    layers: tuple[Layer, ...]


def conv(
    name: str = "conv1", source: str = INPUT, *, inputs: tuple[int, int, int], channels: int,
    kernel: tuple[int, int] = (3, 3), stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1), dilation: tuple[int, int] = (1, 1), groups: int = 1,
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
        groups, relu=True, has_neurons=True,
    )  # fmt: skip


def linear(name: str, source: str, inputs: int, outputs: int) -> Layer:
    return Layer(name, Kind.LINEAR, source, (inputs,), (outputs,), has_neurons=True)


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


SMALL_DOMAIN = {
    "array": {
        "rows": 4, "columns": 4, "macs_per_cycle": 1, "activation_words": 8, "weight_words": 4,
        "pipeline_cycles": 2, "scheme": "none",
    },
    "buffers": {
        "input_bytes": 512, "weight_bytes": 512, "output_bytes": 128, "resident_bytes": 512,
        "port_bytes_per_cycle": 4, "scheme": "none",
    },
    "vector_lanes": 2,
}  # fmt: skip

SMALL_MACHINE = {
    "name": "test", "description": "made by the tests", "technology": "28nm", "clock_mhz": 100,
    "number_format": "fp16", "dataflow": "broadcast",
    "protected": SMALL_DOMAIN, "unprotected": deepcopy(SMALL_DOMAIN),
    "bus": {"bytes_per_cycle": 8, "quantum_bytes": 64, "length_factor": 1.5},
    "memory": {
        "bytes_per_cycle": 6.4, "latency_cycles": 10, "burst_bytes": 16,
        "protected_scheme": "secded",
    },
    "controller": {"cycles_per_tile": 3, "cycles_per_barrier": 7},
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


def machine(**changes: Any) -> Machine:
    """Return the small machine with some fields changed."""
    return Machine(
        config=MachineConfig.model_validate(machine_dict(**changes)), technology=technology()
    )


def changed(original: Machine, **changes: Any) -> Machine:
    """Return a machine with some fields changed."""
    content = _change(original.config.model_dump(), changes)
    return Machine(config=MachineConfig.model_validate(content), technology=original.technology)


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
    )  # fmt: skip


@st.composite
def chains(draw: st.DrawFn) -> tuple[Layer, ...]:
    """Draw a network: convolutions and pooling, then a head of one of several kinds."""
    layers: list[Layer] = []
    shape = draw(st.tuples(st.integers(1, 4), st.integers(2, 7), st.integers(2, 7)))
    source = INPUT
    for number in range(draw(st.integers(1, 3))):
        pool = number > 0 and min(shape[1:]) >= 2 and draw(st.booleans())
        if pool:
            kernel = draw(st.integers(2, min(3, *shape[1:])))
            layer = max_pool(
                f"pool{number}", source, shape, kernel, draw(st.integers(1, 2)),
                draw(st.integers(0, 1)),
            )  # fmt: skip
        else:
            layer = draw(convolutions(shape, f"conv{number}", source))
        layers.append(layer)
        shape, source = layer.out_shape, layer.name
    head = draw(st.sampled_from(["none", "global", "vector", "linear", "two linear"]))
    if head in ("global", "vector"):
        layers.append(global_pool("head", source, shape, as_vector=head == "vector"))
    elif head != "none":
        layers.append(flatten("flat", source, shape))
        layers.append(linear("fc1", "flat", layers[-1].outputs, draw(st.integers(1, 12))))
        if head == "two linear":
            layers.append(linear("fc2", "fc1", layers[-1].outputs, draw(st.integers(1, 12))))
    return tuple(layers)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """Draw a small machine; its two domains differ."""
    content = machine_dict(
        dataflow=draw(st.sampled_from(["broadcast", "systolic_os"])),
        number_format=draw(st.sampled_from(["int8", "fp16"])),
        bus__bytes_per_cycle=draw(st.sampled_from([1, 2.5, 8, 64])),
        bus__quantum_bytes=draw(st.sampled_from([1, 16, 64])),
        memory__bytes_per_cycle=draw(st.sampled_from([0.7, 3, 6.4, 25.6])),
        memory__latency_cycles=draw(st.integers(0, 20)),
        memory__burst_bytes=draw(st.sampled_from([1, 16, 64])),
        memory__protected_scheme=draw(st.sampled_from(["none", "parity", "secded"])),
        controller__cycles_per_tile=draw(st.integers(0, 5)),
        controller__cycles_per_barrier=draw(st.integers(0, 9)),
    )
    for domain in ("protected", "unprotected"):
        content[domain] = {
            "array": draw(arrays()),
            "buffers": draw(buffers()),
            "vector_lanes": draw(st.integers(1, 4)),
        }
    return Machine(config=MachineConfig.model_validate(content), technology=technology())


@st.composite
def arrays(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "rows": draw(st.integers(1, 5)),
        "columns": draw(st.integers(1, 5)),
        "macs_per_cycle": draw(st.integers(1, 3)),
        "activation_words": draw(st.integers(1, 9)),
        "weight_words": draw(st.integers(1, 9)),
        "pipeline_cycles": draw(st.integers(0, 4)),
        "scheme": draw(st.sampled_from(["none", "ideal", "tmr", "temporal_tmr"])),
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
    }
