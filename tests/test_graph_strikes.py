"""Hardware faults in networks that branch, against neurons that are stepped number by number."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from graph_networks import BUILDERS, add_after, bottlenecks, captured, joined, residual, settle
from hardware import changed, machine
from hypothesis import assume, given, settings
from small_networks import images, labels, one_thread
from struck_twin import operands
from test_capture import networks
from test_lanes import SlowLane
from torch import nn

import nce_sim as nce
from nce_sim.accuracy.struck_block import StruckBlocks
from nce_sim.config.machine import load_machine
from nce_sim.faults.effects import BitFlip, Gaussian, RandomValue, StuckAt, Zero
from nce_sim.faults.hits import OUTPUT, RESULT
from nce_sim.faults.mission import Mission
from nce_sim.faults.processes import Elements, Fault, Permanent, Transient
from nce_sim.faults.sites import Site
from nce_sim.workload.execute import PRECISION_OF_FORMAT, forward, prepare
from nce_sim.workload.layer import INPUT, Kind

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

IMAGES = 3

LARGER = {f"{each}__buffers__input_bytes": 1200 for each in ("protected", "unprotected")}
"""Larger buffers: those of the small machine are too small for maps in fp32."""


@dataclass(frozen=True)
class Case:
    run: object
    network: object
    executable: object


def case_of(network, number_format, hardware=None):
    split = nce.rank(network, None, None, "random", seed=4).split(0.5)
    run = nce.simulate(network, hardware or machine(number_format=number_format, **LARGER), split)
    calibration = nce.calibrate(network, images(40)) if number_format == "int8" else None
    precision = PRECISION_OF_FORMAT[number_format]
    return Case(run, network, prepare(network, precision, calibration=calibration))


class Curved(nn.Module):
    """Each of the other non-linearities, at the end of a block, of a layer and of an addition."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(2, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.three = nn.Conv2d(4, 4, 3, stride=2, padding=2, dilation=2, groups=4)
        self.four = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, 5)

    def forward(self, inputs):
        maps = nn.functional.silu(self.one(inputs))
        maps = nn.functional.gelu(self.two(maps) + maps)
        maps = nn.functional.leaky_relu(self.three(maps), 0.1)
        maps = nn.functional.relu6(maps + nn.functional.gelu(self.four(maps), approximate="tanh"))
        return self.fc(maps.mean((2, 3)))


def curved(seed=5):
    return settle(Curved(), seed)


@cache
def case(build, number_format):
    return case_of(captured(build()), number_format)


def arrivals_of(here, faults, seed):
    mission = Mission(here.run.schedule, faults, seed)
    return [mission.arrivals(0, inference) for inference in range(IMAGES)]


def values_under(here, arrivals):
    """Every layer's outputs under what arrives, and without, by the names of the network."""
    runner = StruckBlocks(here.executable, here.run.schedule, None)
    runner.begin(images(IMAGES), IMAGES)
    with torch.inference_mode():
        values, _ = runner._forward(runner._hits_by_layer(arrivals), {})
    named = {each.name: here.network.finished_by.get(each.name, each.name)
             for each in here.network.layers}  # fmt: skip
    return [{name: of[step] for name, step in named.items()} for of in (values, runner.values)]


class LaneTwin:
    """Walks through the network as its module does, and steps each struck neuron by itself."""

    def __init__(self, here, arrivals):
        self.here, self.executable = here, here.executable
        self.in_steps = here.executable.in_steps
        self.lane = SlowLane(self.executable.format.name)
        self.by_neuron = {}
        names = [work.layer.name for work in here.run.program.layers]
        for image, each in enumerate(arrivals):
            for attempts in each.hits.values():
                for hit in (attempts.first[np.array([n])] for n in range(len(attempts.first))):
                    key = names[int(hit.work[0])], image, int(hit.neuron[0])
                    self.by_neuron.setdefault(key, []).append(hit)

    def outputs(self):
        values = {INPUT: self.executable.images(images(IMAGES))}
        with torch.inference_mode():
            for layer in self.here.network.layers:
                read = [values[source] for source in layer.sources]
                if not layer.has_neurons:
                    values[layer.name] = self.executable.run_layer(layer, *read)
                    continue
                on_lanes = layer.parts[0] if layer.closes_block else layer
                found = self.in_steps.run_layer(on_lanes, read[0]).clone()
                for (name, image, neuron), hits in self.by_neuron.items():
                    if name == layer.name:
                        index = (image, *np.unravel_index(neuron, layer.out_shape))
                        found[index] = self.neuron(on_lanes, read[0][image], neuron, hits,
                                                   float(found[index]))  # fmt: skip
                if layer.closes_block:
                    found = self.in_steps.run_layer(layer.parts[1], found, *read[1:])
                values[layer.name] = found
        return values

    @staticmethod
    def steps(hit):
        return (0, 0) if int(hit.target[0]) == RESULT else (int(hit.first[0]), int(hit.last[0]))

    def neuron(self, layer, inputs, neuron, hits, value):
        """The stored word of a struck lane."""
        form = self.executable.format
        before = [hit for hit in hits if int(hit.target[0]) != OUTPUT]
        if before:
            places, steps, channel = operands(layer, neuron)
            flat = inputs.float().reshape(-1)
            left = [0.0 if place is None else float(flat[place]) for place in places]
            weights = self.executable.lane_weights(layer)
            right = None if weights is None else [float(weights[channel, step]) for step in steps]
            rows = [
                (int(hit.target[0]), *self.steps(hit), *(int(getattr(hit.change, mask)[0])
                 for mask in ("keep", "set", "flip")))
                for hit in before
            ]  # fmt: skip
            start = self.executable.lane_bias(layer)[channel]
            bits = self.lane.run(left, right, start, rows)
            if bits != self.lane.run(left, right, start, []):  # else it is not stored anew
                sums = form.sum_of_bits(np.array(bits, np.uint32))
                value = self.executable.finish(layer, sums, np.array(channel))
        for hit in hits:
            if int(hit.target[0]) == OUTPUT:
                word = int(form.encode(np.float32(value)))
                word = word & int(hit.change.keep[0]) | int(hit.change.set[0])
                word ^= int(hit.change.flip[0])
                value = form.decode(np.array(word & 2**form.bits - 1, np.uint32))
                if hit.change.noise[0]:
                    with np.errstate(invalid="ignore"):
                        value = form.round(np.float32(value + hit.change.noise[0]))
        return float(value)


SITES = ("weight", "input", "accumulator", "lane", "output", "column")
EFFECTS = (BitFlip(), BitFlip(3), RandomValue(), Zero(), StuckAt())


def check(here, faults, seed):
    """Compare all layers; return the names of those that are changed."""
    arrivals = arrivals_of(here, faults, seed)
    found, clean = values_under(here, arrivals)
    expected = LaneTwin(here, arrivals).outputs()
    for layer in here.network.layers:
        np.testing.assert_array_equal(
            found[layer.name].float().numpy(), expected[layer.name].float().numpy(), layer.name
        )
    return {name for name in found if not torch.equal(found[name], clean[name])}


@pytest.mark.parametrize(
    ("build", "number_format"),
    [(residual, "fp32"), (add_after, "bf16"), (bottlenecks, "fp16"), (joined, "fp32"),
     (curved, "bf16"), (curved, "int8"), (residual, "int8"), (joined, "int8")],
)  # fmt: skip
def test_struck_lanes_give_what_each_neuron_computes_by_itself(build, number_format):
    here = case(build, number_format)
    struck = set()
    for effect in EFFECTS:
        lasting = isinstance(effect, StuckAt)
        process = Permanent(Elements(count=1)) if lasting else Transient(5e-5)
        faults = [Fault(Site.parse(f"unprotected.{each}"), process, effect) for each in SITES]
        struck |= check(here, faults[:1] if lasting else faults, 1)
    assert len(struck) > len(here.network.layers) / 2


@pytest.mark.parametrize("build", [*BUILDERS, curved])
def test_without_faults_the_machines_steps_give_the_networks_outputs(build):
    here = case(build, "bf16")
    runner = StruckBlocks(here.executable, here.run.schedule, None)
    runner.begin(images(IMAGES), IMAGES)
    with torch.inference_mode():
        expected = forward(here.executable, here.executable.images(images(IMAGES)))
    assert torch.equal(runner.values[runner.layers[-1].name], expected)


def test_noise_strikes_the_sum_of_a_closing_convolution_before_the_addition():
    here = case(residual, "fp32")
    means = {layer.name: 0.5 for layer in here.network.neuron_layers}
    noise = Gaussian(0.3, means)
    assert check(here, [Fault(Site.parse("unprotected.output"), Transient(1e-4), noise)], 3)


def test_the_papers_faults_strike_neurons_after_their_addition():
    """With all neurons failing every block ends in zeros, whatever its shortcut adds."""
    network = captured(residual())
    split = nce.rank(network, None, None, "random", seed=4).split(1.0)
    schedule = nce.simulate(network, machine(number_format="fp32"), split).schedule
    lost = nce.inject(network, images(8), labels(8), schedule, nce.Dropout(1.0))
    assert lost.error_rate > 0.5
    plain = nce.evaluate(network, images(8), labels(8), split, faults=nce.Dropout(1.0))
    assert lost.accuracy == plain.accuracy
    some = nce.inject(network, images(70), labels(70), schedule, nce.Dropout(0.2), seed=3)
    also = nce.evaluate(network, images(70), labels(70), split, faults=nce.Dropout(0.2), seed=3)
    assert some.accuracy == also.accuracy


@settings(max_examples=8, deadline=None, derandomize=True)
@given(networks())
def test_random_networks_are_struck_as_their_neurons_compute(module):
    network = captured(module)
    assume(not {layer.kind for layer in network.layers} & {Kind.PAD, Kind.ACTIVATION})
    here = case_of(network, "fp32", changed(load_machine("nce-small"), number_format="fp32"))
    rate = 3 / here.run.latency_cycles / 8
    faults = [
        Fault(Site.parse(f"unprotected.{site}"), Transient(rate), BitFlip())
        for site in ("accumulator", "output", "weight")
    ]
    check(here, faults, 1)
