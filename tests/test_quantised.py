"""float16 and int8: lanes stepped one by one, exact sums, calibration, evaluation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import all_convolutional, images, labels, with_pooling
from torch.nn import functional

import nce_sim as nce
from nce_sim.accuracy.evaluate import Variant, predict_variants
from nce_sim.faults.block_draws import BlockDraws
from nce_sim.faults.injection import Injector
from nce_sim.workload.execute import (
    PRECISION_OF_FORMAT,
    PRECISIONS,
    all_outputs,
    forward,
    linear_part,
    prepare,
)
from nce_sim.workload.graph import Parameters, Workload
from nce_sim.workload.layer import INPUT, Kind, Layer
from nce_sim.workload.quantised import lay_out, sums_are_exact

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=[all_convolutional, with_pooling])
def network(request):
    return nce.Workload.from_module(request.param(), images(1))


def filled(layers, seed):
    """A network of `layers` with normal parameters."""
    random = np.random.Generator(np.random.Philox(seed))

    def normal(*shape):
        return torch.from_numpy(random.standard_normal(shape).astype(np.float32))

    parameters = {}
    for layer in layers:
        shape = (layer.channels, layer.in_shape[0] // layer.groups)
        if layer.kind is Kind.CONV2D:
            shape += layer.kernel
        if layer.weights:
            bias = normal(layer.channels) if layer.bias else None
            parameters[layer.name] = Parameters(normal(*shape), bias)
    return Workload("drawn", layers[0].in_shape, tuple(layers), parameters)


@st.composite
def convolutions(draw):
    """A convolution whose kernel fits, and a pooling or a 1x1 convolution after it."""
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    groups = draw(st.integers(1, 2))
    channels, outputs = (groups * draw(st.integers(1, 2)) for _ in range(2))
    kernel, stride, dilation = draw(pair), draw(pair), draw(pair)
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = [r + draw(st.integers(0, 3)) for r in reach]
    spaces = zip(size, padding, reach, stride, strict=True)
    made = [(s + 2 * p - r) // step + 1 for s, p, r, step in spaces]
    layer = Layer(
        "conv1", Kind.CONV2D, INPUT, (channels, *size), (outputs, *made), kernel, stride,
        padding, dilation, groups, draw(st.booleans()), True, draw(st.booleans()),
    )  # fmt: skip
    pool = Layer(
        "pool1", Kind.AVERAGE_POOL, "conv1", layer.out_shape, (outputs, 1, 1), (made[0], made[1]),
        (made[0], made[1]), groups=outputs, has_neurons=True,
    )  # fmt: skip
    return filled([layer, pool][: draw(st.integers(1, 2))], draw(st.integers(0, 999)))


@st.composite
def linears(draw):
    """One or two linear layers."""
    width, inner, outputs = (draw(st.integers(1, 6)) for _ in range(3))
    relu, bias = draw(st.booleans()), draw(st.booleans())
    first = Layer(
        "fc1", Kind.LINEAR, INPUT, (width,), (inner,), relu=relu, has_neurons=True, bias=bias
    )
    second = replace(first, name="fc2", source="fc1", in_shape=(inner,), out_shape=(outputs,))
    return filled([first, second][: draw(st.integers(1, 2))], draw(st.integers(0, 999)))


def operands(layer, inputs, channel, row, column):
    """What one lane reads, in the order input channel, row, column of the kernel."""
    if layer.kind is Kind.LINEAR:
        return inputs
    (top, left), (down, right), (below, beside) = layer.padding, layer.stride, layer.dilation
    padded = np.pad(inputs, ((0, 0), (top, top), (left, left)))
    share = layer.in_shape[0] // layer.groups
    first = channel // (layer.channels // layer.groups) * share
    return np.array(
        [
            padded[first + c, row * down + y * below, column * right + x * beside]
            for c in range(share)
            for y in range(layer.kernel[0])
            for x in range(layer.kernel[1])
        ]
    )


def lane_sum(executable, layer, read, channel):
    """Step one lane's sum with scalars of the sums' type."""
    kind = executable.format.sum_dtype
    weights = executable.lane_weights(layer)
    total = executable.lane_bias(layer)[channel]
    assert type(total) is kind
    with np.errstate(over="ignore"):
        for place, value in enumerate(read):
            weight = 1 if weights is None else weights[channel, place]
            total = total + kind(value) * kind(weight)
    return total


def lane_outputs(executable, layer, inputs):
    """All outputs of one image's layer, each by its own lane, and the sums of |products|."""
    outputs = np.zeros(layer.out_shape, np.float32)
    sums = np.zeros(layer.out_shape, executable.format.sum_dtype)
    channels = np.zeros(layer.out_shape, np.int64)
    magnitudes = np.zeros(layer.out_shape)
    weights = executable.lane_weights(layer)
    for place in np.ndindex(outputs.shape):
        read = operands(layer, inputs, *(*place, 0, 0)[:3])
        sums[place] = lane_sum(executable, layer, read, place[0])
        channels[place] = place[0]
        row = np.ones(len(read)) if weights is None else weights[place[0]]
        magnitudes[place] = np.abs(read * row).sum() + abs(executable.lane_bias(layer)[place[0]])
    return executable.finish(layer, sums, channels), magnitudes


@settings(deadline=None, max_examples=60)
@given(st.one_of(convolutions(), linears()), st.sampled_from(PRECISIONS), st.integers(0, 99))
def test_a_lane_gives_what_the_layer_gives(network, precision, seed):
    random = np.random.Generator(np.random.Philox(seed))
    drawn = random.standard_normal((2, *network.input_shape)).astype(np.float32)
    pictures = torch.from_numpy(drawn)
    executable = prepare(network, precision, calibration=nce.calibrate(network, pictures))
    values = all_outputs(executable, executable.images(pictures))
    for layer in network.layers:
        inputs = values[layer.source][1].float().numpy()
        found, magnitudes = lane_outputs(executable, layer, inputs)
        expected = values[layer.name][1].float().numpy()
        if precision == "int8":
            assert np.array_equal(found, expected)
            continue
        unit = {"float32": 0.0, "bfloat16": 2.0**-7, "float16": 2.0**-10}[precision]
        allowed = 1e-6 * magnitudes + unit * np.abs(expected) + 1e-7
        assert (np.abs(found - expected) <= allowed).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_finishing_takes_any_shape_and_leaves_its_arguments(precision):
    layer = Layer("fc1", Kind.LINEAR, INPUT, (3,), (1,), relu=True, has_neurons=True)
    network = filled([layer], 1)
    executable = prepare(network, precision, calibration=nce.calibrate(network, torch.ones(1, 3)))
    sums = executable.format.as_sums(np.array([[-5, 7], [3, 0]]))
    before = sums.copy()
    found = executable.finish(layer, sums, np.zeros((2, 2), np.int64))
    assert found.dtype == np.float32
    assert np.array_equal(sums, before)
    for place, total in np.ndenumerate(sums):
        assert executable.finish(layer, total, np.int64(0)) == found[place]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_stored_outputs_and_weights_lie_on_the_grid(network, precision):
    executable = prepare(network, precision, calibration=nce.calibrate(network, images(40)))
    form = executable.format
    assert PRECISION_OF_FORMAT[form.name] == precision
    values = all_outputs(executable, executable.images(images(8)))
    real = {layer.name for layer in network.layers if layer.name in ("pool1", "flatten1", "fc2")}
    for name, value in values.items():
        stored = value.float().numpy()
        if precision != "int8" or name not in real:
            assert np.array_equal(form.decode(form.encode(stored)), stored)
    for layer in network.layers:
        weights = executable.lane_weights(layer)
        assert (weights is None) == (layer.weights == 0)
        if weights is not None:
            assert weights.shape == (layer.channels, layer.reduction_length)
            assert np.array_equal(form.decode(form.encode(weights)), weights)


def test_int8_follows_float32(network):
    pictures = images(64)
    executable = prepare(network, "int8", calibration=nce.calibrate(network, pictures))
    exact = all_outputs(prepare(network, "float32"), pictures)
    whole = all_outputs(executable, executable.images(pictures))
    for layer in network.layers:
        error = whole[layer.name] * executable.step(layer.name) - exact[layer.name]
        assert error.abs().mean() < 0.03 * exact[layer.name].abs().max()


def test_average_pooling_inside_rounds_on_the_same_step():
    network = nce.Workload.from_module(with_pooling(), images(1))
    executable = prepare(network, "int8", calibration=nce.calibrate(network, images(40)))
    values = all_outputs(executable, executable.images(images(8)))
    pool = next(layer for layer in network.layers if layer.kind is Kind.AVERAGE_POOL)
    maps = values[pool.source].double().numpy()
    sums = sum(maps[:, :, y::2, x::2] for y in (0, 1) for x in (0, 1))
    assert np.array_equal(values[pool.name].numpy(), np.rint(sums / 4))
    assert executable.step(pool.name) == executable.step(pool.source)


def test_pooling_after_the_read_out_keeps_real_numbers():
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.AvgPool2d(2))
    network = nce.Workload.from_module(module.eval(), images(1))
    executable = prepare(network, "int8", calibration=nce.calibrate(network, images(40)))
    values = all_outputs(executable, executable.images(images(4)))
    assert executable.step("conv1") == executable.step("pool1") == 1.0
    expected = functional.avg_pool2d(values["conv1"], 2)
    assert torch.allclose(values["pool1"], expected, rtol=1e-6)
    assert not torch.equal(values["pool1"], values["pool1"].round())


@pytest.mark.parametrize(("bias", "dtype"), [(1023, torch.float32), (1024, torch.float64)])
def test_sums_are_exact_at_the_bound(bias, dtype):
    """1032 x 127 x 128 + 1023 is the largest whole number below 2^24."""
    layer = Layer("conv1", Kind.CONV2D, INPUT, (1032, 2, 2), (3, 2, 2))
    signs = torch.from_numpy(np.random.Generator(np.random.Philox(1)).choice([-1, 1], (3, 1032)))
    weight = (127.0 * signs).double()
    held = lay_out(
        Parameters(weight[:, :, None, None], torch.tensor([bias, -bias, bias]).double()), CPU
    )
    assert held.weight.dtype is dtype
    # Each channel's own signs, so that all its products are positive; then all alike; then random.
    inputs = torch.stack([*(-128.0 * -signs), torch.full((1032,), -128), 37.0 * signs[0]])
    inputs = inputs[:, :, None, None].expand(-1, -1, 2, 2).to(dtype).contiguous()
    found = linear_part(layer, held.weight, held.bias, inputs)[:, :, 0, 0]
    assert held.bias is not None
    exact = inputs[:, :, 0, 0].long() @ weight.long().T + held.bias.long()
    assert int(exact.max()) == 1032 * 127 * 128 + bias
    assert torch.equal(found.long(), exact)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 9999), st.integers(1, 3), st.sampled_from([1, 32, 114]))
def test_convolutions_of_whole_numbers_are_exact(seed, kernel, channels):
    """114 x 9 x 127 x 128 is just below 2^24."""
    random = np.random.Generator(np.random.Philox(seed))
    weight = torch.from_numpy(random.integers(-127, 128, (4, channels, kernel, kernel)))
    maps = torch.from_numpy(random.integers(-128, 128, (16, channels, 6, 6)))
    held = lay_out(Parameters(weight.double(), torch.zeros(4).double()), CPU)
    assert held.weight.dtype is torch.float32
    out = 7 - kernel
    layer = Layer("c", Kind.CONV2D, INPUT, (channels, 6, 6), (4, out, out), kernel=(kernel, kernel))
    found = linear_part(layer, held.weight, held.bias, maps.float())
    assert torch.equal(found.long(), functional.conv2d(maps, weight))


def test_sums_wrap_like_an_int32():
    layer = Layer("fc1", Kind.LINEAR, INPUT, (140_000,), (1,), has_neurons=True)
    network = Workload(
        "wide", (140_000,), (layer,), {"fc1": Parameters(torch.ones(1, 140_000), None)}
    )
    calibration = nce.calibrate(network, torch.ones(2, 140_000))
    executable = prepare(network, "int8", calibration=calibration)
    inputs = executable.images(torch.ones(2, 140_000))
    wrapped = np.array([140_000 * 127 * 127], np.int64).astype(np.int32)
    assert wrapped[0] < 0
    expected = executable.finish(layer, wrapped, np.array([0]))
    assert np.array_equal(executable.run_layer(layer, inputs)[0].numpy(), expected)


def test_only_direct_convolutions_on_a_cpu_are_trusted():
    assert sums_are_exact(2**24 - 1, CPU) == torch.backends.mkldnn.is_available()
    assert not sums_are_exact(2**24, CPU)
    assert not sums_are_exact(1, torch.device("cuda"))


def test_a_channel_without_weights_keeps_its_bias():
    layer = Layer("fc1", Kind.LINEAR, INPUT, (4,), (3,), has_neurons=True, bias=True)
    weight = torch.tensor([[0.0] * 4, [1e-12] * 4, [0.0] * 4])
    network = Workload(
        "dead", (4,), (layer,), {"fc1": Parameters(weight, torch.tensor([0.3, -5, 0]))}
    )
    pictures = torch.ones(2, 4)
    executable = prepare(network, "int8", calibration=nce.calibrate(network, pictures))
    outputs = forward(executable, executable.images(pictures))
    assert outputs[0].tolist() == pytest.approx([0.3, -5, 0], rel=1e-6)


def test_float16_overflows_to_infinity_and_never_becomes_a_class():
    layer = Layer("fc1", Kind.LINEAR, INPUT, (2,), (2,), has_neurons=True)
    weight = torch.tensor([[300.0, 0.0], [0.0, 1.0]])
    network = Workload("large", (2,), (layer,), {"fc1": Parameters(weight, None)})
    pictures = torch.tensor([[300.0, 1.0], [1.0, 1.0]])
    assert predict_variants(network, pictures, [], precision="float16").clean.tolist() == [-1, 0]
    beyond = replace(network, parameters={"fc1": Parameters(weight * 1000, None)})
    with pytest.raises(nce.InputError, match="layer fc1 has weights"):
        prepare(beyond, "float16")


def test_calibration_covers_its_share_and_does_not_depend_on_blocks(network):
    pictures = images(100)
    calibration = nce.calibrate(network, pictures)
    outputs = all_outputs(prepare(network, "float32"), pictures)
    for name, reach in calibration.ranges.items():
        values = outputs[name].numpy()
        assert calibration.smallest[name] == pytest.approx(values.min(), rel=1e-5, abs=1e-6)
        assert calibration.largest[name] == pytest.approx(values.max(), rel=1e-5)
        covering = np.quantile(np.abs(values), 0.99999, method="inverted_cdf")
        assert covering * (1 - 1e-5) <= reach <= covering * (1 + 2**-8)
    assert calibration == nce.calibrate(network, pictures)
    assert calibration.images == 100


def test_int8_needs_the_networks_own_calibration(network):
    other = nce.Workload.from_module(all_convolutional(seed=9), images(1))
    with pytest.raises(nce.InputError, match=r"calibrate\(network, images\)"):
        prepare(network, "int8")
    with pytest.raises(nce.InputError, match="another network"):
        prepare(network, "int8", calibration=nce.calibrate(other, images(3)))


@pytest.mark.parametrize(
    ("precision", "half_width"), [*((name, None) for name in PRECISIONS), ("int8", 0.2)]
)
def test_results_name_both_baselines(network, precision, half_width):
    split = nce.rank(network, None, None, "random").split(0.5)
    result = nce.evaluate(
        network, images(70), labels(70), split, nce.Dropout(0.3), precision=precision,
        half_width=half_width, calibration=nce.calibrate(network, images(40, seed=8)),
    )  # fmt: skip
    assert result.precision == precision
    assert result.not_finite.successes == 0
    if precision == "float32":
        assert result.float_reference is None
        assert "float32" not in str(result)
        return
    clean = predict_variants(network, images(70), []).clean
    assert result.float_reference is not None
    assert result.float_reference.successes == (clean == labels(70).numpy()).sum()
    assert f"in {precision}, " in str(result)
    assert result.summary()["float_reference"] == result.float_reference.value


def test_faults_leave_outputs_in_the_format(network):
    calibration = nce.calibrate(network, images(40))
    executable = prepare(network, "int8", calibration=calibration)
    split = nce.rank(network, None, None, "random").split(1.0)
    means = nce.mean_activation(network, images(40))
    injector = Injector(executable, split, nce.GaussianNoise(1.0, means))
    inject = injector.hook(BlockDraws(executable, 0, 0, range(8)))
    layer = network.layers[0]
    inputs = executable.images(images(8))
    clean = executable.run_layer(layer, inputs)
    faulty = inject(layer, inputs, clean.clone())
    assert torch.equal(faulty, faulty.round().clamp(-127, 127))
    inside = (faulty.abs() < 127) & (clean < 60)
    deviation = float((faulty - clean)[inside].std()) * executable.step(layer.name)
    assert deviation == pytest.approx(means[layer.name], rel=0.1)


def test_clean_classes_agree_between_precisions(network):
    calibration = nce.calibrate(network, images(64, seed=8))
    split = nce.rank(network, None, None, "random").split(0.0)
    reference = predict_variants(network, images(64), []).clean
    for precision in PRECISIONS[1:]:
        found = predict_variants(
            network, images(64), [Variant(split, nce.Dropout(0.5))], precision=precision,
            calibration=calibration,
        )  # fmt: skip
        assert np.array_equal(found.clean, found.faulty[0, 0])
        assert (found.clean == reference).mean() > 0.9
