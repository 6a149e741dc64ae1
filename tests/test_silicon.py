"""What the comparison with Eyeriss' silicon stands on: AlexNet's counts, the machine, one layer."""

from dataclasses import dataclass, replace
from math import ceil, prod

import numpy as np
import pytest
import torch

import nce_sim as nce
from nce_sim.resilience.split import Split
from nce_sim.workload.layer import INPUT, Kind, Layer
from nce_sim.workload.models import load_description
from nce_sim.workload.zoo.alexnet import alexnet

BATCH = 4
ELEMENT_BYTES = 2
BIAS_BYTES = 4


@pytest.fixture(scope="module")
def network():
    with torch.device("meta"):
        module = alexnet()
    return nce.Workload.from_module(module, torch.zeros(1, 3, 227, 227, device="meta"))


def convolutions(network) -> dict[str, Layer]:
    return {layer.name: layer for layer in network.layers if layer.kind is Kind.CONV2D}


def test_alexnet_has_the_published_shapes_and_neurons(network):
    shapes = [layer.out_shape for layer in network.neuron_layers]
    assert shapes == [
        (96, 55, 55), (256, 27, 27), (384, 13, 13), (384, 13, 13), (256, 13, 13),
        (4096,), (4096,), (1000,),
    ]  # fmt: skip
    assert network.neurons == sum(map(prod, shapes)) == 659_272


def test_alexnet_convolutions_have_the_published_multiply_accumulates_and_weights(network):
    """Chen et al., ISSCC 2016: 666 million per image of 227 x 227, 2.3 million weights."""
    layers = convolutions(network).values()
    assert [layer.groups for layer in layers] == [1, 2, 1, 2, 2]
    assert [layer.macs for layer in layers] == [
        96 * 55**2 * 363, 256 * 27**2 * 1200, 384 * 13**2 * 2304, 384 * 13**2 * 1728,
        256 * 13**2 * 1728,
    ]  # fmt: skip
    assert round(sum(layer.macs for layer in layers) / 1e6) == 666
    assert round(sum(layer.weights for layer in layers) / 1e6, 1) == 2.3


def test_alexnet_is_bundled_with_a_seed_for_its_weights():
    description, _ = load_description("alexnet")
    assert (description.input_shape, description.seed) == ([3, 227, 227], 0)


def test_the_machine_has_the_published_sizes():
    config = nce.load_machine("eyeriss-like").config
    array, buffers = config.unprotected.array, config.unprotected.buffers
    assert (array.rows, array.columns, config.clock_mhz) == (12, 14, 200)
    on_chip = 2 * (buffers.input_bytes + buffers.weight_bytes + buffers.output_bytes)
    assert on_chip + buffers.resident_bytes == 108 * 1024 + 168 * 448
    assert config.memory.bytes_per_cycle * config.clock_mhz == pytest.approx(8 * 60)


@dataclass(frozen=True)
class Alone:
    layers: tuple[Layer]


def simulate_alone(layer: Layer) -> nce.Run:
    alone = replace(layer, source=INPUT)
    split = Split(1.0, "layer", {layer.name: np.ones(layer.out_shape, bool)})
    return nce.simulate(Alone((alone,)), nce.load_machine("eyeriss-like"), split, batch=BATCH)


def test_lanes_take_the_cycles_of_a_closed_form_where_a_layer_is_dense(network):
    """A wave is 12 positions x 14 channels and takes K cycles and the pipeline's fill."""
    layer = convolutions(network)["conv1"]
    run = simulate_alone(layer)
    waves = ceil(55 * 55 / 12) * ceil(96 / 14)
    assert run.compute_cycles_by_layer["conv1"] == {
        "protected": 0,
        "unprotected": BATCH * waves * (363 + 3),
    }


def test_conv3_reads_each_weight_once_a_batch_and_each_input_at_least_once(network):
    """No reduction is split: the weights stay while the images of the batch pass."""
    layer = convolutions(network)["conv3"]
    run = simulate_alone(layer)
    done = run.counts.domains["unprotected"]
    assert done.useful_macs == BATCH * layer.macs
    assert done.weight_written_bytes == ELEMENT_BYTES * layer.weights + BIAS_BYTES * 384
    assert done.input_written_bytes >= BATCH * ELEMENT_BYTES * prod(layer.in_shape)
    assert done.output_bytes == BATCH * ELEMENT_BYTES * layer.outputs
    moved = done.weight_written_bytes + done.input_written_bytes + done.output_bytes
    assert run.counts.memory_bytes >= moved  # whole words of the link move
    link_cycles = run.counts.memory_bytes / run.machine.config.memory.bytes_per_cycle
    assert run.latency_cycles >= link_cycles
    assert run.counts.domains["protected"].useful_macs == 0
