"""Ranking in reduced precision, and convolutions laid out once against torch's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dense_layers import capture
from graph_networks import BUILDERS, captured, residual
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import all_convolutional, images, labels, one_thread, with_pooling
from torch.nn import functional
from typer.testing import CliRunner

import nce_sim as nce
from nce_sim.cli.main import app
from nce_sim.resilience import linear_map as module
from nce_sim.resilience.linear_map import LaidOutConvolution, linear_map
from nce_sim.resilience.ranking import pass_length, ranking_block
from nce_sim.resilience.relevance import RelevancePropagation
from nce_sim.resilience.rules import Epsilon, Gamma, ZPlus
from nce_sim.workload.layer import Kind, Layer
from nce_sim.workload.layout import fast_layout

single = pytest.fixture(scope="module", autouse=True)(one_thread)

pair = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(kernel=pair, stride=pair, dilation=pair, groups=st.sampled_from([1, 2, 4]),
       padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
       size=st.tuples(st.integers(7, 10), st.integers(7, 10)), bias=st.booleans())  # fmt: skip
def test_convolutions_go_both_ways(kernel, stride, dilation, groups, padding, size, bias):
    """Laid out and by public functions, against autograd."""
    random = torch.Generator().manual_seed(1)
    inputs = fast_layout(torch.rand(3, 4, *size, generator=random)).requires_grad_()
    weight = torch.rand(8, 4 // groups, *kernel, generator=random) - 0.5
    start = torch.rand(8, generator=random) if bias else None
    sums = functional.conv2d(inputs, weight, start, stride, padding, dilation, groups)
    layer = Layer(
        "c", Kind.CONV2D, "input", (4, *size), tuple(sums.shape[1:]), kernel, stride, padding,
        dilation, groups,
    )  # fmt: skip
    factors = torch.rand(sums.shape, generator=random)
    (expected,) = torch.autograd.grad(sums, inputs, factors)
    public = module.Convolution(layer, weight, start)
    with torch.inference_mode():
        for found in (public, LaidOutConvolution(layer, weight, start)):
            assert torch.allclose(found.forward(inputs), sums, atol=1e-5)
            assert torch.allclose(found.back(factors, inputs), expected, atol=1e-5)


@pytest.mark.parametrize("rule", [ZPlus(), ZPlus("signed"), Epsilon(), Gamma()], ids=str)
@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_all_is_computed_on_the_device_that_was_asked(build, rule):
    """On torch's "meta" device, which refuses to meet tensors of the processor."""
    network = captured(build())
    inputs, targets = images(2).to("meta"), labels(2).to("meta")
    found = RelevancePropagation(network, rule, "mixed", "meta")(inputs, targets)
    for layer in network.neuron_layers:
        assert found[layer.name].is_meta
        assert found[layer.name].shape == (2, *layer.out_shape)


def test_means_go_both_ways():
    layer = Layer(
        "p", Kind.AVERAGE_POOL, "c", (2, 5, 6), (2, 3, 3), kernel=(2, 3), stride=(2, 2),
        padding=(1, 1),
    )  # fmt: skip
    inputs = torch.rand(3, 2, 5, 6).requires_grad_()
    means = functional.avg_pool2d(inputs, (2, 3), (2, 2), (1, 1))
    factors = torch.rand(means.shape)
    (expected,) = torch.autograd.grad(means, inputs, factors)
    found = linear_map(layer, None)
    assert torch.allclose(found.forward(inputs), means)
    assert torch.allclose(found.back(factors, inputs.detach()), expected, atol=1e-6)


@pytest.mark.parametrize("build", [all_convolutional, with_pooling])
def test_without_laid_out_weights_the_ranking_is_the_same_but_for_rounding(build, monkeypatch):
    network = capture(build())
    fast = nce.rank(network, images(9), labels(9)).relevance
    monkeypatch.setattr(module, "_can_lay_out", lambda weight: False)
    for name, values in nce.rank(network, images(9), labels(9)).relevance.items():
        assert np.allclose(values, fast[name], rtol=1e-4, atol=1e-6 * values.max()), name


@pytest.mark.parametrize("build", [all_convolutional, with_pooling])
def test_an_image_counts_alike_in_any_pass(build):
    """Whole passes and one that is filled up: sums of the parts are those of the whole."""
    network = capture(build())
    count = pass_length(network) + 3
    assert pass_length(network) <= ranking_block(network)
    whole = nce.rank(network, images(count), labels(count)).relevance
    alone = [
        nce.rank(network, images(count)[part], labels(count)[part]).relevance
        for part in (slice(count - 3), slice(count - 3, count))
    ]
    for name, values in whole.items():
        parts = (count - 3) * alone[0][name] + 3 * alone[1][name]
        assert np.allclose(count * values, parts, rtol=1e-12), name


@pytest.mark.parametrize("precision", ["mixed", "bf16"])
def test_reduced_precision_keeps_the_order(precision):
    for network in (capture(all_convolutional()), captured(residual())):
        exact = nce.rank(network, images(64), labels(64))
        found = nce.rank(network, images(64), labels(64), precision=precision)
        assert found.origin.precision == precision
        assert not np.array_equal(found.relevance["conv1"], exact.relevance["conv1"])
        assert nce.rank_correlation(exact, found) > 0.99
        within = nce.layer_correlations(exact, found)
        assert list(within) == list(exact.relevance)
        assert within["conv1"] > 0.99


def test_a_layer_of_one_value_has_no_order():
    ranking = nce.rank(capture(all_convolutional()), images(4), labels(4))
    flat = {**ranking.relevance, "conv1": np.zeros_like(ranking.relevance["conv1"])}
    assert nce.layer_correlations(ranking, replace(ranking, relevance=flat))["conv1"] is None


def test_the_command_ranks_in_every_precision(tmp_path):
    start = ["rank", "cnn-digits", "--images", "40", "--out", str(tmp_path / "r.npz"), "--json"]
    done = CliRunner().invoke(app, [*start, "--precision", "bf16"])
    assert done.exit_code == 0, done.output
    assert '"precision": "bf16"' in done.stdout
    for options, message in (
        (("--precision", "half"), "float32, mixed, bf16"),
        (("--precision", "bf16", "--method", "gradient"), "gradient knows float32"),
        (("--device", "cuda"), "'cuda' cannot be used here"),
    ):
        if options[0] == "--device" and torch.cuda.is_available():
            continue
        refused = CliRunner().invoke(app, [*start, *options])
        assert refused.exit_code != 0
        assert message in str(refused.exception)
