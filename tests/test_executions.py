"""Many questions at once give the answers of the lookup, and rotation moves neurons round."""

from collections import Counter

import numpy as np
import pytest
from hardware import Chain, conv, dense, machine, patient, runs, split_of
from hypothesis import given
from hypothesis import strategies as st

from nce_sim.config.machine_schema import ArrayConfig
from nce_sim.errors import InputError
from nce_sim.machine.engine import simulate
from nce_sim.machine.executions import IDLE
from nce_sim.schedule.domains import DOMAINS
from nce_sim.schedule.rotation import Moment, steps, to_logical, to_physical


@given(runs(single=True), st.integers(0, 2**32), st.integers(0, 3))
@patient(40)
def test_what_lanes_hold_is_what_the_lookup_says(run, seed, inference):
    draw = np.random.default_rng(seed)
    for array in DOMAINS:
        config = run.machine.config.arrays[array]
        rows, columns = draw.integers(0, config.rows, 40), draw.integers(0, config.columns, 40)
        cycles = draw.integers(0, run.latency_cycles + 1, 40)
        executions = run.schedule.executions[array]
        held = executions.held(cycles, rows, columns, inference)
        for place in range(40):
            if held.run[place] and run.machine.config.controller.rotation == "repeats":
                continue  # the lookup knows the first run's lane only
            slot = run.schedule.neuron_at(
                array, int(rows[place]), int(columns[place]), int(cycles[place]), inference
            )
            if slot is None:
                assert held.neuron[place] == IDLE
                continue
            work = executions.layer_work(int(executions.work[held.execution[place]]))
            assert (work.layer.name, int(held.neuron[place])) == (slot.layer, slot.neuron)


@given(runs(single=True), st.integers(0, 2**32))
@patient(40)
def test_steps_run_from_none_to_all_within_each_run_of_a_wave(run, seed):
    draw = np.random.default_rng(seed)
    for array in DOMAINS:
        executions = run.schedule.executions[array]
        if not len(executions):
            continue
        place = int(draw.integers(len(executions)))
        work = run.program.layers[int(executions.work[place])]
        cycles = np.arange(executions.start[place], executions.held_until[place])
        lane = np.zeros(len(cycles), np.int64)
        held = executions.held(cycles, lane, lane)
        first, last = int(executions.first_step[place]), int(executions.last_step[place])
        plan = work.on(array)[int(executions.share[place])].plan
        repeats = plan.array.repeats
        assert set(held.run.tolist()) == set(range(repeats))
        for number in range(repeats):
            now = held.run == number
            assert (np.diff(held.step[now]) >= 0).all()
            done = held.step[now & held.multiplies]
            assert done[0] == first  # the lane in the corner is not skewed
            assert done[-1] <= last - 1
            macs = work.arrays[array].macs_per_cycle
            assert np.diff(done).max(initial=0) <= macs
            assert done[-1] + macs >= last


def test_an_array_without_neurons_is_idle_all_the_time():
    layers = (conv(inputs=(1, 4, 4), channels=2),)
    executions = simulate(Chain(layers), machine(), dense(layers)).schedule.executions
    cycles = np.arange(3)
    assert len(executions["unprotected"]) == 0
    assert (executions["unprotected"].at(cycles) == IDLE).all()
    assert (executions["unprotected"].held(cycles, cycles, cycles).neuron == IDLE).all()


def test_a_batch_and_repeated_waves_have_no_executions():
    layers = (conv(inputs=(1, 4, 4), channels=2),)
    for options in ({"batch": 2}, {"mismatch_rate": 1.0}):
        run = simulate(
            Chain(layers), machine(protected__array__scheme="dmr_retry"), dense(layers), **options
        )
        with pytest.raises(InputError, match="simulate"):
            _ = run.schedule.executions


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 100))
def test_rotation_is_a_permutation_that_visits_every_lane(rows, columns, moved):
    array = ArrayConfig(
        rows=rows, columns=columns, macs_per_cycle=1, activation_words=1, weight_words=1,
        pipeline_cycles=0, scheme="none",
    )  # fmt: skip
    row, column = (places.ravel() for places in np.indices((rows, columns)))
    physical = to_physical(array, row, column, moved)
    assert len(set(zip(*physical, strict=True))) == rows * columns
    back = to_logical(array, *physical, moved)
    assert np.array_equal(back[0], row)
    assert np.array_equal(back[1], column)
    visited = to_physical(array, np.int64(0), np.int64(0), np.arange(rows * columns))
    assert len(set(zip(*(each.tolist() for each in visited), strict=True))) == rows * columns


def test_each_rotation_follows_its_own_count():
    moment = Moment(layer=2, inference=3, run=1)
    found = {each: steps(each, moment) for each in ("none", "layers", "inferences", "repeats")}
    assert found == {"none": 0, "layers": 2, "inferences": 3, "repeats": 1}


def test_a_broken_lane_meets_all_neurons_in_turn_if_lanes_rotate_with_inferences():
    layers = (conv(inputs=(1, 4, 4), channels=4),)
    split = split_of({"conv1": np.ones(layers[0].out_shape, bool)})
    lanes = 0
    hits: Counter[int] = Counter()
    run = simulate(Chain(layers), machine(controller__rotation="inferences"), split)
    executions = run.schedule.executions["unprotected"]
    array = run.machine.config.arrays["unprotected"]
    lanes = array.rows * array.columns
    every = np.arange(len(executions))
    for inference in range(lanes):
        held = executions.of_lane(every, np.int64(0), np.int64(0), inference)
        hits.update(held[held != IDLE].tolist())
    assert set(hits) == set(range(layers[0].neurons))
    assert set(hits.values()) == {1}
