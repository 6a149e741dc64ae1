"""Relevance of networks that branch: against dense matrices, by hand, and cut by cut."""

from pathlib import Path

import numpy as np
import pytest
import torch
from dense_layers import dense_matrix
from graph_networks import BUILDERS, bottlenecks, captured, joined, residual, settle
from hypothesis import given, settings
from small_networks import images, labels, one_thread
from test_capture import networks
from torch import nn

import nce_sim as nce
from nce_sim.resilience.relevance import RelevancePropagation
from nce_sim.resilience.rules import Epsilon, Gamma, ZPlus
from nce_sim.workload.execute import all_outputs, prepare, run_layer
from nce_sim.workload.layer import INPUT, Kind

COUNT = 4

single = pytest.fixture(scope="module", autouse=True)(one_thread)


def max_pool(layer, inputs, relevance):
    """Hand each output's relevance to the first of the largest inputs of its window."""
    _, height, width = layer.in_shape
    (down, right), (above, left) = layer.stride, layer.padding
    maps, found = inputs.reshape(layer.in_shape), np.zeros(layer.in_shape)
    for place, share in zip(np.ndindex(layer.out_shape), relevance, strict=True):
        channel, row, column = place
        window = [
            (channel, row * down - above + y, column * right - left + x)
            for y in range(layer.kernel[0])
            for x in range(layer.kernel[1])
        ]
        inside = [at for at in window if 0 <= at[1] < height and 0 <= at[2] < width]
        found[max(inside, key=lambda at: (maps[at], -inside.index(at)))] += share
    return found.ravel()


def linear_step(rule, matrix, bias, inputs, relevance):
    """Share relevance term by term: rows are inputs and, last, the bias."""
    terms = np.vstack([inputs[:, None] * matrix, bias])
    if isinstance(rule, ZPlus):
        terms = np.maximum(terms, 0)
        terms[-1] = 0
    return shared(rule, terms, relevance)[:-1].sum(axis=1)


def shared(rule, terms, relevance):
    """Share each column's relevance among its terms."""
    total = terms.sum(axis=0)
    if isinstance(rule, Gamma):
        terms = terms * np.where(np.sign(terms) == np.sign(total), 1 + rule.gamma, 1)
        relevance = np.where(total == 0, 0, relevance)
        total = terms.sum(axis=0)
    if isinstance(rule, Epsilon):
        total = total + rule.share * np.sqrt(np.mean(total**2)) * np.where(total < 0, -1, 1)
    ratio = np.divide(relevance, total, out=np.zeros_like(total), where=total != 0)
    return terms * ratio


def added(rule, branches, relevance):
    terms = np.stack(branches)
    if isinstance(rule, ZPlus) and rule.additions == "positive":
        terms = np.maximum(terms, 0)
    return list(shared(rule, terms, relevance))


def slow_relevance(rule, network, image, label):
    """Signed relevance of one image in float64 by layer, and what crosses the cut behind each."""
    with torch.inference_mode():
        double = prepare(network, "float64")
        outputs = all_outputs(double, image[None].double())
    values = {name: output.numpy().ravel() for name, output in outputs.items()}
    last = values[network.output.name]
    start = 1.0 if isinstance(rule, ZPlus) else last
    waiting = {network.output.name: np.where(np.arange(len(last)) == label, start, 0.0)}
    found, crossing = {}, {}
    for layer in reversed(network.layers):
        if layer.has_neurons:
            found[layer.name] = waiting[layer.name]
            crossing[layer.name] = sum(part.sum() for part in waiting.values())
        own = waiting.pop(layer.name)
        for source, part in step_back(rule, network, layer, values, own):
            waiting[source] = waiting.get(source, 0) + part
    return found, crossing


def step_back(rule, network, layer, values, relevance):
    inputs = [values[source] for source in layer.sources]
    if layer.kind is Kind.ADD:
        return list(zip(layer.sources, added(rule, inputs, relevance), strict=True))
    if layer.kind is Kind.CONCAT:
        ends = np.cumsum([len(each) for each in inputs])[:-1]
        return list(zip(layer.sources, np.split(relevance, ends), strict=True))
    if layer.kind in (Kind.FLATTEN, Kind.ACTIVATION):
        return [(layer.source, relevance)]
    if layer.kind is Kind.MAX_POOL:
        return [(layer.source, max_pool(layer, inputs[0], relevance))]
    if layer.kind is Kind.PAD:
        size = len(inputs[0])
        basis = torch.eye(size).reshape(size, *layer.in_shape)
        matrix = run_layer(layer, None, basis).reshape(size, -1).double().numpy()
        return [(layer.source, matrix @ relevance)]
    matrix, bias = dense_matrix(network, layer), np.zeros(layer.outputs)
    held = network.parameters.get(layer.name)
    if held is not None and held.bias is not None:
        bias = np.repeat(held.bias.double().numpy(), layer.positions)
    parts = []
    if layer.closes_block:
        sums = inputs[0] @ matrix + bias
        relevance, *rest = added(rule, [sums, *inputs[1:]], relevance)
        parts = list(zip(layer.others, rest, strict=True))
    if layer.source == INPUT:
        return [*parts, (INPUT, relevance)]  # pixels: only the sum matters
    return [*parts, (layer.source, linear_step(rule, matrix, bias, inputs[0], relevance))]


def check(network, rule, precision, within):
    propagation = RelevancePropagation(network, rule, precision)
    pictures = images(COUNT).double() if precision == "float64" else images(COUNT)
    found = propagation(pictures, labels(COUNT))
    for place in range(COUNT):
        slow, crossing = slow_relevance(rule, network, images(COUNT)[place], place % 5)
        assert list(reversed(found)) == [layer.name for layer in network.neuron_layers]
        for name, values in slow.items():
            mine = found[name][place].numpy().ravel()
            assert np.abs(mine - values).max() <= within * max(np.abs(values).max(), 1e-9), name
            if propagation.crossing:
                held = float(propagation.crossing[name][place])
                assert held == pytest.approx(crossing[name], abs=1e-4 * np.abs(values).sum() + 1e-6)


RULES = (ZPlus(), ZPlus("signed"), Epsilon(), Gamma())


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_relevance_equals_the_dense_reference(build, rule):
    check(captured(build()), rule, "float64", 1e-9)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(networks())
def test_relevance_of_random_networks_equals_the_dense_reference(module):
    check(captured(module), ZPlus(), "float64", 1e-9)


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_float32_is_near(build):
    check(captured(build()), ZPlus(), "float32", 1e-4)


class Tiny(nn.Module):
    """One pixel of two channels: a linear layer, and one that closes a block over it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.closing = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
        self.last = nn.Linear(2, 2)
        with torch.no_grad():
            for part, weight, bias in (
                (self.first, [[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]),
                (self.closing, [[1.0, 1.0], [0.0, -1.0]], [0.0, 0.0]),
                (self.last, [[1.0, 1.0], [1.0, -1.0]], [0.0, 0.0]),
            ):
                part.weight.copy_(torch.tensor(weight).reshape(part.weight.shape))
                part.bias.copy_(torch.tensor(bias))

    def forward(self, inputs):
        first = torch.relu(self.first(inputs))
        return self.last(torch.relu(self.closing(first) + first).flatten(1))


def test_a_block_by_hand():
    """first = (1, 3), closing = (4, -3) + (1, 3) = (5, 0), and class 0 is 5.

    All relevance is with neuron 0 of the block: 4/5 of it goes through the convolution, 1/4 and
    3/4 of that to each input; 1/5 goes by the shortcut to neuron 0.
    """
    network = nce.Workload.from_module(Tiny(), torch.zeros(1, 2, 1, 1))
    picture = torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1)
    ranking = nce.rank(network, picture, torch.tensor([0]))
    assert ranking.relevance["conv2"].ravel() == pytest.approx([1, 0])
    assert ranking.relevance["conv1"].ravel() == pytest.approx([0.2 + 0.2, 0.6])
    assert ranking.lost_relevance == pytest.approx(dict.fromkeys(ranking.relevance, 0), abs=1e-6)


def test_relevance_is_conserved_cut_by_cut():
    """Nothing gets lost but at zero denominators, and what is lost behind is lost before."""
    for build in BUILDERS:
        network = captured(build())
        ranking = nce.rank(network, images(70), labels(70))
        lost = [ranking.lost_relevance[layer.name] for layer in network.neuron_layers]
        assert all(np.diff(lost[::-1]) >= -1e-5), build.__name__
        assert min(lost) >= -1e-5
        assert max(lost) < 1
        first = network.neuron_layers[0].name
        held = 1 - ranking.lost_relevance[first]
        assert ranking.relevance[first].sum() == pytest.approx(held, abs=1e-4), "all pass the stem"


def test_a_branch_holds_only_its_part():
    ranking = nce.rank(captured(residual()), images(70), labels(70))
    shares = {name: values.sum() for name, values in ranking.relevance.items()}
    closed, branch = 1 - ranking.lost_relevance["conv3"], shares["conv2"]
    assert shares["conv3"] == pytest.approx(closed, abs=1e-5), "both branches meet here"
    assert branch < 0.95 * closed


def test_joined_branches_share_all_there_is():
    ranking = nce.rank(captured(joined()), images(70), labels(70))
    assert {"conv2", "conv3", "conv4"} <= set(ranking.relevance)
    assert ranking.relevance["conv4"].sum() < 1


def test_relevance_in_mixed_precision_is_near():
    network = captured(residual())
    exact = nce.rank(network, images(64), labels(64)).relevance["conv1"].ravel()
    mixed = nce.rank(network, images(64), labels(64), precision="mixed").relevance["conv1"].ravel()
    assert np.corrcoef(exact, mixed)[0, 1] > 0.999


def test_signed_additions_are_an_option_of_lrp():
    network = captured(residual())
    signed = nce.rank(network, images(8), labels(8), additions="signed")
    plain = nce.rank(network, images(8), labels(8))
    assert signed.origin.method == "lrp, signed additions"
    assert not np.allclose(signed.relevance["conv2"], plain.relevance["conv2"], rtol=0.01)
    for arguments in ({"additions": "none"}, {"additions": "signed", "method": "gradient"}):
        with pytest.raises(nce.InputError, match="positive"):
            nce.rank(network, images(8), labels(8), **arguments)


@pytest.mark.parametrize("method", ["gradient", "fisher", "conductance", "lrp-gamma"])
def test_other_rankings_know_graphs(method):
    network = captured(residual())
    found = nce.rank(network, images(8), labels(8), method)
    assert list(found.relevance) == [layer.name for layer in network.neuron_layers]
    assert all(np.isfinite(values).all() for values in found.relevance.values())


def test_a_leaky_network_shares_by_contributions_of_both_signs():
    module = settle(
        nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.LeakyReLU(0.3), nn.Conv2d(4, 4, 3), nn.SiLU(), nn.Flatten(),
            nn.Linear(256, 8), nn.GELU(), nn.Linear(8, 5),
        ),
        seed=5,
    )  # fmt: skip
    check(captured(module), ZPlus(), "float64", 1e-9)


@pytest.mark.parametrize("additions", ["positive", "signed"])
@pytest.mark.parametrize(
    ("build", "seed"),
    [(residual, 1), (residual, 2), (residual, 3), (bottlenecks, 3), (bottlenecks, 4)],
)
def test_relevance_agrees_with_zennit(build, seed, additions):
    """Recorded by tests/peers/record_zennit_graphs.py, in float64 with BatchNorm merged."""
    recorded = np.load(Path(__file__).parent / "data" / "zennit_graphs.npz")
    network = captured(build(seed))
    propagation = RelevancePropagation(network, ZPlus(additions), "float64")
    found = propagation(images(3).double(), labels(3))
    for number, layer in enumerate(network.neuron_layers):
        peer = recorded[f"{build.__name__}/{seed}/{additions}/{number}"]
        mine = found[layer.name].numpy()
        assert mine.shape == peer.shape
        assert np.abs(mine - peer).max() < 1e-4 * np.abs(peer).max(), layer.name
