"""A schedule that serves another machine is the one that would be made for it."""

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
from graph_networks import captured, joined, residual
from hardware import split_of

import nce_sim as nce
from nce_sim.config.machine import load_machine
from nce_sim.config.vary import changed_config, changed_machine
from nce_sim.errors import InputError
from nce_sim.machine.engine import simulate
from nce_sim.schedule.domains import DOMAINS
from nce_sim.schedule.program import build_program
from nce_sim.schedule.reuse import program_for

WORDS = {
    "technology": ["45nm", "65nm"], "voltage": ["28nm-near-threshold"], "number_format": ["int8"],
    "dataflow": ["systolic_os"], "layout": ["holes", "packed"],
    "weights": ["protected_only", "duplicate"], "scheme": ["secded", "dmr_retry", "none"],
    "arbitration": ["priority"], "rotation": ["layers"], "protected_scheme": ["none", "parity"],
    "kind": ["ddr3"], "cell_type": ["hp"],
}  # fmt: skip
"""Other values of fields that hold words, or nothing."""


def others(path, value):
    """Return values that differ from a field's own."""
    name = path.rpartition(".")[2]
    if name in WORDS:
        return [each for each in WORDS[name] if each != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, 2 * value, max(value // 2, 0)]
    if isinstance(value, float):
        return [value * 0.9, value * 2]
    return [0.6, 1_000_000, 350.0] if value is None else []


def leaves(content, above=""):
    for name, value in content.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def changes_of(config):
    """Yield the machine with each field changed that may be, and the field."""
    for path, value in leaves(config.model_dump()):
        for other in others(path, value):
            try:
                yield path, changed_config(config, ((path, other),))
            except (ValueError, KeyError, InputError):
                continue  # no such machine


def equal(one, other):
    """Tell whether two parts of programs hold the same, all the way down."""
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if is_dataclass(one):
        names = [each.name for each in fields(one)]
        return type(one) is type(other) and all(
            equal(getattr(one, name), getattr(other, name)) for name in names
        )
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def work(network, seed=1, granularity="neuron"):
    split = nce.rank(network, None, None, "random", seed=seed).split(0.85, granularity)
    bits = {name: split.map_bits(name) for name in split.unprotected}
    return network.layers, split.unprotected, bits


@pytest.mark.parametrize("name", ["nce-small", "nce-28nm", "nce-fused", "os-32x32"])
@pytest.mark.parametrize("build", [residual, joined])
def test_a_schedule_that_serves_is_the_one_that_would_be_made(name, build):
    """For each field of a machine: either it is looked at, or schedules do not depend on it."""
    spilling = tuple((f"{each}.buffers.resident_bytes", 0) for each in DOMAINS)
    base, parts = changed_machine(name, spilling).config, work(captured(build()))
    layers, unprotected, bits = parts
    like = build_program(layers, base, unprotected, bits, 2)
    served = []
    for path, config in changes_of(base):
        found = program_for(config, like, *parts, 2)
        if found is None:
            continue
        served.append(path)
        assert found.machine == config
        try:
            made = build_program(layers, config, unprotected, bits, 2)
        except InputError:
            raise AssertionError(f"{path}: the machine cannot be scheduled at all") from None
        assert equal(found.layers, made.layers), path
    assert {"bus.bytes_per_cycle", "clock_mhz", "memory.latency_cycles"} <= set(served)
    unserved = {path for path, _ in changes_of(base)} - set(served)
    assert {
        "memory.burst_bytes", "protected.buffers.input_bytes", "weights", "overflow", "layout",
        "number_format", "unprotected.vector_lanes",
    } <= unserved  # fmt: skip


def test_other_work_is_scheduled_anew():
    network = captured(residual())
    layers, unprotected, bits = parts = work(network)
    config = load_machine("nce-small").config
    like = build_program(layers, config, unprotected, bits, 1)
    assert program_for(config, like, *parts, 1) is not None
    assert program_for(config, like, *parts, 2) is None
    assert program_for(config, like, *work(network, seed=2), 1) is None
    assert program_for(config, like, *work(captured(joined())), 1) is None
    twice = {name: 2 * each for name, each in bits.items()}
    assert program_for(config, like, layers, unprotected, twice, 1) is None
    checked = build_program(layers, config, unprotected, bits, 1, checked=unprotected)
    assert program_for(config, checked, *parts, 1) is None


def test_a_run_like_another_is_the_run_itself():
    network = captured(residual())
    split = split_of(work(network)[1])
    slow = simulate(network, load_machine("nce-small"), split, batch=2)
    fast_bus = changed_machine("nce-small", (("bus.bytes_per_cycle", 64.0), ("clock_mhz", 250.0)))
    found, made = (simulate(network, fast_bus, split, batch=2, like=each) for each in (slow, None))
    assert found.program.layers[0] is slow.program.layers[0]
    assert found.latency_cycles == made.latency_cycles != slow.latency_cycles
    assert found.timeline == made.timeline
    assert found.energy.total_pj == made.energy.total_pj
    retries = changed_machine("nce-small", (("protected.array.scheme", "dmr_retry"),))
    first = simulate(network, retries, split, mismatch_rate=1e-4)
    again, alone = (
        simulate(network, retries, split, mismatch_rate=1e-4, like=each) for each in (first, None)
    )
    assert again.latency_cycles == alone.latency_cycles
    assert equal(replace(again.program, machine=None), replace(alone.program, machine=None))
