"""The simulator against a second machine that counts and steps one thing at a time."""

from collections import Counter
from dataclasses import asdict, replace

import pytest
from hardware import (
    Chain,
    allcnn_c,
    chains,
    changed,
    conv,
    dense,
    examples,
    flatten,
    global_pool,
    linear,
    machines,
    max_pool,
    random_masks,
    split_of,
)
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from reference.clock import Clock
from reference.counts import Recount
from reference.maps import DOMAINS
from reference.totals import check_every_neuron_is_done_once, check_every_tile_fits, totals

from nce_sim.config.machine import load_machine
from nce_sim.errors import InputError
from nce_sim.machine.engine import simulate

MOST_CYCLES = 8000
"""Longer runs are not stepped: they take too long and show nothing new."""

WAYS = {"load": "load", "store": "store"}


@st.composite
def networks(draw):
    """Draw a chain, or one whose last map is pooled in the middle of the network."""
    layers = draw(chains())
    shape, last = layers[-1].out_shape, layers[-1].name
    if len(shape) != 3 or not draw(st.booleans()):
        return layers
    if draw(st.booleans()):
        pool = global_pool("mean", last, shape, as_vector=True)
        fully = linear("fc", "mean", shape[0], draw(st.integers(1, 6)), bias=draw(st.booleans()))
        return (*layers, replace(pool, has_neurons=False), fully)
    return (*layers, conv("last", last, inputs=shape, channels=draw(st.integers(1, 4))))


@st.composite
def cases(draw):
    """Draw all that a run is made of."""
    layers, seed = draw(networks()), draw(st.integers(0, 2**32))
    return layers, draw(machines()), random_masks(layers, seed), {
        "batch": draw(st.sampled_from([1, 1, 2, 3])),
        "mismatch_rate": draw(st.sampled_from([0.0, 0.001, 0.02, 1.0])),
        "seed": seed,
    }  # fmt: skip


def hold_against_each_other(layers, machine, masks, options):
    """Simulate a case and compute it a second time."""
    try:
        run = simulate(Chain(layers), machine, split_of(masks), **options)
    except InputError:
        assume(False)
        raise
    assume(run.latency_cycles <= MOST_CYCLES)
    recount = Recount(layers, run, masks)
    check_every_neuron_is_done_once(recount)
    check_every_tile_fits(recount)
    compare_tiles(run, recount)
    assert asdict(run.counts) == totals(recount, run.latency_cycles)
    clock = Clock(recount)
    assert run.latency_cycles == clock.run()
    compare_times(run, recount, clock)
    return run


def compare_tiles(run, recount):
    for work, counted in zip(run.program.layers, recount.works, strict=True):
        assert (work.layer, work.map_bytes, work.switches) == (
            counted.layer, counted.map_bytes, counted.switches,
        )  # fmt: skip
        for array in DOMAINS:
            for tile, expected in zip(work.tiles(array), counted.tiles[array], strict=True):
                assert (tile.cycles, tile.neurons) == (expected.cycles, len(expected.done))
                assert tile.loads == expected.loads
                assert tile.stores == expected.stores


def compare_times(run, recount, clock):
    """Compare the spans of all tiles, what the arrays waited for, and who was served when."""
    assert tile_spans(run) == clock.spans
    for domain, array in clock.arrays.items():
        spent = Counter({cause: n for cause, n in array.spent.items() if cause != "compute"})
        for work in recount.works:
            for tile in work.tiles[domain]:
                spent += tile.causes
        assert Counter(run.cycles_by_cause[domain]) == spent
        compare_channel(run, f"{domain} local port", array.port, run.local_ports[domain])
    compare_channel(run, "bus", clock.bus, run.bus)


def tile_spans(run):
    found = {}
    for span in run.timeline:
        domain, _, part = span.resource.partition(" ")
        if span.what in ("load", "store") or (span.what == "compute" and part != "local port"):
            found[span.what, domain, span.layer, span.tile] = span.start_cycle, span.end_cycle
    return found


def compare_channel(run, resource, path, traffic):
    assert traffic.busy_cycles == path.busy_cycles
    busy = {}
    for span in run.timeline:
        if span.resource == resource:
            busy |= dict.fromkeys(range(span.start_cycle, span.end_cycle), span.what.split(" + "))
    served = {cycle: port for cycle, port in enumerate(path.served) if port is not None}
    assert busy.keys() == served.keys()
    assert all(port in busy[cycle] for cycle, port in served.items())


@given(cases())
@settings(examples(300), suppress_health_check=list(HealthCheck))
def test_a_second_machine_gives_the_same_latency_and_the_same_counts(case):
    hold_against_each_other(*case)
