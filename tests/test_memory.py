"""Transport: rates, latencies and the rounding of what moves for a tile, against fractions."""

from collections import defaultdict
from fractions import Fraction
from math import ceil

import pytest
from hardware import buffers, decimal, examples, machine, memories, memory_rate, stream_time
from hypothesis import given
from hypothesis import strategies as st

from nce_sim.machine.engine import Engine
from nce_sim.machine.memory import Transport, Way, purpose
from nce_sim.schedule.domains import DOMAINS
from nce_sim.schedule.program import Program
from nce_sim.schedule.tiles import CROSSINGS, INPUTS, OUTPUTS, WEIGHTS, Stream


def slow_way(config, array, streams, *, is_load):
    """Add up the time of each stream on the bus and on the local port, then round up once."""
    times, latency = defaultdict(Fraction), 0
    for stream in streams:
        path, time, its_latency = stream_time(config, array, stream)
        times[path] += time
        latency = max(latency, its_latency)
    return Way(latency if is_load else 0, ceil(times["bus"]), ceil(times[f"{array} port"]))


@st.composite
def configs(draw):
    changes = {
        f"{domain}__buffers": {
            **draw(buffers()), "input_bytes": 900, "weight_bytes": 900, "output_bytes": 900
        }
        for domain in DOMAINS
    }  # fmt: skip
    width = draw(st.sampled_from([0.7, 1, 2.5, 8, 50]))
    return machine(
        bus__bytes_per_cycle=width, bus__quantum_bytes=100, memory=draw(memories()), **changes
    ).config


@st.composite
def streams(draw, kinds):
    moved = draw(st.integers(1, 3000))
    return Stream(
        draw(st.sampled_from(kinds)), draw(st.sampled_from(DOMAINS)), draw(st.booleans()),
        moved, moved, 1,
    )  # fmt: skip


@given(
    configs(), st.sampled_from(DOMAINS), st.lists(streams((WEIGHTS, INPUTS, CROSSINGS)), max_size=4)
)
@examples(100)
def test_the_loads_of_a_tile_are_one_transfer_on_each_path(config, array, loads):
    found = Transport(config).load(array, tuple(loads))
    assert found == slow_way(config, array, loads, is_load=True)


@given(configs(), st.sampled_from(DOMAINS), st.lists(streams((OUTPUTS,)), max_size=3))
@examples(50)
def test_stores_wait_for_no_latency(config, array, stores):
    found = Transport(config).store(array, tuple(stores))
    assert found == slow_way(config, array, stores, is_load=False)


@given(configs(), st.integers(1, 2000))
@examples(50)
def test_the_protection_map_is_read_from_the_protected_region(config, size):
    stream = Stream(WEIGHTS, "protected", True, size, size, 1)
    expected = slow_way(config, "protected", [stream], is_load=True)
    assert Transport(config).map_fetch(size) == expected


@given(configs(), st.lists(streams((WEIGHTS, INPUTS, CROSSINGS)), min_size=2, max_size=4))
@examples(40)
def test_the_rest_of_a_cycle_is_carried_from_one_stream_to_the_next(config, loads):
    transport = Transport(config)
    together = transport.load("protected", tuple(loads))
    apart = [transport.load("protected", (stream,)) for stream in loads]
    for path in ("bus_cycles", "local_cycles"):
        cycles = [getattr(way, path) for way in apart]
        used = sum(each > 0 for each in cycles)
        assert max(cycles) <= getattr(together, path) <= sum(cycles)
        assert sum(cycles) - getattr(together, path) < max(used, 1)


@given(configs())
@examples(40)
def test_a_memory_sustains_a_share_of_its_peak_and_no_more_than_its_requests_allow(config):
    memory = config.memory
    for share in (1.0, 0.85, 0.1):
        assert memory.rate(share) == memory_rate(config, share)
        assert memory.rate(share) <= decimal(memory.bytes_per_cycle)


def test_refreshes_take_their_share_of_the_bandwidth():
    resting, busy = (
        machine(memory__refresh_interval_cycles=100, memory__refresh_cycles=cycles).config.memory
        for cycles in (0, 25)
    )
    assert resting.rate(1.0) == decimal(6.4)
    assert busy.rate(1.0) == decimal(4.8)


def test_few_outstanding_requests_bound_the_bandwidth_by_littles_law():
    changes = {"memory__latency_cycles": 50, "memory__burst_bytes": 16}
    one = machine(memory__outstanding_requests=1, **changes).config.memory
    assert one.rate(1.0) == Fraction(16, 50)
    many = machine(memory__outstanding_requests=100, **changes).config.memory
    assert many.rate(1.0) == decimal(6.4)
    free = machine(memory__outstanding_requests=1, memory__latency_cycles=0).config.memory
    assert free.rate(1.0) == decimal(6.4)


@pytest.mark.parametrize(
    ("size", "cycles"), [(1, 1), (6, 1), (7, 2), (64, 10), (65, 11), (64_000, 10_000)]
)
def test_a_lone_stream_takes_its_bytes_over_the_rate_rounded_up(size, cycles):
    stream = Stream(INPUTS, "unprotected", True, size, size, 1)
    assert Transport(machine().config).load("unprotected", (stream,)) == Way(10, cycles, 0)


def test_a_tile_worked_out_by_hand():
    """Weights at 6.4 x 0.5, inputs at 4 of the local port, crossings at 2.5 of the other's."""
    config = machine(
        memory__efficiency={"weights": 0.5, "maps": 1.0, "writes": 1.0}, memory__codec_cycles=3,
        protected__buffers__port_bytes_per_cycle=2.5, protected__buffers__codec_cycles=2,
    ).config  # fmt: skip
    loads = (
        Stream(WEIGHTS, "protected", True, 16, 16, 1),  # 5 cycles
        Stream(INPUTS, "unprotected", False, 9, 9, 0),  # 2.25 cycles
        Stream(CROSSINGS, "protected", False, 1, 1, 0),  # 0.4 cycles
    )
    assert Transport(config).load("unprotected", loads) == Way(10 + 3, 6, 3)


@pytest.mark.parametrize(
    ("stream", "name"),
    [
        ((WEIGHTS, "protected", True), "unprotected weights"),
        ((INPUTS, "unprotected", True), "unprotected inputs"),
        ((INPUTS, "unprotected", False), "unprotected inputs"),
        ((CROSSINGS, "protected", True), "unprotected crossings from memory"),
        ((CROSSINGS, "protected", False), "unprotected crossings on chip"),
        ((OUTPUTS, "unprotected", True), "unprotected spilled outputs"),
        ((OUTPUTS, "unprotected", False), "unprotected outputs"),
        ((OUTPUTS, "protected", False), "unprotected overflow outputs on chip"),
    ],
)
def test_every_stream_has_its_purpose(stream, name):
    assert purpose("unprotected", Stream(*stream, 1, 1, 1)) == name


@pytest.mark.parametrize(
    ("quantum", "width", "cycles"),
    [(64, 8, 8), (64, 50, 1), (7, 2.5, 2), (33, 1.1, 30), (55, 1.1, 50), (21, 0.7, 30), (1, 1, 1)],
)
def test_a_quantum_is_the_whole_cycles_in_which_its_bytes_pass(quantum, width, cycles):
    """As the width is written in decimal: 33 bytes at 1.1 are 30 cycles, not 29.99."""
    config = machine(bus__bytes_per_cycle=0.7).config
    bus = config.bus.model_copy(update={"bytes_per_cycle": width, "quantum_bytes": quantum})
    engine = Engine(Program(config.model_copy(update={"bus": bus}), (), 1))
    assert engine.bus.quantum_cycles == cycles
