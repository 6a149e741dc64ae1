"""Displacements of neurons that an addition finishes, against neurons computed one by one."""

import numpy as np
import pytest
import torch
from graph_networks import bottlenecks, captured, residual
from small_networks import images, labels, one_thread
from struck_twin import operands
from test_lanes import SlowLane

import nce_sim as nce
from nce_sim.config.machine import load_machine
from nce_sim.faults.displacement import LayerWords, changes_of
from nce_sim.faults.effects import ALL, BitFlip
from nce_sim.faults.hits import RESULT
from nce_sim.faults.processes import Fault, Transient
from nce_sim.faults.sites import Site
from nce_sim.resilience.damage import Sensitivity
from nce_sim.workload.execute import PRECISION_OF_FORMAT, all_outputs, prepare

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

COUNT = 2


def neuron_by_itself(executable, outputs, layer, image, neuron, bit, of_sum):
    """The finished neuron, in the network's units, with one bit of its sum or stored word wrong."""
    stepped, form = executable.in_steps, executable.format
    lanes = next(each for each in stepped.network.layers if each.name == layer.name)
    finished = executable.network.finished_by[layer.name]
    addition = next(each for each in stepped.network.layers if each.name == finished)

    def word(source, values):
        return form.round(np.float32(values / np.float32(stepped.step(source))))

    places, steps, channel = operands(lanes, neuron)
    flat = word(lanes.source, outputs[layer.source][image].reshape(-1).numpy())
    left = [0.0 if place is None else float(flat[place]) for place in places]
    right = [float(stepped.lane_weights(lanes)[channel, step]) for step in steps]
    wrong = [(RESULT, 0, 0, int(ALL), 0, 1 << bit)] if of_sum else []
    bits = SlowLane(form.name).run(left, right, stepped.lane_bias(lanes)[channel], wrong)
    stored = stepped.finish(lanes, form.sum_of_bits(np.array(bits, np.uint32)), np.array(channel))
    if not of_sum:
        struck = (int(form.encode(stored)) ^ 1 << bit) & 2**form.bits - 1
        stored = form.decode(np.array(struck, np.uint32))
    total = float(stored) * stepped.step(lanes.name)
    for name, source in zip(layer.others, addition.others, strict=True):
        branch = outputs[name][image].reshape(-1)[neuron].numpy()
        total += float(word(source, branch)) * stepped.step(source)
    total = max(0.0, total) if layer.relu else total
    step = stepped.step(addition.name)
    return float(form.round(np.float32(total / step))) * step


@pytest.mark.parametrize("of_sum", [True, False])
@pytest.mark.parametrize(("number_format", "bits"), [("fp32", (22, 27)), ("int8", (4, 6))])
@pytest.mark.parametrize("build", [residual, bottlenecks])
def test_a_bit_of_a_closing_lane_displaces_the_finished_neuron(build, number_format, bits, of_sum):
    network = captured(build())
    precision, calibration = PRECISION_OF_FORMAT[number_format], nce.calibrate(network, images(40))
    executable = prepare(network, precision, calibration=calibration)
    plain = prepare(network, "float32")
    with torch.inference_mode():
        outputs = all_outputs(plain, plain.images(images(COUNT)))
    for layer in network.layers:
        if not layer.closes_block:
            continue
        zeros = torch.zeros_like(outputs[layer.name])
        seen = Sensitivity(
            layer, outputs[layer.source], outputs[layer.name], zeros, torch.zeros(COUNT),
            tuple(outputs[name] for name in layer.others),
        )  # fmt: skip
        words = (LayerWords.sums if of_sum else LayerWords.outputs)(executable, seen)
        for bit in bits:
            bit = bit + 4 if of_sum and number_format == "int8" else bit
            width = 32 if of_sum else executable.format.bits
            (moved,) = words.displaced(changes_of(BitFlip(bit=bit), width))
            before = words.values(words.bits.clone())
            for neuron in (0, 5, layer.outputs // 2, layer.outputs - 1):
                for image in range(COUNT):
                    wanted = neuron_by_itself(
                        executable, outputs, layer, image, neuron, bit, of_sum
                    )
                    found = float((before + moved)[image].reshape(-1)[neuron])
                    assert found == pytest.approx(wanted, rel=1e-4, abs=2e-5)


@pytest.mark.parametrize("component", ["lane", "output"])
def test_rankings_by_expected_damage_know_networks_that_branch(component):
    network = captured(residual())
    fault = Fault(Site.parse(f"unprotected.{component}"), Transient(1e-7), BitFlip())
    known = nce.expected_damage(fault, network, load_machine("nce-small"),
                                calibration=nce.calibrate(network, images(20)))  # fmt: skip
    ranking = nce.rank(network, images(8), labels(8), "fault-aware", fault=known)
    assert all(np.isfinite(scores).all() for scores in ranking.relevance.values())
    assert all(scores.any() for scores in ranking.relevance.values())
