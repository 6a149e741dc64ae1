"""int8 inference of networks that branch, against whole numbers in float64, layer by layer."""

import numpy as np
import pytest
import torch
from graph_networks import BUILDERS, captured
from small_networks import images, one_thread
from test_graph_strikes import curved
from torch.nn import functional

import nce_sim as nce
from nce_sim.workload.activations import Curve
from nce_sim.workload.execute import forward, prepare
from nce_sim.workload.layer import INPUT, Kind

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

CURVES = {
    Curve.RELU: lambda x, _: x.clamp(min=0),
    Curve.RELU6: lambda x, _: x.clamp(0, 6),
    Curve.LEAKY_RELU: lambda x, slope: torch.where(x < 0, x * slope, x),
    Curve.SILU: lambda x, _: x / (1 + torch.exp(-x)),
    Curve.GELU: lambda x, _: x * (1 + torch.erf(x / 2**0.5)) / 2,
    Curve.GELU_TANH: lambda x, _: functional.gelu(x, approximate="tanh"),
}


def bent(layer, values):
    if layer.activation is not None:
        return CURVES[layer.activation.curve](values, layer.activation.slope)
    return values.clamp(min=0) if layer.relu else values


def close(found, expected):
    """Equal but where float32 rounds a half the other way: one step, and rarely."""
    difference = (found.double() - expected).abs()
    assert difference.max() <= 1
    assert (difference > 0).double().mean() < 0.01


@pytest.mark.parametrize("build", [*BUILDERS, curved])
def test_every_step_is_computed_in_whole_numbers_of_steps(build):
    """From what it read: real = word x step; sums are whole; each result is rounded once."""
    network = captured(build())
    calibration = nce.calibrate(network, images(40))
    executable = prepare(network, "int8", calibration=calibration).in_steps
    layers = executable.network.layers
    words = {INPUT: executable.images(images(4))}
    with torch.inference_mode():
        for layer in layers:
            read = [words[source] for source in layer.sources]
            found = words[layer.name] = executable.run_layer(layer, *read)
            assert layer.name in executable.real or bool((found.abs() <= 127).all())
            real = [each.double() * executable.step(source)
                    for each, source in zip(read, layer.sources, strict=True)]  # fmt: skip
            step = executable.step(layer.name)
            match layer.kind:
                case Kind.CONV2D | Kind.LINEAR:
                    held = executable.parameters[layer.name]
                    weight, bias = held.weight.double(), held.bias.double()
                    assert weight.abs().max() <= 127
                    whole = (
                        functional.linear(read[0].double(), weight, bias)
                        if layer.kind is Kind.LINEAR
                        else functional.conv2d(
                            read[0].double(), weight, bias, layer.stride, layer.padding,
                            layer.dilation, layer.groups,
                        )
                    )  # fmt: skip
                    units = executable.factors[layer.name].double() * step
                    by_channel = (-1, *[1] * (whole.dim() - 2))
                    expected = bent(layer, whole * units.view(by_channel)) / step
                case Kind.ADD:
                    expected = bent(layer, sum(real[1:], real[0])) / step
                case Kind.CONCAT:
                    assert {executable.step(source) for source in layer.sources} == {step}
                    expected = torch.cat([each.double() for each in read], 1)
                case Kind.AVERAGE_POOL:
                    mean = functional.avg_pool2d(read[0].double(), layer.kernel, layer.stride)
                    expected = mean.reshape(found.shape) * executable.step(layer.source) / step
                case _:
                    continue
            if layer.name in executable.real:
                np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)
            else:
                close(found, expected.round().clamp(-127, 127))
    whole_network = prepare(network, "int8", calibration=calibration)
    with torch.inference_mode():
        together = forward(whole_network, whole_network.images(images(4)))
    assert torch.equal(together, words[layers[-1].name])


@pytest.mark.parametrize("build", [*BUILDERS, curved])
def test_int8_stays_close_to_float32(build):
    """The classes' outputs move by a few hundredths of their spread."""
    network = captured(build())
    calibration = nce.calibrate(network, images(40))
    results = []
    for precision in ("float32", "int8"):
        executable = prepare(network, precision, calibration=calibration)
        with torch.inference_mode():
            results.append(forward(executable, executable.images(images(40))))
    exact, rounded = results
    assert (rounded - exact).square().mean().sqrt() < 0.06 * exact.std()
