"""Waves that run again after a mismatch: drawn before the run, replayed in it."""

from itertools import pairwise

import numpy as np
import pytest
from hardware import (
    Chain,
    chains,
    conv,
    dense,
    examples,
    machine,
    machines,
    patient,
    random_mask,
    random_masks,
    split_of,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from nce_sim.errors import InputError
from nce_sim.machine.engine import simulate
from nce_sim.machine.probe import RETRY
from nce_sim.schedule.program import build_program
from nce_sim.schedule.retry import repeat, with_mismatches

RETRIES = ("dmr_retry", "temporal_dmr", "parity")


@st.composite
def programs(draw):
    """Draw a program with its batch."""
    layers, hardware = draw(chains()), draw(machines())
    masks = random_masks(layers, draw(st.integers(0, 2**32)))
    try:
        return build_program(layers, hardware.config, masks, batch=draw(st.integers(1, 3)))
    except InputError:
        assume(False)
        raise


def shares_of(program):
    return [share for work in program.layers for share in work.shares if share.plan and share.tiles]


def marks(share, batch, seed):
    images = 1 if share.plan.image_rows else batch
    return random_mask((images, *share.plan.neurons.shape), seed)


def waves_of(share, tile, marked):
    """Return the cycles of each wave of a tile with whether it runs again."""
    found = []
    for window in range(*tile.windows):
        for group in range(*tile.groups):
            for chunk in range(share.plan.neurons.shape[2]):
                if share.plan.neurons[window, group, chunk]:
                    again = bool(marked[tile.image or 0, window, group, chunk])
                    found.append((int(share.plan.cycles[window, group, chunk]), again))
    return found


def slow_repeat(share, marked):
    """Return the tiles with the marked waves twice; ranges of K of a wave all over again."""
    tiles, wave = [], []
    for tile in share.tiles:
        if tile.chunk is None:
            cycles = sum(each * (1 + again) for each, again in waves_of(share, tile, marked))
            tiles.append(tile._replace(cycles=cycles))
            continue
        wave.append(tile)
        if tile.reduction[1] < share.plan.layer.reduction_length:
            continue
        if marked[tile.image or 0, tile.windows[0], tile.groups[0], tile.chunk]:
            tiles += [each._replace(stores=(), neurons=0) for each in wave]
        tiles += wave
        wave = []
    return tuple(tiles)


@given(programs(), st.integers(0, 2**32))
@patient(60)
def test_marked_waves_run_twice_and_store_once(program, seed):
    for number, share in enumerate(shares_of(program)):
        marked = marks(share, program.batch, seed + number)
        found = repeat(share, marked)
        assert found.tiles == slow_repeat(share, marked)
        taken = [sum(tile.cycles for tile in each.tiles) for each in (share, found)]
        assert found.repeat_cycles == taken[1] - taken[0] >= 0
        for what in ("neurons", "stores"):
            before, after = ([getattr(t, what) for t in each.tiles] for each in (share, found))
            if what == "stores":
                before, after = [s for s in before if s], [s for s in after if s]
                assert before == after
            else:
                assert sum(before) == sum(after)
        assert (found.mismatches == marked & (share.plan.neurons > 0)).all()


@given(programs())
@patient(10)
def test_without_marks_nothing_changes(program):
    for share in shares_of(program):
        nothing = np.zeros_like(marks(share, program.batch, 0))
        found = repeat(share, nothing)
        assert (found.tiles, found.repeat_cycles) == (share.tiles, 0)
    assert with_mismatches(program, 0.0, 1) is program


@given(programs(), st.sampled_from([0.001, 0.1, 1.0]), st.integers(0, 9))
@patient(25)
def test_only_schemes_with_retries_run_waves_again_and_always_the_same_ones(program, rate, seed):
    first, second = (with_mismatches(program, rate, seed) for _ in range(2))
    for before, one, other in zip(
        shares_of(program), shares_of(first), shares_of(second), strict=True
    ):
        assert one.tiles == other.tiles
        scheme = before.plan.array.config.scheme
        if scheme not in RETRIES:
            assert one is before
        else:
            assert (one.mismatches == other.mismatches).all()
            images = 1 if before.plan.image_rows else program.batch
            assert one.mismatches.shape == (images, *before.plan.neurons.shape)


def one_layer(scheme, batch=1, **changes):
    layers = (conv(inputs=(2, 16, 16), channels=64),)
    config = machine(protected__array__scheme=scheme, **changes).config
    return build_program(layers, config, {"conv1": np.zeros((64, 16, 16), bool)}, batch=batch)


@pytest.mark.parametrize("scheme", RETRIES)
def test_a_wave_runs_again_as_often_as_its_lanes_and_cycles_make_likely(scheme):
    program = one_layer(scheme, batch=4)
    rate = 1e-3
    share = shares_of(with_mismatches(program, rate, 3))[0]
    plan = share.plan
    chance = 1 - np.exp(-rate * plan.neurons * plan.cycles)
    expected, spread = 4 * chance.sum(), np.sqrt(4 * (chance * (1 - chance)).sum())
    assert plan.waves * 4 > 4000
    assert abs(share.mismatches.sum() - expected) < 5 * spread


def test_images_layers_and_seeds_draw_on_their_own():
    share = shares_of(with_mismatches(one_layer("dmr_retry", batch=2), 1e-3, 0))[0]
    other = shares_of(with_mismatches(one_layer("dmr_retry", batch=2), 1e-3, 1))[0]
    assert (share.mismatches[0] != share.mismatches[1]).any()
    assert (share.mismatches != other.mismatches).any()


def test_a_rate_of_one_runs_every_wave_of_many_cycles_twice():
    program = with_mismatches(one_layer("dmr_retry"), 1.0, 0)
    share = shares_of(program)[0]
    assert share.mismatches.sum() == share.plan.waves
    assert share.repeat_cycles == share.plan.total_cycles


@given(
    st.sampled_from(RETRIES), st.sampled_from([40, 512]), st.integers(1, 3),
    st.sampled_from([0.001, 0.02]),
)  # fmt: skip
@examples(30)
def test_repeats_are_counted_and_have_their_own_cause(scheme, weight_bytes, batch, rate):
    layers = (conv(inputs=(2, 6, 6), channels=5),)
    hardware = machine(
        protected__array__scheme=scheme, protected__buffers__weight_bytes=weight_bytes,
        bus__quantum_bytes=5, bus__bytes_per_cycle=5,
    )  # fmt: skip
    plain, run = (
        simulate(Chain(layers), hardware, dense(layers), batch=batch, mismatch_rate=each, seed=5)
        for each in (0.0, rate)
    )
    share = run.program.layers[0].on("protected")[0]
    again = share.mismatches.sum(axis=0)
    causes = [each.cycles_by_cause["protected"] for each in (plain, run)]
    done, base = (each.counts.domains["protected"] for each in (run, plain))
    assert done.repeated_waves == again.sum()
    assert causes[0][RETRY] == base.repeated_waves == 0
    assert causes[1][RETRY] == share.repeat_cycles
    macs = int((again * share.plan.neurons).sum()) * layers[0].reduction_length
    compares = scheme != "parity"  # on two copies, or on one twice
    assert done.lane_macs == base.lane_macs + (1 + compares) * macs
    assert done.votes == base.votes + compares * int((again * share.plan.neurons).sum())
    assert (done.neurons, done.useful_macs) == (base.neurons, base.useful_macs)
    assert sum(causes[1].values()) == run.latency_cycles


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate):
    layers = (conv(inputs=(1, 4, 4), channels=2),)
    with pytest.raises(InputError, match="rate from 0 to 1"):
        simulate(Chain(layers), machine(), dense(layers), mismatch_rate=rate)


def test_a_wave_that_runs_again_keeps_its_neurons_on_their_lanes():
    layers = (conv(inputs=(8, 4, 4), channels=4),)
    config = machine(
        protected__array__scheme="dmr_retry", protected__buffers__weight_bytes=160,
        bus__quantum_bytes=8,
    )  # fmt: skip
    masks = {"conv1": np.zeros((4, 4, 4), bool)}
    run = simulate(Chain(layers), config, split_of(masks), mismatch_rate=1.0)
    work = run.program.layers[0]
    tiles = work.tiles("protected")
    assert {tile.reduction for tile in tiles} > {(0, 18)}
    assert sum(tile.cycles for tile in tiles) == 2 * work.shares[0].repeat_cycles
    taken = {}
    for neuron in range(layers[0].neurons):
        slot = run.schedule.slot_of("conv1", neuron)
        taken.setdefault((slot.row, slot.column), []).append((slot.start_cycle, slot.end_cycle))
        for cycle in (slot.start_cycle, (slot.start_cycle + slot.end_cycle) // 2):
            assert run.schedule.neuron_at("protected", slot.row, slot.column, cycle) == slot
    for slots in taken.values():
        assert all(before[1] <= after[0] for before, after in pairwise(sorted(slots)))
