"""Exhaustive single-neuron injection, against a slow twin that strikes with a forward hook."""

from functools import cache
from math import pi, sqrt

import numpy as np
import pytest
import torch
from graph_networks import captured, joined, residual
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from small_networks import all_convolutional, images, labels, one_thread, outputs_with, with_pooling
from torch.nn import functional

import nce_sim as nce
from nce_sim.accuracy.exhaustive import MEASURES
from nce_sim.accuracy.half_normal import MOST_POINTS, half_normal_rule

single_threaded = pytest.fixture(scope="module", autouse=True)(one_thread)

COUNT = 6
BUILDERS = {"convolutions": all_convolutional, "pooling": with_pooling}


@cache
def network_of(name):
    return nce.Workload.from_module(BUILDERS[name](), torch.zeros(1, 2, 12, 12))


@cache
def damage_of(name, kind):
    network = network_of(name)
    return nce.exhaustive_damage(network, images(COUNT), labels(COUNT), fault_of(name, kind))


@cache
def fault_of(name, kind):
    if kind == "dropout":
        return nce.Dropout(0.25)
    return nce.GaussianNoise(2.0, nce.mean_activation(network_of(name), images(COUNT)))


def changes(network, inputs, targets, layer_name, neuron, displace):
    """The three measures of one displacement, averaged over the images."""
    clean = outputs_with(network, inputs)
    faulty = outputs_with(network, inputs, layer_name, neuron, displace)

    def margin(outputs):
        others = outputs.clone()
        others[torch.arange(len(targets)), targets] = -torch.inf
        return outputs[torch.arange(len(targets)), targets] - others.max(1).values

    def loss(outputs):
        return functional.cross_entropy(outputs, targets, reduction="none")

    right, still = clean.argmax(1) == targets, faulty.argmax(1) == targets
    return np.array(
        [
            float((loss(faulty) - loss(clean)).mean()),
            float((margin(faulty) - margin(clean)).abs().mean()),
            float((right & ~still).double().mean()),
        ]
    )


def some_neurons(network):
    random = np.random.default_rng(2)
    for layer in network.neuron_layers:
        for neuron in random.choice(layer.outputs, min(5, layer.outputs), replace=False):
            yield layer.name, int(neuron)


def measures_of(damage, layer, neuron):
    return np.array([getattr(damage, each)[layer].ravel()[neuron] for each in MEASURES])


@pytest.mark.parametrize("name", BUILDERS)
def test_dropout_does_what_the_slow_twin_does(name):
    network, damage = network_of(name), damage_of(name, "dropout")
    for layer, neuron in some_neurons(network):
        expected = changes(
            network, images(COUNT), labels(COUNT), layer, neuron, lambda y: torch.zeros_like(y)
        )
        assert measures_of(damage, layer, neuron) == pytest.approx(0.25 * expected, abs=2e-6)


@pytest.mark.parametrize("build", [residual, joined])
def test_a_neuron_of_a_network_that_branches_is_struck_in_all_its_branches(build):
    network, inputs, targets = captured(build()), images(2), labels(2)
    damage = nce.exhaustive_damage(network, inputs, targets, nce.Dropout(1.0))
    for layer, neuron in some_neurons(network):
        expected = changes(network, inputs, targets, layer, neuron, torch.zeros_like)
        assert measures_of(damage, layer, neuron) == pytest.approx(expected, rel=1e-4, abs=4e-6)


@pytest.mark.parametrize("name", BUILDERS)
def test_noise_does_what_the_slow_twin_does_at_the_same_displacements(name):
    network, damage, noise = network_of(name), damage_of(name, "noise"), fault_of(name, "noise")
    nodes, weights = half_normal_rule(3)
    for layer, neuron in some_neurons(network):
        unit = noise.sigma * noise.mean_activation[layer]
        expected = sum(
            weight / 2 * changes(
                network, images(COUNT), labels(COUNT), layer, neuron,
                lambda y, by=sign * node * unit: y + by,
            )
            for node, weight in zip(nodes, weights, strict=True)
            for sign in (-1, 1)
        )  # fmt: skip
        assert measures_of(damage, layer, neuron) == pytest.approx(expected, rel=1e-4, abs=5e-6)


@pytest.mark.parametrize("name", BUILDERS)
def test_noises_expectation_is_that_of_a_fine_grid_of_displacements(name):
    """The twin takes 400 displacements of equal probability; `wrong` jumps, so it is left out."""
    network, noise = network_of(name), fault_of(name, "noise")
    inputs, targets = images(2), labels(2)
    damage = nce.exhaustive_damage(network, inputs, targets, noise, nodes=MOST_POINTS)
    grid = norm.ppf((np.arange(400) + 0.5) / 400)
    for layer, neuron in list(some_neurons(network))[::7]:
        unit = noise.sigma * noise.mean_activation[layer]
        many, labels_of_many = inputs.repeat_interleave(400, 0), targets.repeat_interleave(400)
        by = torch.from_numpy(np.tile(grid * unit, 2)).float()
        expected = changes(network, many, labels_of_many, layer, neuron, lambda y, by=by: y + by)
        found = measures_of(damage, layer, neuron)
        assert found[:2] == pytest.approx(expected[:2], rel=0.05, abs=0.003)


@pytest.mark.parametrize("name", BUILDERS)
def test_what_is_silent_on_all_images_loses_nothing_by_dropout(name):
    activity = nce.rank(network_of(name), images(COUNT), labels(COUNT), "activation").relevance
    damage = damage_of(name, "dropout")
    silent = 0
    for layer, values in activity.items():
        for measure in MEASURES:
            assert (getattr(damage, measure)[layer][values == 0] == 0).all()
        silent += np.count_nonzero(values == 0)
    assert silent


@pytest.mark.parametrize("kind", ["dropout", "noise"])
@pytest.mark.parametrize("name", BUILDERS)
def test_shapes_and_bounds(name, kind):
    network, damage = network_of(name), damage_of(name, kind)
    for layer in network.neuron_layers:
        for measure in MEASURES:
            values = getattr(damage, measure)[layer.name]
            assert values.shape == layer.out_shape
            assert values.dtype == np.float64
        assert (damage.margin[layer.name] >= 0).all()
        assert ((damage.wrong[layer.name] >= 0) & (damage.wrong[layer.name] <= 1)).all()


@settings(max_examples=8, deadline=None)
@given(st.floats(0, 1))
def test_dropout_scales_with_its_probability(probability):
    network, quarter = network_of("pooling"), damage_of("pooling", "dropout")
    fault = nce.Dropout(probability)
    found = nce.exhaustive_damage(network, images(COUNT), labels(COUNT), fault)
    for measure in MEASURES:
        for layer, values in getattr(found, measure).items():
            expected = 4 * probability * getattr(quarter, measure)[layer]
            np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-15)


def test_an_image_does_not_depend_on_the_images_beside_it():
    network, together = network_of("convolutions"), damage_of("convolutions", "dropout")
    apart = [
        nce.exhaustive_damage(network, images(COUNT)[each], labels(COUNT)[each], nce.Dropout(0.25))
        for each in (slice(2), slice(2, COUNT))
    ]
    for layer, values in together.loss.items():
        expected = (2 * apart[0].loss[layer] + (COUNT - 2) * apart[1].loss[layer]) / COUNT
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-15)


def test_threads_change_no_bit():
    network, noise = network_of("pooling"), fault_of("pooling", "noise")
    torch.set_num_threads(2)
    found = nce.exhaustive_damage(network, images(COUNT), labels(COUNT), noise)
    torch.set_num_threads(1)
    for measure in MEASURES:
        for layer, values in getattr(damage_of("pooling", "noise"), measure).items():
            assert np.array_equal(values, getattr(found, measure)[layer])


def test_every_injection_is_told_of():
    told = []
    nce.exhaustive_damage(
        network_of("pooling"), images(2), labels(2), fault_of("pooling", "noise"), nodes=1,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    total = network_of("pooling").neurons * 2 * 2
    assert told[-1] == (total, total)
    assert told == sorted(told)


@pytest.mark.parametrize("points", range(1, MOST_POINTS + 1))
def test_the_rule_has_the_half_normals_moments(points):
    nodes, weights = half_normal_rule(points)
    assert (nodes > 0).all()
    known = [1, sqrt(2 / pi), 1, 2 * sqrt(2 / pi), 3, 8 * sqrt(2 / pi), 15]
    for degree, moment in enumerate(known[: 2 * points]):
        assert weights @ nodes**degree == pytest.approx(moment, rel=1e-12)


def test_the_ranking_knows_where_it_comes_from(tmp_path):
    network, damage = network_of("convolutions"), damage_of("convolutions", "dropout")
    ranking = damage.ranking("margin")
    assert ranking.origin.method == "exhaustive margin"
    assert (ranking.origin.images, ranking.origin.fault) == (COUNT, "dropout p = 0.25")
    worst = int(ranking.order[0])
    scores = np.concatenate([values.ravel() for values in damage.margin.values()])
    assert scores[worst] == scores.max()
    ranking.save(tmp_path / "truth.npz")
    assert nce.Ranking.load(tmp_path / "truth.npz", network).origin == ranking.origin


@pytest.mark.parametrize("kind", ["dropout", "noise"])
@pytest.mark.parametrize("name", BUILDERS)
def test_the_fault_aware_ranking_is_nearer_to_the_truth_than_a_random_one(name, kind):
    """By the margin: weights are random here, so that faults mend the loss as often as not."""
    network, fault = network_of(name), fault_of(name, kind)
    truth = damage_of(name, kind).ranking("margin")
    aware = nce.rank(network, images(COUNT), labels(COUNT), "fault-aware", fault=fault)
    random = nce.rank(network, None, None, "random")
    assert nce.rank_correlation(aware, truth) > nce.rank_correlation(random, truth) + 0.3


@pytest.mark.parametrize(("kind", "nodes"), [("dropout", None), ("noise", 1)])
def test_on_the_bundled_network_the_fault_aware_ranking_is_near_the_truth(kind, nodes):
    network, train = nce.load_model("cnn-digits"), nce.load_data("digits", "train").first(20)
    means = nce.mean_activation(network, train.images)
    fault = nce.Dropout(0.5) if kind == "dropout" else nce.GaussianNoise(3.0, means)
    truth = nce.exhaustive_damage(network, train.images, train.labels, fault, nodes=nodes)
    aware = nce.rank(network, train.images, train.labels, "fault-aware", fault=fault)
    random = nce.rank(network, None, None, "random")
    for measure, least in (("loss", 0.1), ("margin", 0.7)):
        found, drawn = (
            nce.rank_correlation(each, truth.ranking(measure)) for each in (aware, random)
        )
        assert found > drawn + least


def test_rank_correlation_averages_ties_and_spans_its_range():
    origin = nce.rank(network_of("pooling"), None, None, "random").origin

    def ranking(*scores):
        return nce.Ranking(origin, {"one": np.array(scores[:2]), "two": np.array(scores[2:])}, {})

    up, down, tied = ranking(1.0, 2, 3, 4), ranking(9.0, 7, 2, 1), ranking(1.0, 2, 2, 3)
    for kind in ("spearman", "kendall"):
        assert nce.rank_correlation(up, up, kind) == pytest.approx(1)
        assert nce.rank_correlation(up, down, kind) == pytest.approx(-1)
    assert nce.rank_correlation(up, tied) == pytest.approx(sqrt(0.9))  # ranks 1, 2.5, 2.5, 4
    assert nce.rank_correlation(up, tied, "kendall") == pytest.approx(5 / sqrt(6 * 5))
    with pytest.raises(nce.InputError, match="no order"):
        nce.rank_correlation(up, ranking(1.0, 1, 1, 1))
    with pytest.raises(nce.InputError, match="pearson"):
        nce.rank_correlation(up, down, "pearson")
    other = nce.rank(network_of("convolutions"), None, None, "random")
    with pytest.raises(nce.InputError, match="different networks"):
        nce.rank_correlation(up, other)


@pytest.mark.parametrize(
    ("fault", "options", "message"),
    [
        (nce.Dropout(0.5), {"nodes": 3}, "nodes goes with GaussianNoise"),
        (nce.GaussianNoise(1.0, {"conv1": 1.0}), {}, "lacks layer"),
        (nce.BitFlip(1), {}, "Dropout or GaussianNoise"),
    ],
)
def test_wrong_faults_are_refused(fault, options, message):
    with pytest.raises(nce.InputError, match=message):
        nce.exhaustive_damage(network_of("pooling"), images(2), labels(2), fault, **options)


@pytest.mark.parametrize("nodes", [0, MOST_POINTS + 1, 1.5])
def test_a_wrong_number_of_nodes_is_refused(nodes):
    noise = fault_of("pooling", "noise")
    with pytest.raises(nce.InputError, match="nodes"):
        nce.exhaustive_damage(network_of("pooling"), images(2), labels(2), noise, nodes=nodes)


def test_an_unknown_measure_is_refused():
    with pytest.raises(nce.InputError, match="loss, margin, wrong"):
        damage_of("pooling", "dropout").ranking("accuracy")
