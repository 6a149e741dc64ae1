"""Capturing networks: counts, equality with the module, refusals, bundled models and data."""

import gzip
import json
import struct
from hashlib import sha256

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_networks import all_convolutional, images, with_pooling
from torch import Tensor, nn
from torch.nn import functional

import nce_sim as nce
from nce_sim.workload.data_config import ranking_part
from nce_sim.workload.dataset_descriptions import DATASETS
from nce_sim.workload.datasets import load_data
from nce_sim.workload.execute import blocks, forward, pad_block, prepare
from nce_sim.workload.idx_files import read_idx
from nce_sim.workload.layer import Kind
from nce_sim.workload.models import load_description
from nce_sim.workload.zoo.allcnn import all_cnn_c
from nce_sim.workload.zoo.vgg import vgg16


def outputs_of(network: nce.Workload, inputs: Tensor) -> Tensor:
    executable = prepare(network, "float32")
    with torch.inference_mode():
        return forward(executable, executable.images(inputs))


@pytest.mark.parametrize("channels", [1, 2])
def test_maps_stay_channels_last_from_the_image_on(channels):
    """Images of one channel lie alike in both orders; torch must still see channels-last."""
    module = nn.Sequential(nn.Conv2d(channels, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 3))
    inputs = torch.ones(2, channels, 8, 8)
    network = nce.Workload.from_module(module, inputs)
    outputs = outputs_of(network, inputs)
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    assert not outputs.is_contiguous()
    assert torch.allclose(outputs, module(inputs), atol=1e-5)
    executable = prepare(network, "float32")
    assert torch.equal(executable.images(inputs), inputs)
    assert executable.images(inputs).stride() == (64 * channels, 1, 8 * channels, channels)


def test_all_cnn_has_the_neurons_of_the_papers_table():
    for channels in (1, 3):
        network = nce.Workload.from_module(
            all_cnn_c(in_channels=channels), torch.zeros(1, channels, 32, 32)
        )
        assert network.neurons == 357_002
        assert len(network.neuron_layers) == 10  # nine convolutions and the pooling at the output


def test_vgg16_has_the_neurons_of_the_papers_table():
    with torch.device("meta"):
        module = vgg16()
    network = nce.Workload.from_module(module, torch.zeros(1, 3, 224, 224, device="meta"))
    assert network.neurons == 13_556_712
    assert [layer.name for layer in network.neuron_layers][-3:] == ["fc1", "fc2", "fc3"]


@pytest.mark.parametrize("build", [all_convolutional, with_pooling])
def test_captured_network_computes_what_its_module_computes(build):
    module = build()
    network = nce.Workload.from_module(module, torch.zeros(1, 2, 12, 12))
    with torch.inference_mode():
        expected = module(images(5))
    assert torch.allclose(outputs_of(network, images(5)), expected, atol=1e-5)


class Functional(nn.Module):
    """The same operations as functions, with BatchNorm and a reused convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.twice = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.last = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = torch.relu(self.norm(self.first(inputs)))
        maps = functional.max_pool2d(maps, 3, 2, 1)
        maps = functional.relu(self.twice(functional.relu(self.twice(maps))))
        return self.last(maps.mean((2, 3)))


def test_functions_batchnorm_and_reused_layers_are_captured():
    module = Functional()
    with torch.no_grad():
        module.norm.running_mean.normal_(generator=torch.Generator().manual_seed(1))
        module.norm.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(2))
        module.norm.weight.uniform_(-1, 1, generator=torch.Generator().manual_seed(3))
    module.eval()
    network = nce.Workload.from_module(module, torch.zeros(1, 2, 12, 12))
    assert [layer.name for layer in network.neuron_layers] == ["conv1", "conv2", "conv3", "fc1"]
    with torch.inference_mode():
        expected = module(images(4))
    assert torch.allclose(outputs_of(network, images(4)), expected, atol=1e-5)


def test_pooling_inside_a_network_has_no_neurons_but_at_its_output_it_has():
    inside = nce.Workload.from_module(with_pooling(), torch.zeros(1, 2, 12, 12))
    assert not any(layer.has_neurons for layer in inside.layers if "pool" in layer.kind)
    at_end = nce.Workload.from_module(all_convolutional(), torch.zeros(1, 2, 12, 12))
    pool = at_end.layers[-2]
    assert (pool.kind, pool.neurons, pool.reduction_length) == (Kind.AVERAGE_POOL, 5, 36)


def test_unsupported_operation_is_refused_by_name_and_place():
    class Unknown(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return torch.fft.fft(inputs).real

    with pytest.raises(nce.InputError, match=r"fft") as refusal:
        nce.Workload.from_module(Unknown(), torch.zeros(1, 2, 12, 12))
    assert "test_workload.py" in str(refusal.value)


def test_capturing_leaves_the_module_as_it_was():
    module = all_convolutional()
    module.train()
    module[0].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    nce.Workload.from_module(module, torch.zeros(1, 2, 12, 12))
    assert module.training
    assert not module[0].training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_graph_follows_the_sources():
    network = nce.Workload.from_module(with_pooling(), torch.zeros(1, 2, 12, 12))
    assert list(network.graph.predecessors("conv2")) == ["pool1"]
    assert network.graph.nodes["conv2"]["layer"].reduction_length == 54


def test_bundled_network_loads_without_touching_torchs_random_state():
    before = torch.get_rng_state()
    network = nce.load_model("allcnn-fashion")
    assert torch.equal(before, torch.get_rng_state())
    assert network.neurons == 357_002
    assert network.identity == nce.load_model("allcnn-fashion").identity


def test_unknown_model_is_refused_with_what_there_is():
    with pytest.raises(nce.InputError, match="allcnn-fashion"):
        nce.load_model("resnet")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "other shapes", "missing"])
def test_damaged_weights_are_refused(tmp_path, damage):
    _description, folder = load_description("allcnn-fashion")
    content = (folder / "weights.safetensors").read_bytes()
    text = (folder / "model.yaml").read_text()
    if damage == "truncated":
        content = content[:1000]
    elif damage == "flipped":
        content = content[:-1] + bytes([content[-1] ^ 1])
    if damage == "other shapes":
        save_file({"1.weight": torch.zeros(3)}, tmp_path / "weights.safetensors")
        text = "\n".join(line for line in text.splitlines() if "sha256" not in line)
    elif damage != "missing":
        (tmp_path / "weights.safetensors").write_bytes(content)
    (tmp_path / "model.yaml").write_text(text)
    with pytest.raises(nce.InputError, match=r"weights\.safetensors"):
        nce.load_model(tmp_path)


def test_a_network_of_ones_own_lies_beside_its_description(tmp_path):
    (tmp_path / "my_net.py").write_text(
        "from torch import nn\n"
        "def make(width): return nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU())\n"
    )
    (tmp_path / "model.yaml").write_text(
        "name: mine\ndescription: test\narchitecture: my_net:make\narguments: {width: 4}\n"
        "input_shape: [1, 5, 5]\nseed: 3\n"
    )
    network = nce.load_model(tmp_path)
    assert (network.name, network.neurons) == ("mine", 36)
    assert network.identity == nce.load_model(tmp_path / "model.yaml").identity


def test_bundled_data_have_the_published_sizes():
    test, ranking = load_data("fashion-mnist", "test"), load_data("fashion-mnist", "ranking")
    assert test.images.shape == (10_000, 1, 32, 32)
    assert ranking.images.shape == (5_000, 1, 32, 32)
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    assert torch.bincount(ranking.labels).tolist() == [500] * 10


def test_digits_are_cut_into_training_and_test_images():
    train, test = load_data("digits", "train"), load_data("digits", "test")
    assert train.images.shape == (1000, 1, 8, 8)
    assert test.images.shape == (797, 1, 8, 8)
    counted = torch.bincount(train.labels) + torch.bincount(test.labels)
    assert counted.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as published
    seen = {tuple(image.ravel().tolist()) for image in train.images}
    assert not any(tuple(image.ravel().tolist()) in seen for image in test.images)
    assert float(train.images.mean()) == pytest.approx(0, abs=1e-3)
    assert float(train.images.std()) == pytest.approx(1, abs=1e-3)
    ranking = load_data("digits", "ranking")
    assert torch.equal(ranking.images, train.images)
    assert torch.equal(ranking.labels, train.labels)


@pytest.mark.parametrize("name", DATASETS)
def test_bundled_parts_hold_as_many_images_as_described(name):
    for part, described in DATASETS[name].parts.items():
        if described.bundled:
            assert len(load_data(name, part)) == described.images


@pytest.mark.parametrize("name", DATASETS)
def test_unknown_parts_are_refused(name):
    with pytest.raises(nce.InputError, match="known are test, ranking, train"):
        load_data(name, "validation")
    with pytest.raises(nce.InputError, match="fashion-mnist, digits"):
        load_data(name + "s")


def test_images_to_rank_with_come_from_the_smallest_part_that_holds_so_many():
    assert ranking_part("fashion-mnist", 5_000) == "ranking"
    assert ranking_part("fashion-mnist", 5_001) == "train"
    assert ranking_part("digits", 1_000) == "ranking"
    with pytest.raises(nce.InputError, match="digits has 1,000 training images"):
        ranking_part("digits", 1_001)
    with pytest.raises(nce.InputError, match="fashion-mnist has 60,000 training images"):
        ranking_part("fashion-mnist", 60_001)


def test_the_small_network_is_as_accurate_as_its_card_says():
    network, test = nce.load_model("cnn-digits"), load_data("digits", "test")
    assert network.neurons == 2_218
    right = outputs_of(network, test.images).argmax(1) == test.labels
    folder = load_description("cnn-digits")[1]
    stated = json.loads((folder / "training.json").read_text())
    assert float(right.double().mean()) == pytest.approx(stated["test_accuracy"], abs=1e-12)
    assert f"{100 * stated['test_accuracy']:.2f} %" in (folder / "README.md").read_text()
    weights = (folder / "weights.safetensors").read_bytes()
    assert sha256(weights).hexdigest() == stated["weights_sha256"]


def write_idx(path, array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_training_set_is_read_from_a_folder(tmp_path):
    pixels = np.arange(2 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(2, 28, 28)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", pixels)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.array([3, 7], np.uint8))
    data = load_data("fashion-mnist", "train", folder=tmp_path)
    assert data.labels.tolist() == [3, 7]
    assert data.images[0, 0, 2, 3].item() == pytest.approx((1 / 255 - 0.2860) / 0.3530, abs=1e-6)
    with pytest.raises(nce.InputError, match="train-images"):
        load_data("fashion-mnist", "train", folder=tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"no gzip", id="no gzip"),
        pytest.param(gzip.compress(b"\0\0\x09\x01"), id="type of element"),
        pytest.param(gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 1, 5) + b"four"), id="short"),
        pytest.param(gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 1, 5) + b"sixsix"), id="long"),
        pytest.param(gzip.compress(b"\0\0\x08\x03\0\0"), id="cut header"),
        pytest.param(gzip.compress(b"x" * 1000)[:-20], id="cut stream"),
    ],
)
def test_damaged_idx_file_is_refused(tmp_path, content):
    path = tmp_path / "broken.gz"
    path.write_bytes(content)
    with pytest.raises(nce.InputError, match=r"broken\.gz"):
        read_idx(path)


def test_blocks_cover_all_images_and_padding_repeats_the_last():
    assert [(b.start, b.stop) for b in blocks(10, 4)] == [(0, 4), (4, 8), (8, 10)]
    assert pad_block(torch.arange(3), 5).tolist() == [0, 1, 2, 2, 2]
