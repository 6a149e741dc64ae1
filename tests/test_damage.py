"""The fault-aware ranking: expected damage against finite differences, and its order."""

import numpy as np
import pytest
import torch
from small_networks import all_convolutional, images, labels, outputs_with, with_pooling
from torch.nn import functional

import nce_sim as nce
from nce_sim.resilience.damage import DamageScores, objective_of
from nce_sim.workload.execute import prepare

STEP = 1e-3
"""Displacement of a neuron as a share of its output, or of its layer's mean."""


@pytest.fixture(scope="module", params=[all_convolutional, with_pooling])
def network(request):
    return nce.Workload.from_module(request.param(), torch.zeros(1, 2, 12, 12))


@pytest.fixture(scope="module")
def means(network):
    return nce.mean_activation(network, images(8))


def margins(outputs, targets):
    own = outputs.gather(1, targets[:, None])[:, 0]
    return own - outputs.scatter(1, targets[:, None], -torch.inf).amax(1)


def losses(outputs, targets):
    return functional.cross_entropy(outputs, targets, reduction="none")


def some_neurons(network):
    random = np.random.default_rng(2)
    for layer in network.neuron_layers:
        for neuron in random.choice(layer.outputs, min(6, layer.outputs), replace=False):
            yield layer.name, int(neuron)


def test_dropout_damages_by_the_margins_squared_change_to_first_order(network):
    inputs, targets = images(8), labels(8)
    executable = prepare(network, "float32")
    damage = DamageScores(executable, nce.Dropout(0.25))(executable.images(inputs), targets)
    before = margins(outputs_with(network, inputs), targets)
    for layer, neuron in some_neurons(network):
        after = margins(
            outputs_with(network, inputs, layer, neuron, lambda y: y * (1 - STEP)), targets
        )
        expected = 0.25 * float(((after - before) / STEP).square().mean())
        found = float(damage[layer].flatten(1)[:, neuron].double().mean())
        assert found == pytest.approx(expected, rel=0.1, abs=2e-3)


def test_dropout_ranks_by_each_neurons_share_of_its_layer(network):
    """The root of its mean square over the sum of these roots, so that every layer sums to 1."""
    inputs, targets = images(8), labels(8)
    executable = prepare(network, "float32")
    damage = DamageScores(executable, nce.Dropout(0.25))(executable.images(inputs), targets)
    found = nce.rank(network, inputs, targets, "fault-aware", fault=nce.Dropout(0.25)).relevance
    for layer, values in found.items():
        roots = np.sqrt(damage[layer].double().mean(0).numpy()).reshape(values.shape)
        assert values == pytest.approx(roots / roots.sum(), rel=1e-4, abs=1e-9)
        assert values.sum() == pytest.approx(1)


def test_a_layer_that_dropout_cannot_harm_has_no_damage():
    means = {"silent": np.zeros((2, 3)), "busy": np.array([1.0, 3.0]) ** 2}
    scores = nce.Dropout(0.5).scores(means)
    assert (scores["silent"] == 0).all()
    assert scores["busy"].tolist() == [0.25, 0.75]


def test_noise_damages_by_the_variance_of_the_losss_change_to_first_order(network, means):
    inputs, targets = images(8), labels(8)
    noise = nce.GaussianNoise(2.0, means)
    found = nce.rank(network, inputs, targets, "fault-aware", fault=noise).relevance
    for layer, neuron in some_neurons(network):
        up, down = (
            losses(
                outputs_with(
                    network, inputs, layer, neuron, lambda y, by=by * means[layer]: y + by
                ),
                targets,
            )
            for by in (STEP, -STEP)
        )
        slope = (up - down) / (2 * STEP)  # by the layer's mean
        expected = float((2.0 * slope).square().mean())
        assert found[layer].ravel()[neuron] == pytest.approx(expected, rel=0.1, abs=2e-3)


def test_the_margin_is_the_labels_output_less_the_largest_other():
    outputs = torch.tensor([[3.0, 1.0, 2.5], [0.0, 4.0, 7.0]])
    targets = torch.tensor([0, 1])
    assert float(objective_of("margin", outputs, targets).sum()) == pytest.approx(0.5 - 3.0)
    expected = functional.cross_entropy(outputs, targets, reduction="sum")
    assert objective_of("loss", outputs, targets).sum() == expected


def test_the_order_does_not_depend_on_how_often_or_how_strongly(network, means):
    inputs, targets = images(8), labels(8)

    def order(fault):
        return nce.rank(network, inputs, targets, "fault-aware", fault=fault).order

    assert np.array_equal(order(nce.Dropout(0.25)), order(nce.Dropout(0.5)))
    noise = [order(nce.GaussianNoise(sigma, means)) for sigma in (1.0, 2.0)]
    assert np.array_equal(*noise)
    assert not np.array_equal(noise[0], order(nce.Dropout(0.5)))


def test_what_the_fault_cannot_harm_comes_last(network):
    """A neuron that is silent on all images loses nothing when it drops out."""
    inputs, targets = images(8), labels(8)
    ranking = nce.rank(network, inputs, targets, "fault-aware", fault=nce.Dropout(0.5))
    activity = nce.rank(network, inputs, targets, "activation")
    for layer, values in activity.relevance.items():
        assert (ranking.relevance[layer][values == 0] == 0).all()


def test_the_fault_is_kept_with_the_ranking(network, tmp_path):
    ranking = nce.rank(network, images(4), labels(4), "fault-aware", fault=nce.Dropout(0.5))
    ranking.save(tmp_path / "aware.npz")
    loaded = nce.Ranking.load(tmp_path / "aware.npz", network)
    assert loaded.origin.fault == "dropout p = 0.5"
    assert loaded.origin == ranking.origin
    assert nce.rank(network, images(4), labels(4), "gradient").origin.fault is None


def test_a_fault_goes_with_a_fault_aware_ranking_only(network):
    with pytest.raises(nce.InputError, match="needs a fault"):
        nce.rank(network, images(4), labels(4), "fault-aware")
    with pytest.raises(nce.InputError, match="takes no fault"):
        nce.rank(network, images(4), labels(4), "lrp", fault=nce.Dropout(0.5))
