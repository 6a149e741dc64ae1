"""Networks in ONNX files; what needs the extra runs only where it is installed."""

import importlib.util
import sys

import numpy as np
import pytest
import torch

import nce_sim as nce
from nce_sim.errors import InputError
from nce_sim.workload.execute import forward, prepare
from nce_sim.workload.models import data_of, load_module

with_extra = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnx2torch")),
    reason="needs nce-sim[onnx]",
)


def residual(rows="N", height=8, name="conv", last="Gemm"):
    """Return a model: Conv, BatchNorm, ReLU, Conv, Add, ReLU, MaxPool, Flatten, Gemm."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(7)

    def stored(key, *shape):
        return numpy_helper.from_array(random.uniform(0.1, 0.5, shape).astype(np.float32), key)

    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["a"], name=name, pads=[1] * 4, kernel_shape=[3, 3]),
        node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["b"]),
        node("Relu", ["b"], ["y"]),
        node("Conv", ["y", "w2"], ["c"], pads=[1] * 4, kernel_shape=[3, 3]),
        node("Add", ["c", "y"], ["d"]),
        node("Relu", ["d"], ["e"]),
        node("MaxPool", ["e"], ["f"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["f"], ["g"], axis=1),
        node("Gemm", ["g", "w3", "b3"], ["h"], transB=1),
    ]
    if last != "Gemm":
        nodes.append(node(last, ["h"], ["i"]))
    weights = [
        stored("w1", 4, 1, 3, 3), stored("b1", 4), stored("w2", 4, 4, 3, 3), stored("w3", 10, 64),
        stored("b3", 10), *(stored(key, 4) for key in ("scale", "shift", "mean", "variance")),
    ]  # fmt: skip
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "net",
        [value("x", TensorProto.FLOAT, [rows, 1, height, 8])],
        [value(nodes[-1].output[0], TensorProto.FLOAT, [rows, 10])],
        weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def write(path, **changes):
    import onnx

    onnx.save(residual(**changes), path)
    return path


@with_extra
@pytest.mark.parametrize("rows", ["N", 1])
def test_an_onnx_file_is_the_network(tmp_path, rows):
    import onnx.reference

    path = write(tmp_path / "mine.onnx", rows=rows)
    network = nce.load_model(path)
    assert network.name == "mine"
    assert [layer.name for layer in network.neuron_layers] == ["conv1", "conv2", "fc1"]
    assert network.neurons == 2 * 4 * 64 + 10
    image = np.random.default_rng(0).standard_normal((1, 1, 8, 8)).astype(np.float32)
    (expected,) = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"x": image})
    found = forward(prepare(network, "float32"), torch.from_numpy(image))
    torch.testing.assert_close(found, torch.from_numpy(expected))
    assert data_of(path) is None
    assert load_module(path)(torch.from_numpy(image)).shape == (1, 10)


@with_extra
def test_images_say_what_an_open_size_is(tmp_path):
    path = write(tmp_path / "open.onnx", height="height")
    with pytest.raises(InputError, match="shape of its input is not known"):
        nce.load_model(path)
    fixed = nce.load_model(write(tmp_path / "fixed.onnx"))
    assert nce.load_model(path, lambda: (1, 8, 8)).identity == fixed.identity


@with_extra
def test_a_name_in_the_file_is_never_run(tmp_path):
    name = 'initializers", setattr(__import__("sys"), "struck", True) or 0), ("b'
    plain = nce.load_model(write(tmp_path / "plain.onnx"))
    odd = write(tmp_path / "odd.onnx", name=name)
    assert nce.load_model(odd).identity == plain.identity
    assert load_module(odd)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    assert not hasattr(sys, "struck")


@with_extra
def test_what_cannot_be_read_or_converted_is_refused(tmp_path):
    (tmp_path / "text.onnx").write_text("a network")
    for name in ("text.onnx", "none.onnx"):
        with pytest.raises(InputError, match="cannot read the ONNX file"):
            nce.load_model(tmp_path / name)
    with pytest.raises(InputError, match=r"cannot be converted by onnx2torch.*Hardmax"):
        nce.load_model(write(tmp_path / "hard.onnx", last="Hardmax"))
    with pytest.raises(InputError, match="tanh"):
        nce.load_model(write(tmp_path / "tanh.onnx", last="Tanh"))


def test_without_the_extra_one_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"pip install 'nce-sim\[onnx\]'"):
        nce.load_model(tmp_path / "mine.onnx")
