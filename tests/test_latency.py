"""Retries cost cycles and energy: each inference is simulated with the waves that it repeats."""

import numpy as np
import pytest
from small_networks import all_convolutional, images, labels
from test_voting import run_of

import nce_sim as nce
from nce_sim.accuracy.inject import inject
from nce_sim.accuracy.latency import latencies, with_repeats
from nce_sim.faults.effects import BitFlip
from nce_sim.faults.processes import Fault, Single, Transient
from nce_sim.faults.sites import Site
from nce_sim.machine.engine import run_program
from nce_sim.schedule.domains import DOMAINS

ACCUMULATOR = Site.parse("protected.accumulator")


@pytest.fixture(scope="module")
def network():
    return nce.Workload.from_module(all_convolutional(), images(1))


@pytest.fixture(scope="module")
def run(network):
    return run_of(network, protected__array__scheme="dmr_retry")


def test_an_inference_takes_as_long_as_a_run_with_its_repeats(network, run):
    fault = Fault(ACCUMULATOR, Single(4), BitFlip())
    result = inject(network, images(10), labels(10), run.schedule, fault, realisations=2)
    found = latencies(run, result)
    executions = run.schedule.executions["protected"]
    repeated = result.inferences.repeated.ravel()
    assert (found.cycles[repeated == 0] == run.latency_cycles).all()
    assert (found.cycles[repeated > 0] >= run.latency_cycles).all()
    assert (found.energy_pj[repeated > 0] > run.energy.total_pj).all()
    place = int(np.flatnonzero(repeated)[0])
    waves = result.waves[result.waves[:, 0] * 10 + result.waves[:, 1] == place]
    assert len(waves) == repeated[place]
    again = run_program(run.machine, with_repeats(run, waves[:, 2:]))
    assert again.latency_cycles == found.cycles[place]
    assert again.counts.domains["protected"].repeated_waves == len(waves)
    more = executions.end[waves[:, 3]] - executions.start[waves[:, 3]]
    assert found.cycles[place] <= run.latency_cycles + more.sum()


def test_the_worst_case_repeats_every_wave_once(network, run):
    fault = Fault(ACCUMULATOR, Transient(0.0), BitFlip())
    result = inject(network, images(3), labels(3), run.schedule, fault)
    found = latencies(run, result)
    assert (found.cycles == run.latency_cycles).all()
    assert found.mean_us == found.p99_us == run.latency_us
    assert found.worst_cycles > run.latency_cycles
    every = [len(np.unique(run.schedule.executions[array].last_range)) for array in DOMAINS]
    waves = run.program.layers
    assert every[0] == sum(s.plan.waves for w in waves for s in w.on("protected") if s.plan)
    ordered = found.summary()
    assert ordered["latency_us"] <= ordered["latency_p99_us"] <= ordered["latency_worst_us"]


def test_schemes_without_retries_have_one_latency(network):
    tmr = run_of(network, protected__array__scheme="tmr")
    fault = Fault(ACCUMULATOR, Single(20), BitFlip())
    result = inject(network, images(4), labels(4), tmr.schedule, fault)
    found = latencies(tmr, result)
    assert found.worst_cycles == tmr.latency_cycles
    assert set(found.cycles.tolist()) == {tmr.latency_cycles}
