"""Strikes on memories, the bus and the protection map, against neurons that walk by themselves."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from graph_networks import add_after, bottlenecks, joined, residual
from hardware import fused, machine
from small_networks import all_convolutional, images, one_thread, with_pooling
from struck_twin import Strike, Twin

import nce_sim as nce
from nce_sim.accuracy.struck_block import StruckBlocks, words_by_layer
from nce_sim.faults.effects import BitFlip, Change, StuckAt
from nce_sim.faults.mission import Mission
from nce_sim.faults.processes import Elements, Fault, Permanent, Single
from nce_sim.faults.sites import Site
from nce_sim.faults.strikes import Strikes
from nce_sim.workload.execute import PRECISION_OF_FORMAT, prepare

PLAIN = {
    "memory__protected_scheme": "none", "protected__buffers__scheme": "none",
    "unprotected__buffers__scheme": "none",
}  # fmt: skip

MACHINES = {
    "int8": {"number_format": "int8"},
    "int8, cut K": {
        "number_format": "int8", "protected__buffers__weight_bytes": 40,
        "unprotected__buffers__weight_bytes": 100, "unprotected__buffers__input_bytes": 700,
        "bus__quantum_bytes": 5, "bus__bytes_per_cycle": 2.5,
    },
    "int8, weights once, holes, overflow": {
        "number_format": "int8", "weights": "protected_only", "layout": "holes", "overflow": True,
        "unprotected__array__rows": 1,
    },
    "int8, overflow, systolic": {
        "number_format": "int8", "overflow": True, "unprotected__array__rows": 1,
        "dataflow": "systolic_os",
    },
    "int8, all stays": {
        "number_format": "int8", "protected__buffers__resident_bytes": 2000,
        "unprotected__buffers__resident_bytes": 2000, "protected__buffers__input_bytes": 1000,
    },
    "fp32": {"number_format": "fp32", "protected__buffers__input_bytes": 600,
             "unprotected__buffers__input_bytes": 600},
    "fp32, all stays": {
        "number_format": "fp32", "protected__buffers__input_bytes": 1000,
        "unprotected__buffers__input_bytes": 3000, "protected__buffers__resident_bytes": 8000,
        "unprotected__buffers__resident_bytes": 8000,
    },
}  # fmt: skip
LARGER = {f"{each}__buffers__input_bytes": 1200 for each in ("protected", "unprotected")}
GRAPH_MACHINES = {
    "fp32, larger": {"number_format": "fp32", **LARGER},
    "fp16, holes, cut K": {
        "number_format": "fp16", "layout": "holes", "protected__buffers__weight_bytes": 80,
        "unprotected__buffers__weight_bytes": 120, "bus__quantum_bytes": 5,
        "bus__bytes_per_cycle": 2.5, **LARGER,
    },
    "fp16, all stays": {
        "number_format": "fp16", "protected__buffers__resident_bytes": 4000,
        "unprotected__buffers__resident_bytes": 4000, **LARGER,
    },
}  # fmt: skip
MODULES = {
    "convolutions": all_convolutional, "pooling": with_pooling, "residual": residual,
    "bottlenecks": bottlenecks, "joined": joined, "added": add_after,
}  # fmt: skip

STORES = ("weight_buffer", "input_buffer", "output_buffer", "resident", "memory")


_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


@dataclass(frozen=True)
class Case:
    run: object
    network: object
    calibration: object
    executable: object

    @property
    def schedule(self):
        return self.run.schedule


@cache
def case(name, module="convolutions", **changes):
    network = nce.Workload.from_module(MODULES[module](), images(1))
    hardware = (
        fused(**PLAIN, number_format="int8", **changes) if name == "fused" else machine(
            **{**PLAIN, **(MACHINES | GRAPH_MACHINES)[name], **changes}
        )
    )  # fmt: skip
    split = nce.rank(network, None, None, "random", seed=4).split(0.5)
    run = nce.simulate(network, hardware, split)
    calibration = nce.calibrate(network, images(40))
    precision = PRECISION_OF_FORMAT[hardware.config.number_format]
    return Case(run, network, calibration, prepare(network, precision, calibration=calibration))


class Chosen:
    """Strikes of each fault of a mission, the same in every inference that is asked for."""

    def __init__(self, by_fault, inferences=None):
        self.by_fault, self.inferences = by_fault, inferences

    def of(self, fault, realisation, inference, again):
        if again or (self.inferences is not None and inference not in self.inferences):
            return Strikes.none()
        return self.by_fault[fault]


def as_fault(site, lasting=False):
    if lasting:
        return Fault(site, Permanent(Elements(places=(0,))), StuckAt(1, 0))
    return Fault(site, Single(), BitFlip())


def table(strikes):
    columns = [np.array([getattr(s, name) for s in strikes], np.int64) for name in ("bit", "start")]
    ends = np.array([s.start + 1 if s.end is None else s.end for s in strikes], np.int64)
    keep, ones, flip = (
        np.array([getattr(s, name) for s in strikes], np.uint32) for name in ("keep", "set", "flip")
    )
    change = replace(Change.nothing(len(strikes)), keep=keep, set=ones, flip=flip)
    return Strikes(*columns, ends, change)


def struck(here, strikes, inferences=None):
    """Run a block in which the strikes hit every inference; values by layer, and all that came."""
    by_site = {}
    for each in strikes:
        by_site.setdefault((Site(each.domain, each.component), each.end is not None), []).append(
            each
        )
    faults = [as_fault(site, lasting) for site, lasting in by_site]
    chosen = Chosen([table(each) for each in by_site.values()], inferences)
    mission = Mission(here.schedule, faults, replay=chosen)
    runner = StruckBlocks(here.executable, here.schedule, here.calibration)
    inputs = images(4)
    runner.begin(inputs, 3)
    arrivals = [mission.arrivals(0, inference) for inference in range(3)]
    with torch.inference_mode():
        hits = runner._hits_by_layer(arrivals)
        values, _ = runner._forward(hits, words_by_layer(arrivals))
    return runner, values, arrivals


def draw_flip(draw, width, float32=False):
    bits = draw.integers(0, 22 if float32 else width, draw.integers(1, 3))
    return int(np.bitwise_or.reduce(1 << bits))


def strikes_on(here, component, domain, draw, lasting=False):
    """A strike on some word of a memory, mostly while it is there."""
    storage = here.schedule.storage
    holdings = [each for each in storage.held(component, domain).holdings if each.length]
    if not holdings:
        return None
    holding = holdings[draw.integers(len(holdings))]
    number = np.array([draw.integers(holding.length)])
    bit = int(holding.bits(number, storage.width)[0]) + int(draw.integers(storage.width))
    end = min(holding.end, here.run.latency_cycles)
    start = int(draw.integers(max(0, holding.start - 3), end + 1))
    width, float32 = storage.width, here.executable.precision == "float32"
    if not lasting:
        return Strike(component, domain, bit, start, flip=draw_flip(draw, width, float32))
    stuck = 1 << int(draw.integers(0, 22 if float32 else width))
    ones = stuck if draw.random() < 0.5 else 0
    return Strike(component, domain, bit, 0, keep=0xFFFFFFFF ^ stuck, set=ones, end=2**62)


def check(here, strikes):
    """Compare every layer of an image; return whether any differs from what is right."""
    runner, values, _ = struck(here, strikes)
    image = 1
    clean = runner.values
    twin = Twin(here.run, here.executable, clean["input"][image].float().numpy())
    expected = twin.outputs(strikes)
    changed = False
    for layer in here.network.in_steps.layers:
        found = values[layer.name][image].float().numpy().reshape(-1)
        right = clean[layer.name][image].float().numpy().reshape(-1)
        if here.executable.precision == "int8":
            np.testing.assert_array_equal(found, expected[layer.name], layer.name)
        else:
            close = 1e-4 if here.executable.precision == "float32" else 1e-2
            np.testing.assert_allclose(
                found, expected[layer.name], rtol=close, atol=close / 10, err_msg=layer.name
            )
        changed |= not np.array_equal(found, right)
    return changed


CASES = [
    (name, module) for name in MACHINES for module in MODULES
    if module == "convolutions" or name in ("int8", "int8, all stays", "int8, cut K")
]  # fmt: skip


@pytest.mark.parametrize(("name", "module"), CASES)
def test_one_strike_on_a_memory_gives_what_the_twin_computes(name, module):
    here = case(name, module)
    draw = np.random.default_rng(len(name))
    counts = dict.fromkeys(STORES, 0)
    for component in STORES:
        for domain in ("protected", "unprotected"):
            for _ in range(4):
                strike = strikes_on(here, component, domain, draw)
                if strike is not None:
                    counts[component] += check(here, [strike])
    assert sum(counts.values()) >= 3


@pytest.mark.parametrize(
    ("name", "module"),
    [("fp32, larger", "residual"), ("fp16, holes, cut K", "residual"),
     ("fp16, all stays", "bottlenecks"), ("fp16, all stays", "added"),
     ("fp16, holes, cut K", "joined"), ("int8, all stays", "joined"),
     ("int8, cut K", "residual")],
)  # fmt: skip
def test_strikes_on_networks_that_branch(name, module):
    """On every memory, the bus, and the bits of the map by which branches are found."""
    here = case(name, module)
    draw = np.random.default_rng(len(name))
    storage, changed = here.schedule.storage, dict.fromkeys(("store", "bus", "map"), 0)
    flip = {"fp32": 0x7 << 20, "fp16": 0x7 << 7, "int8": 0x47}[name[:4]]
    for component in STORES:
        for domain in ("protected", "unprotected"):
            strike = strikes_on(here, component, domain, draw)
            if strike is not None:
                changed["store"] += check(here, [replace(strike, flip=flip)])
    for _ in range(3):
        start = int(draw.integers(here.schedule.latency_cycles))
        changed["bus"] += check(
            here, [Strike("bus", None, int(draw.integers(8)), start, flip=flip)]
        )
    first = 0
    for place, work in enumerate(here.run.program.layers):
        if work.on_array:
            bit = first + int(draw.integers(work.layer.neurons))
            start = storage.start_of(place)
            changed["map"] += check(here, [Strike("protection_map", None, bit, start, flip=1)])
        first += work.layer.neurons
    assert changed["store"]
    assert changed["map"]


@pytest.mark.parametrize("name", ["int8", "int8, cut K", "int8, all stays", "fp32"])
def test_bits_that_are_stuck_are_wrong_whenever_they_are_read(name):
    here = case(name)
    draw = np.random.default_rng(7)
    changed = 0
    for component in STORES:
        for domain in ("protected", "unprotected"):
            strike = strikes_on(here, component, domain, draw, lasting=True)
            if strike is not None:
                changed += check(here, [strike])
    assert changed >= 2


@pytest.mark.parametrize("name", ["int8", "int8, cut K", "int8, all stays", "fp32", "fused"])
@pytest.mark.parametrize("count", [2, 5])
def test_several_strikes_in_one_inference(name, count):
    here = case(name)
    draw = np.random.default_rng(count)
    changed = 0
    for _ in range(12 // count):
        strikes = [
            strikes_on(here, component, domain, draw)
            for component, domain in zip(
                draw.choice(STORES, count),
                draw.choice(["protected", "unprotected"], count),
                strict=True,
            )
        ]
        changed += check(here, [each for each in strikes if each is not None])
    assert changed


@pytest.mark.parametrize("component", STORES)
def test_strikes_on_one_word_add_up_and_the_same_bit_twice_is_right_again(component):
    here = case("int8, all stays" if component == "resident" else "int8")
    draw = np.random.default_rng(3)
    for _ in range(100):
        first = strikes_on(here, component, "unprotected", draw)
        if check(here, [first]):
            break
    start = first.start
    assert not check(here, [first, replace(first)])
    for _ in range(4):
        later = replace(
            first, start=start + int(draw.integers(0, 200)), flip=int(draw.integers(1, 256))
        )
        check(here, [first, later])
        check(here, [later, first])


@pytest.mark.parametrize("name", ["int8", "int8, cut K", "fp32", "int8, all stays", "fused"])
def test_strikes_on_the_bus(name):
    here = case(name)
    draw = np.random.default_rng(5)
    width, float32 = here.schedule.storage.width, here.executable.precision == "float32"
    changed = 0
    for _ in range(16):
        bit = int(draw.integers(int(8 * here.run.machine.config.bus.bytes_per_cycle)))
        start = int(draw.integers(here.schedule.latency_cycles))
        flip = draw_flip(draw, width, float32)
        changed += check(here, [Strike("bus", None, bit, start, flip=flip)])
    assert changed >= 2


@pytest.mark.parametrize(
    ("name", "module"),
    [("int8", "convolutions"), ("int8", "pooling"), ("fp32", "convolutions"),
     ("int8, weights once, holes, overflow", "convolutions"), ("int8, all stays", "pooling")],
)  # fmt: skip
@pytest.mark.parametrize("count", [1, 3])
def test_strikes_on_the_protection_map_shift_or_hide_what_is_read(name, module, count):
    here = case(name, module)
    draw = np.random.default_rng(count)
    changed, neurons = 0, here.network.neurons
    first = {}
    for place, work in enumerate(here.run.program.layers):
        if work.on_array:
            first[place] = sum(w.layer.neurons for w in here.run.program.layers[:place])
    for place, begin in first.items():
        layer = here.run.program.layers[place].layer
        storage = here.schedule.storage
        strikes = []
        for _ in range(count):
            row = int(draw.integers(layer.neurons))
            low = storage.start_of(place)
            start = int(draw.integers(low - 1, min(low + 3000, here.schedule.latency_cycles)))
            strikes.append(Strike("protection_map", None, begin + row, start, flip=1))
        changed += check(here, strikes)
    assert neurons > 0
    assert changed


def test_strikes_on_bits_that_hold_nothing_and_after_the_last_read_change_nothing():
    here = case("int8")
    storage, latency = here.schedule.storage, here.schedule.latency_cycles
    for component in ("weight_buffer", "input_buffer", "output_buffer"):
        holding = storage.held(component, "unprotected").holdings[0]
        bit = holding.base
        before, after = holding.start - 1, holding.end
        beyond = holding.base + holding.length * storage.width
        buffers = here.run.machine.config.domains["unprotected"].buffers
        size = 8 * getattr(buffers, component.replace("buffer", "bytes"))
        for strike in (
            Strike(component, "unprotected", bit, before, flip=255),
            Strike(component, "unprotected", 2 * size - 1, after, flip=255),
        ):
            asked = storage.held(component, "unprotected").struck(
                np.array([strike.bit]), np.array([strike.start]), np.array([strike.start + 1])
            )
            if not len(asked[0]):
                _, _, arrivals = struck(here, [strike])
                assert arrivals[0].words == 0
                assert not check(here, [strike])
        assert beyond <= 2 * size
    weights = [each for each in storage.memory["unprotected"] if each.words == "weights"]
    for holding in weights:
        strike = Strike("memory", "unprotected", holding.base, latency - 1, flip=255)
        _, _, arrivals = struck(here, [strike])
        assert arrivals[0].words == 0
        assert not check(here, [strike])


@pytest.mark.parametrize("lasting", [False, True])
def test_infinite_weights_meet_zeros_in_the_padding(lasting):
    """Lanes multiply padding, too: 0 x infinity is NaN on the border, whatever kernel computes."""
    here = case("fp32")
    storage = here.schedule.storage
    exponent = 0x7F800000
    for domain in ("protected", "unprotected"):
        weights = next(e for e in storage.memory[domain] if e.words == "weights")
        bit = int(weights.bits(np.array([0]), 32)[0])
        strike = Strike("memory", domain, bit, 0, keep=0, set=exponent)
        if lasting:
            strike = replace(strike, end=2**62)
        runner, values, _ = struck(here, [strike])
        first = here.network.layers[0]
        twin = Twin(here.run, here.executable, runner.values["input"][1].numpy())
        expected = twin.outputs([strike])[first.name]
        assert np.isnan(expected).any()
        np.testing.assert_allclose(
            values[first.name][1].numpy().reshape(-1), expected, rtol=1e-4, atol=1e-5
        )
        assert check(here, [strike])
