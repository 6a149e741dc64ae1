"""Relevance against dense matrices, recorded vectors of zennit, and the identities of the paper."""

from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import torch
from dense_layers import capture, dense_matrix, signed_network, slow_max_pool
from small_networks import all_convolutional, images, labels, with_pooling
from torch import Tensor, nn

import nce_sim as nce
from nce_sim.cli.rank import rank_neurons
from nce_sim.faults.ranking_in_loop import IN_LOOP
from nce_sim.resilience.ranking import METHODS
from nce_sim.workload.execute import all_outputs, prepare
from nce_sim.workload.layer import INPUT, Kind, Layer


def slow_step_back(
    network: nce.Workload, layer: Layer, inputs: np.ndarray, relevance: np.ndarray
) -> np.ndarray:
    """Apply eq. 2 term by term with a dense matrix; max pooling by searching each window."""
    if layer.kind is Kind.MAX_POOL:
        return slow_max_pool(layer, inputs, relevance)
    contributions = np.maximum(0, inputs[:, None] * dense_matrix(network, layer))
    found = np.zeros(len(inputs))
    for k in range(contributions.shape[1]):
        total = contributions[:, k].sum()
        if total > 0:
            found += contributions[:, k] / total * relevance[k]
    return found


def slow_relevance(network: nce.Workload, inputs: Tensor, targets: Tensor) -> dict:
    """Return the mean relevance of every neuron in float64, image by image."""
    executable = prepare(network, "float32")
    totals = {layer.name: np.zeros(layer.outputs) for layer in network.neuron_layers}
    for image, target in zip(inputs, targets, strict=True):
        with torch.inference_mode():
            outputs = all_outputs(executable, image[None])
        relevance = np.zeros(network.output.outputs)
        relevance[int(target)] = 1
        for layer in reversed(network.layers):
            if layer.has_neurons:
                totals[layer.name] += relevance
            if layer.source == INPUT:
                break
            below = outputs[layer.source].double().numpy().ravel()
            relevance = slow_step_back(network, layer, below, relevance)
    return {name: total / len(inputs) for name, total in totals.items()}


@pytest.mark.parametrize("build", [all_convolutional, with_pooling, signed_network])
def test_relevance_equals_the_dense_reference(build):
    network = capture(build())
    expected = slow_relevance(network, images(6), labels(6))
    found = nce.rank(network, images(6), labels(6)).relevance
    assert list(found) == [layer.name for layer in network.neuron_layers]
    for name, values in found.items():
        assert np.allclose(values.ravel(), expected[name], atol=1e-5 * expected[name].max()), name


@pytest.mark.parametrize("build", [all_convolutional, with_pooling])
def test_relevance_agrees_with_zennit(build):
    recorded = np.load(Path(__file__).parent / "data" / "zennit.npz")
    found = nce.rank(capture(build()), images(20), labels(20)).relevance
    compared = 0
    for number, values in enumerate(found.values()):
        key = f"{build.__name__}/{number}"
        if key in recorded:
            peer = recorded[key] / 20
            assert np.abs(values.reshape(peer.shape) - peer).max() < 1e-4 * peer.max()
            compared += 1
    assert compared == 4


@pytest.mark.parametrize("build", [all_convolutional, with_pooling])
def test_each_layer_holds_what_is_left_of_one(build):
    ranking = nce.rank(capture(build()), images(70), labels(70))
    shares = [1 - values.sum() for values in ranking.relevance.values()]
    assert shares == pytest.approx(list(ranking.lost_relevance.values()), abs=1e-9)
    assert all(np.diff(shares) <= 1e-6), "relevance is only lost, never gained, on the way back"


@pytest.mark.parametrize("build", [all_convolutional, with_pooling])
def test_harmonic_mean_resilience_is_the_papers_equation_4(build):
    ranking = nce.rank(capture(build()), images(70), labels(70))
    for name, resilience in ranking.resilience.items():
        neurons, kept = resilience.size, 1 - ranking.lost_relevance[name]
        harmonic = neurons / np.sum(1 / resilience)
        assert harmonic == pytest.approx(neurons / kept, rel=1e-5)
        assert resilience.mean() >= harmonic * (1 - 1e-9), "Jensen"


def test_an_image_with_a_dead_label_output_loses_all_its_relevance():
    module = all_convolutional()
    with torch.no_grad():
        module[6].bias[2] = -1e6
    network = capture(module)
    targets = torch.tensor([2, 2, 0])
    ranking = nce.rank(network, images(3), targets)
    alive = nce.rank(network, images(3)[2:], targets[2:])
    assert ranking.lost_relevance["pool1"] == 0
    assert ranking.lost_relevance["conv4"] >= 2 / 3 - 1e-6
    assert np.allclose(3 * ranking.relevance["conv1"], alive.relevance["conv1"], atol=1e-7)


def test_mixed_precision_keeps_the_order():
    network = capture(all_convolutional())
    exact = nce.rank(network, images(64), labels(64)).relevance["conv1"].ravel()
    mixed = nce.rank(network, images(64), labels(64), precision="mixed").relevance["conv1"].ravel()
    assert np.corrcoef(exact, mixed)[0, 1] > 0.999


def test_gradient_ranking_equals_finite_differences():
    network = capture(with_pooling())
    relevance = nce.rank(network, images(1), labels(1), method="gradient").relevance["fc1"]
    executable = prepare(network, "float32")
    with torch.inference_mode():
        outputs = all_outputs(executable, images(1))
    parameters = network.parameters["fc2"]
    hidden = outputs["fc1"].double()

    def loss(values: Tensor) -> float:
        logits = torch.relu(values @ parameters.weight.double().T + parameters.bias.double())
        return float(nn.functional.cross_entropy(logits, labels(1)))

    for neuron in range(hidden.shape[1]):
        step = torch.zeros_like(hidden)
        step[0, neuron] = 1e-5
        slope = (loss(hidden + step) - loss(hidden - step)) / 2e-5
        assert relevance[neuron] == pytest.approx(abs(slope), abs=1e-5)


def test_fisher_is_half_the_mean_square_of_activation_times_gradient():
    """Per neuron and image, with slopes of the loss by finite differences."""
    network = capture(with_pooling())
    found = nce.rank(network, images(3), labels(3), method="fisher").relevance["fc1"]
    executable = prepare(network, "float32")
    with torch.inference_mode():
        hidden = all_outputs(executable, images(3))["fc1"].double()
    parameters = network.parameters["fc2"]

    def losses(values: Tensor) -> Tensor:
        logits = torch.relu(values @ parameters.weight.double().T + parameters.bias.double())
        return nn.functional.cross_entropy(logits, labels(3), reduction="none")

    for neuron in range(hidden.shape[1]):
        step = torch.zeros_like(hidden)
        step[:, neuron] = 1e-5
        slopes = (losses(hidden + step) - losses(hidden - step)) / 2e-5
        expected = float((hidden[:, neuron] * slopes).square().mean()) / 2
        assert found[neuron] == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_the_command_lines_help_lists_every_method():
    listed = get_type_hints(rank_neurons, include_extras=True)["method"].__metadata__[0].help
    names = listed.rstrip(".").replace(" or ", ", ").split(", ")
    assert sorted(names) == sorted([*METHODS, IN_LOOP])


def test_the_result_does_not_depend_on_how_many_images_follow():
    network = capture(all_convolutional())
    few = nce.rank(network, images(64), labels(64))
    more = nce.rank(network, torch.cat([images(64), images(64)]), torch.cat([labels(64)] * 2))
    for name, values in few.relevance.items():
        assert np.array_equal(values, more.relevance[name])


def test_random_ranking_needs_no_images_and_follows_its_seed():
    network = capture(with_pooling())
    one, same, other = (nce.rank(network, None, None, "random", seed=s) for s in (5, 5, 6))
    assert np.array_equal(one.order, same.order)
    assert not np.array_equal(one.order, other.order)
    resilience = np.concatenate([values.ravel() for values in one.resilience.values()])
    assert resilience.mean() == pytest.approx(np.sqrt(2 / np.pi), abs=5 * 0.603 / 1200**0.5)


def test_ranking_is_saved_and_loaded(tmp_path):
    network = capture(with_pooling())
    ranking = nce.rank(network, images(5), labels(5), data="test images")
    ranking.save(tmp_path / "ranking.npz")
    loaded = nce.Ranking.load(tmp_path / "ranking.npz", network)
    assert loaded.origin == ranking.origin
    assert loaded.lost_relevance == ranking.lost_relevance
    assert np.array_equal(loaded.order, ranking.order)
    with pytest.raises(nce.InputError, match="other weights"):
        nce.Ranking.load(tmp_path / "ranking.npz", capture(with_pooling(seed=9)))
    (tmp_path / "ranking.npz").write_bytes((tmp_path / "ranking.npz").read_bytes()[:100])
    with pytest.raises(nce.InputError, match=r"ranking\.npz"):
        nce.Ranking.load(tmp_path / "ranking.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((images(3), labels(3), "lpr"), "lrp, lrp-epsilon"),
        ((None, None, "lrp"), "needs images"),
        ((images(3)[:, :1], labels(3), "lrp"), "2 x 12 x 12"),
        ((images(3).double(), labels(3), "lrp"), "float32"),
        ((images(3), labels(2), "lrp"), "3 images"),
        ((images(3), labels(3) + 5, "lrp"), "classes 0 to 4"),
    ],
)
def test_wrong_input_is_refused(arguments, message):
    with pytest.raises(nce.InputError, match=message):
        nce.rank(capture(with_pooling()), *arguments)


def test_memory_does_not_grow_with_the_images():
    network = capture(all_convolutional())
    steps = []
    nce.rank(network, images(200), labels(200), progress=lambda done, total: steps.append(done))
    assert steps == [64, 128, 192, 200]


def test_identities_hold_for_the_bundled_network():
    network = nce.load_model("allcnn-fashion")
    data = nce.load_data("fashion-mnist", "ranking")
    places = torch.arange(0, 5000, 79)
    ranking = nce.rank(network, data.images[places], data.labels[places])
    for name, resilience in ranking.resilience.items():
        kept = 1 - ranking.lost_relevance[name]
        assert ranking.relevance[name].sum() == pytest.approx(kept, abs=1e-9)
        harmonic = resilience.size / np.sum(1 / resilience)
        assert harmonic == pytest.approx(resilience.size / kept, rel=1e-6)
        assert ranking.lost_relevance[name] + 1e-5 >= 0
