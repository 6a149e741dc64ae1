"""Faults in the loop: what one more failure costs while others are there already."""

import numpy as np
import pytest
import torch
from small_networks import all_convolutional, images, labels, with_pooling

import nce_sim as nce
from nce_sim.faults.block_draws import BlockDraws
from nce_sim.faults.injection import Injector
from nce_sim.faults.ranking_in_loop import StruckDamageScores, _draws, rank_in_loop
from nce_sim.resilience.damage import DamageScores, objective_of
from nce_sim.resilience.split import Split
from nce_sim.workload.execute import forward, prepare

STEP = 1e-3


@pytest.fixture(scope="module", params=[all_convolutional, with_pooling])
def network(request):
    return nce.Workload.from_module(request.param(), torch.zeros(1, 2, 12, 12))


@pytest.fixture(scope="module", params=["dropout", "noise"])
def fault(request, network):
    if request.param == "dropout":
        return nce.Dropout(0.5)
    return nce.GaussianNoise(1.0, nce.mean_activation(network, images(8)))


def half(network):
    """A split that leaves about half of the neurons unprotected, anywhere."""
    return nce.rank(network, None, None, "random", seed=3).split(0.5)


def draws(executable):
    return BlockDraws(executable, 7, 1, range(8))


def struck_objective(executable, fault, split, layer_name, neuron, by):
    """The objective of each image under the faults, one struck neuron displaced by `by`."""
    inject = Injector(executable, split, fault).hook(draws(executable))

    def hook(layer, inputs, output):
        output = inject(layer, inputs, output.clone())
        if layer.name == layer_name:
            flat = output.flatten(1).clone()
            flat[:, neuron] += by
            output = flat.reshape(output.shape)
        return output

    with torch.inference_mode():
        outputs = forward(executable, executable.images(images(8)), hook=hook)
        return objective_of(fault.objective, outputs.flatten(1), labels(8)).double()


def test_without_unprotected_neurons_it_is_the_fault_aware_damage(network, fault):
    executable = prepare(network, "float32")
    nothing = Split(
        0.0, "neuron", {each.name: np.zeros(each.out_shape, bool) for each in network.neuron_layers}
    )
    struck = StruckDamageScores(executable, fault, nothing, iter([draws(executable)]))
    plain = DamageScores(executable, fault)
    inputs = executable.images(images(8))
    expected = plain(inputs, labels(8))
    for name, found in struck(inputs, labels(8)).items():
        assert torch.equal(found, expected[name])


def test_damage_is_the_objectives_change_among_the_faults_to_first_order(network, fault):
    """Central differences of one neuron's output, whatever has struck the others."""
    executable, split = prepare(network, "float32"), half(network)
    scores = StruckDamageScores(executable, fault, split, iter([draws(executable)]))
    found = scores(executable.images(images(8)), labels(8))
    outputs = {}

    def keep(layer, _, output):
        """The outputs before the neuron itself is struck, and behind faults in front of it."""
        outputs[layer.name] = output.clone()
        return inject(layer, _, output.clone())

    inject = Injector(executable, split, fault).hook(draws(executable))
    with torch.inference_mode():
        forward(executable, executable.images(images(8)), hook=keep)
    random = np.random.default_rng(1)
    for layer in network.neuron_layers:
        for neuron in random.choice(layer.outputs, min(4, layer.outputs), replace=False).tolist():
            up, down = (
                struck_objective(executable, fault, split, layer.name, neuron, by)
                for by in (STEP, -STEP)
            )
            slope = (up - down) / (2 * STEP)
            if isinstance(fault, nce.Dropout):
                output = outputs[layer.name].flatten(1)[:, neuron].double()
                expected = fault.probability * (output * slope).square()
            else:
                expected = (fault.sigma * fault.mean_activation[layer.name] * slope).square()
            assert torch.allclose(
                found[layer.name].flatten(1)[:, neuron].double(), expected, rtol=0.1, atol=5e-3
            )


def test_every_neuron_has_its_place_and_each_step_keeps_those_before(network, fault):
    told = []
    ranking = rank_in_loop(
        network, images(8), labels(8), fault, steps=3, seed=5,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert ranking.origin.method == "fault-in-loop"
    assert ranking.origin.seed == 5
    assert np.array_equal(np.sort(ranking.order), np.arange(network.neurons))
    assert told[-1] == (32, 32)
    assert sorted(told) == told
    first = nce.rank(network, images(8), labels(8), "fault-aware", fault=fault)
    for name, mask in first.split(0.25).unprotected.items():
        assert np.array_equal(ranking.split(0.25).unprotected[name], mask)


def test_the_same_seed_gives_the_same_ranking(network, fault):
    one, same, other = (
        rank_in_loop(network, images(8), labels(8), fault, steps=2, seed=seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(one.order, same.order)
    assert not np.array_equal(one.order, other.order)


def test_it_pays_under_strong_noise():
    """On handwritten digits at 60 %, sigma = 3: more right answers, one-sided p < 0.001."""
    network = nce.load_model("cnn-digits")
    train, test = nce.load_data("digits", "ranking").first(500), nce.load_data("digits", "test")
    noise = nce.GaussianNoise(3.0, nce.mean_activation(network, train.images))
    looped = rank_in_loop(network, train.images, train.labels, noise, steps=4)
    plain = nce.rank(network, train.images, train.labels, "fault-aware", fault=noise)
    found = [
        nce.evaluate(network, test.images, test.labels, ranking.split(0.6), noise, realisations=2)
        for ranking in (looped, plain)
    ]
    gain = found[0].minus(found[1])
    assert gain.value / (gain.high - gain.low) > 3.09 / (2 * 1.96)


def test_fewer_than_one_step_is_refused(network, fault):
    with pytest.raises(nce.InputError, match="steps"):
        rank_in_loop(network, images(4), labels(4), fault, steps=0)


def test_its_faults_are_not_those_of_an_evaluation(network):
    """With the same seed and places, so that it is not judged by what it was fitted to."""
    executable = prepare(network, "float32")
    (own, *_) = _draws(executable, 0, 1, 8)
    for realisation in range(3):
        theirs = BlockDraws(executable, 0, realisation, range(8))
        assert not torch.allclose(own.normals[0], theirs.normals[0])
        alike = (own.hits(0.5)[0] == theirs.hits(0.5)[0]).float().mean()
        assert 0.4 < float(alike) < 0.6
