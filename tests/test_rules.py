"""The epsilon and the gamma rule against dense matrices, what they conserve, and their limits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dense_layers import capture, dense_matrix, signed_network, slow_max_pool
from small_networks import all_convolutional, fill, images, labels, one_thread, with_pooling
from torch import nn

import nce_sim as nce
from nce_sim.resilience.relevance import RULES, RelevancePropagation
from nce_sim.resilience.rules import Epsilon, Gamma, ZPlus
from nce_sim.workload.execute import all_outputs, prepare
from nce_sim.workload.graph import Parameters
from nce_sim.workload.layer import INPUT, Kind


def with_logits() -> nn.Module:
    """A network with averages of signed values, and signed outputs."""
    return fill(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.AvgPool2d(2),
            nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(54, 5),
        ),
        seed=6,
    )  # fmt: skip


NETWORKS = (all_convolutional, with_pooling, signed_network, with_logits)
COUNT = 6

single = pytest.fixture(scope="module", autouse=True)(one_thread)


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda build: build.__name__)
def network(request):
    return capture(request.param())


def without_biases(network):
    parameters = {
        name: Parameters(held.weight, torch.zeros_like(held.bias))
        for name, held in network.parameters.items()
    }
    return replace(network, parameters=parameters)


def relevance_of(network, rule):
    """Signed relevance, images x neurons by layer, as the fast path has it."""
    found = RelevancePropagation(network, rule)(images(COUNT), labels(COUNT))
    return {name: values.flatten(1).double().numpy() for name, values in found.items()}


def values_of(network):
    """Every layer's outputs, images x elements by layer."""
    with torch.inference_mode():
        outputs = all_outputs(prepare(network, "float32"), images(COUNT))
    return {name: values.flatten(1).double().numpy() for name, values in outputs.items()}


def label_outputs(network):
    return values_of(network)[network.output.name][np.arange(COUNT), labels(COUNT).numpy()]


def contributions_of(rule, terms):
    """Contributions to one output from the terms y w and, last, the bias; and the denominator."""
    if isinstance(rule, Gamma):
        favoured = np.sign(terms) == np.sign(terms.sum())
        terms = terms * np.where(favoured, 1 + rule.gamma, 1)
    return terms, terms.sum()


def slow_step_back(rule, network, layer, inputs, relevance):
    """Hand relevance back term by term; return it with what biases and epsilon keep."""
    if layer.kind is Kind.FLATTEN:
        return relevance, 0.0
    if layer.kind is Kind.MAX_POOL:
        return slow_max_pool(layer, inputs, relevance), 0.0
    biases = np.zeros(layer.outputs)
    if layer.name in network.parameters:
        biases = np.repeat(network.parameters[layer.name].bias.double().numpy(), layer.positions)
    terms = np.vstack([inputs[:, None] * dense_matrix(network, layer), biases])
    epsilon = 0.0
    if isinstance(rule, Epsilon):
        epsilon = rule.share * np.sqrt(np.mean(terms.sum(axis=0) ** 2))
    found, kept = np.zeros(len(inputs)), 0.0
    for k in np.flatnonzero(relevance):
        contributions, total = contributions_of(rule, terms[:, k])
        total += epsilon * np.sign(total)
        found += contributions[:-1] / total * relevance[k]
        kept += (1 - contributions[:-1].sum() / total) * relevance[k]
    return found, kept


def slow_relevance(rule, network):
    """Signed relevance in float64, and what was kept on the way to each layer, of every image."""
    outputs = values_of(network)
    found = {layer.name: [] for layer in network.neuron_layers}
    kept = {layer.name: [] for layer in network.neuron_layers}
    for image, label in enumerate(labels(COUNT).tolist()):
        last = outputs[network.output.name][image]
        relevance, so_far = np.where(np.arange(len(last)) == label, last, 0.0), 0.0
        for layer in reversed(network.layers):
            if layer.has_neurons:
                found[layer.name].append(relevance)
                kept[layer.name].append(so_far)
            if layer.source == INPUT:
                break
            inputs = outputs[layer.source][image]
            relevance, more = slow_step_back(rule, network, layer, inputs, relevance)
            so_far += more
    return {name: np.stack(rows) for name, rows in found.items()}, kept


@pytest.mark.parametrize("method", ["lrp-epsilon", "lrp-gamma"])
def test_relevance_equals_the_dense_reference(network, method):
    rule = RULES[method]
    expected, kept = slow_relevance(rule, network)
    found = relevance_of(network, rule)
    ranking = nce.rank(network, images(COUNT), labels(COUNT), method).relevance
    assert list(ranking) == [layer.name for layer in network.neuron_layers]
    for name, values in expected.items():
        largest = np.abs(values).max()
        assert np.abs(found[name] - values).max() < 1e-4 * largest, name
        scores = np.abs(values).mean(axis=0)
        assert np.abs(ranking[name].ravel() - scores).max() < 1e-4 * largest, name
        left = label_outputs(network) - np.array(kept[name])
        assert np.allclose(found[name].sum(axis=1), left, atol=1e-3 * largest), name


@pytest.mark.parametrize("rule", [Gamma(), Gamma(2.0), Epsilon(0)])
def test_without_biases_every_layer_holds_the_labels_output(network, rule):
    bare = without_biases(network)
    expected = label_outputs(bare)
    for name, values in relevance_of(bare, rule).items():
        assert np.allclose(values.sum(axis=1), expected, atol=1e-3 * np.abs(expected).max()), name


def test_epsilon_only_takes_relevance_away(network):
    """Of one layer and one label, all relevance passes one denominator: it keeps its sign."""
    bare = without_biases(network)
    names = [layer.name for layer in bare.neuron_layers]
    last = label_outputs(bare)
    for share in (0.1, 1.0):
        below = relevance_of(bare, Epsilon(share))[names[-2]].sum(axis=1)
        assert (np.abs(below) <= np.abs(last) + 1e-5).all()
        assert (np.abs(below) < np.abs(last))[np.abs(last) > 1e-3].all()


@pytest.mark.parametrize("rule", [Epsilon(0), Gamma(0)])
def test_without_epsilon_or_gamma_relevance_is_gradient_times_activation(network, rule):
    """Of rectified networks, with biases too (Ancona et al., ICLR 2018)."""
    executable = prepare(network, "float32")
    outputs = all_outputs(executable, images(COUNT).requires_grad_())
    own = outputs[network.output.name].flatten(1).gather(1, labels(COUNT)[:, None]).sum()
    for name, values in relevance_of(network, rule).items():
        slope = torch.autograd.grad(own, outputs[name], retain_graph=True)[0]
        expected = (slope * outputs[name]).flatten(1).detach().double().numpy()
        assert np.abs(values - expected).max() < 1e-3 * np.abs(expected).max(), name


def test_a_large_gamma_is_the_z_plus_rule():
    """Where no input is negative: relevance starts from the output instead of one."""
    bare = without_biases(capture(all_convolutional()))
    outputs = label_outputs(bare)[:, None]
    z_plus = relevance_of(bare, ZPlus())
    for name, values in relevance_of(bare, Gamma(1e5)).items():
        expected = outputs * z_plus[name]
        assert np.abs(values - expected).max() < 1e-3 * np.abs(expected).max(), name


@pytest.mark.parametrize("method", ["lrp-epsilon", "lrp-gamma", "conductance"])
def test_an_images_score_does_not_depend_on_those_beside_it(network, method):
    alone = nce.rank(network, images(2)[:1], labels(2)[:1], method).relevance
    first, both = images(2), nce.rank(network, images(2), labels(2), method).relevance
    other = nce.rank(network, first[1:], labels(2)[1:], method).relevance
    for name, values in both.items():
        assert np.allclose(2 * values, alone[name] + other[name], rtol=1e-6), name


@pytest.mark.parametrize("method", ["lrp-epsilon", "lrp-gamma", "fisher", "conductance"])
@pytest.mark.parametrize("precision", ["mixed", "bf16"])
def test_only_lrp_knows_other_precisions(network, method, precision):
    with pytest.raises(nce.InputError, match=f"'{precision}': {method} knows float32"):
        nce.rank(network, images(2), labels(2), method, precision=precision)
