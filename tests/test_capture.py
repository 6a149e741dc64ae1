"""Captured graphs: they compute what their modules compute, and have neurons where they belong."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from graph_networks import BUILDERS, Block, Residual, captured, residual, settle
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import images, labels
from torch import Tensor, nn
from torch.nn import functional

import nce_sim as nce
from nce_sim.faults.block_draws import BlockDraws
from nce_sim.faults.injection import Injector
from nce_sim.resilience.split import Split
from nce_sim.workload.execute import all_outputs, forward, prepare
from nce_sim.workload.layer import INPUT, Kind


def outputs_of(network: nce.Workload, inputs: Tensor) -> Tensor:
    executable = prepare(network, "float32")
    with torch.inference_mode():
        return forward(executable, executable.images(inputs))


def check(module: nn.Module) -> nce.Workload:
    """Capture `module`, hold its outputs against the module's, and return the network."""
    before = deepcopy(module.state_dict())
    network = captured(module)
    with torch.inference_mode():
        expected = module(images(3))
        every = all_outputs(prepare(network, "float32"), images(3))
    found = outputs_of(network, images(3))
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))
    assert torch.equal(found, every[network.output.name])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(tuple(every[layer.name].shape[1:]) == layer.out_shape for layer in network.layers)
    return network


def function(body, *parts: nn.Module) -> nn.Module:
    """Make a module of a function of the parts and the input."""

    class Made(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(parts)

        def forward(self, inputs: Tensor) -> Tensor:
            return body(self.parts, inputs)

    return settle(Made(), seed=7)


def conv(inputs: int, outputs: int, kernel: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, **{"padding": kernel // 2, **options})


def head(maps: Tensor) -> Tensor:
    return maps.mean((2, 3))


CASES = {
    "dilated, grouped, strided": function(
        lambda p, x: head(p[1](functional.leaky_relu(p[0](x), 0.2))),
        conv(2, 4, dilation=2, padding=(2, 1)), conv(4, 6, groups=2, stride=(2, 1)),
    ),
    "asymmetric padding": function(
        lambda p, x: head(p[1](functional.pad(torch.relu(p[0](functional.pad(x, (0, 1, 2, 1)))),
                                              (1, 1, 1, 1)))),
        conv(2, 4, padding=0), conv(4, 5, padding=0),
    ),
    "same, even kernel": function(
        lambda p, x: head(p[1](functional.silu(p[0](x)))),
        conv(2, 4, 4, padding="same"), conv(4, 5, 2, padding="same", dilation=3),
    ),
    "gelu": function(
        lambda p, x: p[1](functional.gelu(functional.gelu(p[0](x.flatten(1))), approximate="tanh")),
        nn.Linear(288, 20), nn.Linear(20, 5),
    ),
    "in place": function(
        lambda p, x: head(functional.silu(p[1](p[0](x).relu_()).relu_(), inplace=True)),
        conv(2, 4), conv(4, 5),
    ),
    "relu after max pooling": function(
        lambda p, x: head(torch.relu(functional.max_pool2d(p[0](x), 2))), conv(2, 5)
    ),
    "relu of relu, of averages": function(
        lambda p, x: head(torch.relu(functional.avg_pool2d(p[0](x).relu().relu(), 3, 2, 1))),
        conv(2, 5),
    ),
    "relu of a sum that goes on": function(
        lambda p, x: (lambda y: head(p[2](torch.relu(y)) + y))(p[1](torch.relu(p[0](x))) + p[0](x)),
        conv(2, 5), conv(5, 5), conv(5, 5),
    ),
    "padded averages": function(
        lambda p, x: head(functional.avg_pool2d(p[0](x), 3, 2, 1)), conv(2, 5)
    ),
    "maxima to a grid": function(
        lambda p, x: p[1](functional.adaptive_max_pool2d(p[0](x), 3).flatten(1)),
        conv(2, 4), nn.Linear(36, 5),
    ),
    "averages to a grid, viewed, dropped": function(
        lambda p, x: p[1](functional.dropout(
            functional.adaptive_avg_pool2d(functional.relu6(p[0](x)), (3, 2)), training=False
        ).view(x.shape[0], -1)),
        conv(2, 4), nn.Linear(24, 5),
    ),
    "squeezed, with a dropout module": function(
        lambda p, x: p[2](p[1](functional.adaptive_avg_pool2d(torch.relu(p[0](x)), 1))
                          .squeeze(3).squeeze(2)),
        nn.Sequential(conv(2, 4), nn.BatchNorm2d(4)), nn.Dropout2d(0.5), nn.Linear(4, 5),
    ),
    "maxima with steps and padding": function(
        lambda p, x: head(p[1](nn.functional.max_pool2d(torch.relu(p[0](x)), (3, 2), (2, 1), 1))),
        conv(2, 4), conv(4, 5),
    ),
    "axes there and back": function(
        lambda p, x: p[1](
            torch.relu(p[0](x)).permute(0, 2, 3, 1).permute(0, 3, 1, 2).mean((2, 3), keepdim=True)
            .permute(0, 2, 3, 1).reshape(x.shape[0], -1)
        ),
        conv(2, 4), nn.Linear(4, 5),
    ),
    "vectors": function(
        lambda p, x: p[2](torch.cat([torch.relu(p[0](x.flatten(1))), p[1](x.flatten(1))], 1)
                          .unflatten(1, (10, 1, 1))).squeeze(3).flatten(1),
        nn.Linear(288, 6), nn.Linear(288, 4), conv(10, 5, 1),
    ),
    "a residual of vectors": function(
        lambda p, x: p[2](torch.relu(p[1](torch.relu(p[0](x.flatten(1)))) + p[0](x.flatten(1)))),
        nn.Linear(288, 8), nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)), nn.Linear(8, 5),
    ),
    "the input added": function(lambda p, x: head(p[1](p[0](x) + x)), conv(2, 2), conv(2, 5)),
    "one convolution twice": function(
        lambda p, x: head(p[1](torch.relu(p[0](torch.relu(p[0](x) + x)) + x))),
        conv(2, 2), conv(2, 5),
    ),
    "clamped": function(
        lambda p, x: head(p[1](p[0](x).clamp(min=0)).clamp(0, 6)), conv(2, 4), conv(4, 5)
    ),
    "branches from the input": function(
        lambda p, x: head(torch.relu(p[0](x) + p[1](x))), conv(2, 5), conv(2, 5, 1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_network_computes_what_its_module_computes(name):
    check(CASES[name])


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_branching_networks_compute_what_their_modules_compute(build):
    network = check(build())
    assert not network.is_chain


KINDS = ("conv", "depthwise", "add", "cat", "pool", "relu6", "block", "pad")


@st.composite
def networks(draw) -> nn.Module:
    """Draw a network that grows by a random step on one or two of the maps that it has so far."""
    steps = draw(
        st.lists(
            st.tuples(st.sampled_from(KINDS), st.integers(0, 7), st.integers(0, 7)),
            min_size=1, max_size=7,
        )
    )  # fmt: skip

    class Random(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(conv(2, 4), nn.BatchNorm2d(4), nn.ReLU())
            self.parts = nn.ModuleList()
            self.plan = []
            channels = [4]
            for kind, one, two in steps:
                first, second = one % len(channels), two % len(channels)
                width = channels[first]
                part: nn.Module = nn.Identity()
                if kind == "conv":
                    part = nn.Sequential(conv(width, 3 + two % 2), nn.BatchNorm2d(3 + two % 2))
                    width = 3 + two % 2
                elif kind == "depthwise":
                    part = nn.Sequential(conv(width, width, groups=width), nn.SiLU())
                elif kind == "block":
                    part = Block(width, 3 + two % 2)
                    width = 3 + two % 2
                elif kind == "add" and channels[second] != width:
                    part = conv(channels[second], width, 1)
                elif kind == "cat":
                    width += channels[second]
                self.parts.append(part)
                self.plan.append((kind, first, second))
                channels.append(width)
            self.last = nn.Linear(channels[-1], 5)

        def forward(self, inputs: Tensor) -> Tensor:
            maps = [self.stem(inputs)]
            for (kind, first, second), part in zip(self.plan, self.parts, strict=True):
                one, two = maps[first], maps[second]
                match kind:
                    case "add":
                        maps.append(torch.relu(one + part(two)))
                    case "cat":
                        maps.append(torch.cat([one, two], 1))
                    case "pool":
                        maps.append(functional.max_pool2d(one, 3, 1, 1))
                    case "relu6":
                        maps.append(functional.relu6(one))
                    case "pad":
                        maps.append(functional.pad(one, (1, -1, -2, 2)))
                    case _:
                        maps.append(part(one))
            return self.last(maps[-1].mean((2, 3)))

    return settle(Random(), seed=draw(st.integers(0, 99)))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(networks())
def test_random_networks_compute_what_their_modules_compute(module):
    check(module)


def test_a_block_is_closed_by_its_last_convolution():
    """Neurons by hand: those of the stem 4 x 12 x 12; of the blocks, after a pooling to 6 x 6."""
    network = captured(residual())
    sizes = [4 * 144, 4 * 36, 4 * 36, 6 * 9, 6 * 9, 6 * 9, 5]
    assert [layer.neurons for layer in network.neuron_layers] == sizes
    assert network.neurons == sum(sizes)
    by_name = {layer.name: layer for layer in network.layers}
    closing = [layer for layer in network.layers if layer.closes_block]
    assert [layer.others for layer in closing] == [("pool1",), ("conv6",)]
    assert by_name["conv6"].kernel == (1, 1), "the projection has neurons of its own"
    assert not by_name["conv6"].relu
    assert all(layer.relu for layer in closing)
    assert set(network.graph.predecessors("conv5")) == {"conv4", "conv6"}
    assert not any(layer.kind is Kind.ADD for layer in network.layers)


def test_neurons_after_an_addition_are_what_faults_strike():
    network = captured(residual())
    executable = prepare(network, "float32")
    with torch.inference_mode():
        values = all_outputs(executable, images(2))
        seen = {}

        def note(layer, inputs, output):
            seen[layer.name] = output.clone()
            assert torch.equal(inputs, values[layer.source])
            return output

        forward(executable, executable.images(images(2)), hook=note)
    assert list(seen) == [layer.name for layer in network.neuron_layers]
    assert all(torch.equal(output, values[name]) for name, output in seen.items())
    assert bool((seen["conv3"] >= 0).all())


def test_dropout_strikes_the_sum_of_both_branches():
    """With all neurons of a closing convolution dropped, a block's output is zero."""
    network = captured(residual())
    closing = next(layer for layer in network.layers if layer.closes_block)
    masks = {
        layer.name: np.full(layer.out_shape, layer is closing) for layer in network.neuron_layers
    }
    struck = nce.evaluate(
        network, images(40), labels(40), Split(0.1, "neuron", masks), nce.Dropout(1.0)
    )

    def zero(layer, _, output):
        return torch.zeros_like(output) if layer is closing else output

    executable = prepare(network, "float32")
    with torch.inference_mode():
        outputs = forward(executable, executable.images(images(40)), hook=zero)
    assert np.array_equal(struck.right, (outputs.argmax(1) == labels(40)).numpy())


def test_noise_strikes_the_sum_of_both_branches():
    """Its deviation is that of the closing layer's mean, after the addition and the ReLU."""
    network = captured(residual())
    closing = next(layer for layer in network.layers if layer.closes_block)
    means = nce.mean_activation(network, images(16))
    masks = {
        layer.name: np.full(layer.out_shape, layer is closing) for layer in network.neuron_layers
    }
    executable = prepare(network, "float32")
    fault = nce.GaussianNoise(2.0, means)
    injector = Injector(executable, Split(0.1, "neuron", masks), fault)
    hook = injector.hook(BlockDraws(executable, 1, 0, range(16)))
    changes = {}

    def strike(layer, inputs, output):
        before = output.clone()
        after = hook(layer, inputs, output)
        changes[layer.name] = (after - before).flatten()
        return after

    with torch.inference_mode():
        values = all_outputs(executable, images(16))
        forward(executable, executable.images(images(16)), hook=strike)
    assert means[closing.name] == pytest.approx(float(values[closing.name].mean()), rel=1e-4)
    assert not changes["conv2"].any()
    spread = float(changes[closing.name].std()) / (2.0 * means[closing.name])
    assert spread == pytest.approx(1, abs=4 / (2 * len(changes[closing.name])) ** 0.5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_branching_networks_run_in_half_precision(precision):
    network = captured(residual())
    executable = prepare(network, precision)
    with torch.inference_mode():
        found = forward(executable, executable.images(images(4))).float()
    expected = outputs_of(network, images(4))
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


class Refused(nn.Module):
    def __init__(self, body) -> None:
        super().__init__()
        self.conv, self.other = conv(2, 4), conv(2, 4)
        self.norm = nn.BatchNorm2d(4)
        self.body = body

    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(self, inputs)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda m, x: m.conv(x) * 2, r"aten\.mul"),
        (lambda m, x: m.conv(x) + 1, "reads 1, which is neither"),
        (lambda m, x: m.conv(x).add(m.other(x), alpha=2), "factor"),
        (lambda m, x: m.conv(x) + m.other(x).mean((2, 3), keepdim=True), "unlike shapes"),
        (lambda m, x: m.norm(x.repeat(1, 2, 1, 1)), r"aten\.repeat"),
        (lambda m, x: m.norm(torch.relu(m.conv(x))), "BatchNorm that does not directly follow"),
        (lambda m, x: m.norm(m.conv(x) + m.other(x)), "BatchNorm that does not directly follow"),
        (lambda m, x: functional.pad(x, (1, 1, 1, 1), mode="reflect"), "reflect"),
        (lambda m, x: functional.max_pool2d(x, 3, 2, ceil_mode=True), "ceil_mode"),
        (lambda m, x: functional.max_pool2d(x, 2, dilation=2), "dilation"),
        (lambda m, x: functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False), "divides"),
        (lambda m, x: m.conv(x).permute(0, 2, 3, 1).flatten(1), "order"),
        (lambda m, x: torch.cat([m.conv(x), m.other(x)], 2), "along channels"),
        (lambda m, x: functional.hardtanh(m.conv(x)), "only ReLU and ReLU6"),
        (
            lambda m, x: (lambda y, z: y.relu_().flatten(1) + z)(
                *(lambda y: (y, y.flatten(1)))(m.conv(x))
            ),
            "overwrites",
        ),
        (lambda m, x: m.conv(x).flatten(0), "a reshape"),
        (lambda m, x: functional.adaptive_max_pool2d(m.conv(x), 1), "global max pooling"),
        (lambda m, x: (m.conv(x), m.other(x)), "returns 2 values"),
        (lambda m, x: functional.adaptive_avg_pool2d(m.conv(x), 5), "12x12 to 5x5"),
    ],
)
def test_what_is_not_supported_is_refused_by_name_and_place(body, message):
    with pytest.raises(nce.InputError, match=message) as refusal:
        captured(Refused(body).eval())
    assert "test_capture.py" in str(refusal.value) or "returns" in message


def test_a_refusal_names_the_module():
    module = nn.Sequential(conv(2, 4), nn.Sequential(nn.Hardswish()))
    with pytest.raises(nce.InputError, match=r"in module '1\.0' \(torch.*Hardswish\)"):
        captured(module)


def test_networks_with_other_non_linearities_have_other_identities():
    one, other = (
        captured(settle(nn.Sequential(conv(2, 4), part, nn.Flatten(), nn.Linear(576, 5)), 3))
        for part in (nn.LeakyReLU(0.1), nn.LeakyReLU(0.2))
    )
    assert one.identity != other.identity


def test_signs_follow_the_graph():
    network = captured(residual())
    assert network.signed == {INPUT, "conv6", "fc1"}
    linear = captured(settle(Residual(((2, 2, 1),), pooled=False), 2))
    assert "conv3" not in linear.signed
