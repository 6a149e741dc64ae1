"""Conductance: its sum over a layer, a slow twin, and where it is known."""

import numpy as np
import pytest
import torch
from dense_layers import capture, signed_network
from small_networks import all_convolutional, fill, images, labels, one_thread, with_pooling
from torch import nn

import nce_sim as nce
from nce_sim.resilience.conductance import STEPS, conductance
from nce_sim.workload.execute import all_outputs, prepare

COUNT = 5
NETWORKS = (all_convolutional, with_pooling, signed_network)

single = pytest.fixture(scope="module", autouse=True)(one_thread)


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda build: build.__name__)
def network(request):
    return capture(request.param())


def label_outputs(network, inputs):
    with torch.inference_mode():
        outputs = all_outputs(prepare(network, "float32"), inputs)
    return outputs[network.output.name].flatten(1).gather(1, labels(len(inputs))[:, None])[:, 0]


def conductance_of(network, steps):
    return conductance(prepare(network, "float32"), images(COUNT), labels(COUNT), steps)


def gaps(network, steps):
    """By layer: the largest distance between the sum and the output's change."""
    change = label_outputs(network, images(COUNT)) - label_outputs(network, 0 * images(COUNT))
    found = conductance_of(network, steps)
    return {
        name: float((values.flatten(1).sum(1) - change).abs().max())
        for name, values in found.items()
    }


def test_a_layers_neurons_share_the_outputs_change(network):
    fine, coarse = gaps(network, 512), gaps(network, STEPS)
    for name, gap in fine.items():
        assert gap < 0.01, name
        assert gap <= coarse[name] + 1e-4, name
        assert coarse[name] < 0.1, name


def test_a_linear_network_needs_one_step():
    """Then conductance is the gradient times the neuron's change."""
    network = capture(
        fill(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(300, 5)), seed=8)
    )
    executable = prepare(network, "float32")
    with torch.inference_mode():
        silent = all_outputs(executable, 0 * images(COUNT))["conv1"]
        output = all_outputs(executable, images(COUNT))["conv1"]
    slope = network.parameters["fc1"].weight[labels(COUNT)].reshape(output.shape)
    for steps in (1, 7):
        found = conductance_of(network, steps)["conv1"]
        assert torch.allclose(found, slope * (output - silent), atol=1e-5)


def test_conductance_equals_a_path_walked_neuron_by_neuron():
    """Slopes of the last layers by finite differences in float64, one neuron at a time."""
    network = capture(with_pooling())
    head = network.parameters["fc2"]
    weight, bias = (tensor.double().numpy() for tensor in (head.weight, head.bias))
    with torch.inference_mode():
        path = [
            all_outputs(prepare(network, "float32"), images(COUNT) * (step / STEPS))["fc1"]
            for step in range(STEPS + 1)
        ]
    hidden = np.stack([values.double().numpy() for values in path])

    def output(values, label):
        return max(0.0, float(weight[label] @ values + bias[label]))

    found = conductance_of(network, STEPS)["fc1"]
    for image, label in enumerate(labels(COUNT).tolist()):
        for neuron in range(hidden.shape[2]):
            nudge = 1e-6 * np.eye(hidden.shape[2])[neuron]
            walked = hidden[:, image]
            slopes = [(output(y + nudge, label) - output(y - nudge, label)) / 2e-6 for y in walked]
            expected = np.trapezoid(slopes, walked[:, neuron])
            assert float(found[image, neuron]) == pytest.approx(expected, abs=1e-5)


def test_the_score_is_the_mean_magnitude(network):
    found = conductance_of(network, STEPS)
    ranking = nce.rank(network, images(COUNT), labels(COUNT), "conductance").relevance
    for name, values in found.items():
        assert np.allclose(ranking[name], values.abs().mean(0).numpy(), atol=1e-5), name
