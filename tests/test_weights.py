"""Weights from files: the formats, what training scripts wrap, and what is refused."""

import os
import pickle
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import nce_sim as nce
from nce_sim.workload.timm_names import torchvision_names
from nce_sim.workload.weights import load_weights


def small(seed):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(18, 4))
    module[1].running_mean.normal_()
    module[1].num_batches_tracked.fill_(7)
    return module.eval()


def same(left, right):
    pairs = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


WRAPPED = {
    "bare": lambda tensors: tensors,
    "state_dict": lambda tensors: {"state_dict": tensors, "epoch": 3, "best": 0.5},
    "model": lambda tensors: {"model": tensors, "optimizer": {"state": {}}},
    "both": lambda tensors: {"state_dict": {"model": tensors}},
    "parallel": lambda tensors: {
        "state_dict": OrderedDict((f"module.{name}", value) for name, value in tensors.items())
    },
}


@pytest.mark.parametrize("wrap", WRAPPED)
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_are_read_whatever_is_wrapped_around_the_tensors(tmp_path, wrap, zipped):
    trained, fresh = small(1), small(2)
    content = WRAPPED[wrap](trained.state_dict())
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    load_weights(fresh, tmp_path / "w.pth")
    assert same(trained, fresh)


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_safetensors_are_known_by_their_content(tmp_path, name):
    trained, fresh = small(1), small(2)
    save_file(trained.state_dict(), tmp_path / name)
    load_weights(fresh, tmp_path / name)
    assert same(trained, fresh)


def test_halves_are_converted_and_counters_may_be_missing(tmp_path):
    trained, fresh = small(1), small(2)
    halves = {
        name: value.half()
        for name, value in trained.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(halves, tmp_path / "w.pt")
    load_weights(fresh, tmp_path / "w.pt")
    assert fresh[0].weight.dtype is torch.float32
    assert torch.equal(fresh[0].weight, trained[0].weight.half().float())


def test_all_mistakes_are_told_at_once_and_nothing_is_loaded(tmp_path):
    fresh = small(2)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    tensors = small(1).state_dict()
    del tensors["1.running_var"], tensors["0.bias"]
    tensors["3.weight"] = torch.zeros(4, 9)
    tensors["3.bias"] = torch.zeros(4, dtype=torch.int8)
    tensors["head.weight"] = torch.zeros(5, 6)
    torch.save(tensors, tmp_path / "w.pt")
    with pytest.raises(nce.InputError) as refusal:
        load_weights(fresh, tmp_path / "w.pt")
    message = str(refusal.value)
    assert message.splitlines()[0].endswith("w.pt do not fit the network Sequential:")
    assert [line.strip() for line in message.splitlines()[1:]] == [
        "0.bias: missing, shape 2 is needed",
        "1.running_var: missing, shape 2 is needed",
        "3.weight: shape 4 x 9, 4 x 18 is needed",
        "3.bias: type torch.int8, torch.float32 is needed",
        "head.weight: unexpected, shape 5 x 6",
    ]
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())


class Code:
    """An object whose pickle calls something when it is read."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "run"),)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path, how):
    content = {"state_dict": small(1).state_dict(), "hook": Code(tmp_path)}
    path = tmp_path / "w.pt"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Code(tmp_path), protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(nce.InputError, match="refused: besides tensors they name") as refusal:
        load_weights(small(2), path)
    assert not (tmp_path / "run").exists()
    assert "weights_only" not in str(refusal.value)


def test_a_whole_module_is_refused_with_what_to_save(tmp_path):
    torch.save(small(1), tmp_path / "w.pt")
    with pytest.raises(nce.InputError, match=r"Sequential.*save\(network\.state_dict"):
        load_weights(small(2), tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither safetensors nor a torch file"),
        (b"some text, no weights", "neither safetensors nor a torch file"),
        ([1, 2], "hold list, not tensors by name"),
        ({}, "not tensors by name"),
        ({"epoch": 3, "net": {"a": torch.zeros(1)}}, "other things than tensors: epoch, net"),
    ],
)
def test_files_without_tensors_are_refused(tmp_path, content, message):
    if isinstance(content, bytes):
        (tmp_path / "w.pt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "w.pt")
    with pytest.raises(nce.InputError, match=message):
        load_weights(small(2), tmp_path / "w.pt")


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_truncated_and_missing_files_are_refused(tmp_path, ending):
    path = tmp_path / f"w.{ending}"
    with pytest.raises(nce.InputError, match="cannot read the weights"):
        load_weights(small(2), path)
    (save_file if ending == "safetensors" else torch.save)(small(1).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(nce.InputError, match=f"w.{ending}"):
        load_weights(small(2), path)


def test_a_model_yaml_may_name_a_torch_file(tmp_path):
    (tmp_path / "net_for_weights.py").write_text(
        "from torch import nn\ndef make(): return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())\n"
    )
    (tmp_path / "model.yaml").write_text(
        "name: mine\ndescription: test\narchitecture: net_for_weights:make\n"
        "input_shape: [1, 5, 5]\nweights: w.pth\n"
    )
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    torch.save({"state_dict": module.state_dict()}, tmp_path / "w.pth")
    network = nce.load_model(tmp_path)
    (parameters,) = network.parameters.values()
    assert torch.equal(parameters.weight, module[0].weight)


MOBILENET_CHANNELS = (16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320)


def mobilenet_layers():
    """Yield timm's name, torchvision's name and channels of each convolution and its BatchNorm."""
    yield "conv_stem", "bn1", "features.0.0", "features.0.1", 32
    stages = [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6]
    for number, stage in enumerate(stages, 1):
        timm = f"blocks.{stage}.{number - 1 - stages.index(stage)}"
        vision = f"features.{number}.conv"
        hidden = 32 if number == 1 else 6 * MOBILENET_CHANNELS[number - 2]
        step = 0
        if number > 1:
            yield f"{timm}.conv_pw", f"{timm}.bn1", f"{vision}.0.0", f"{vision}.0.1", hidden
            step = 1
        depthwise = f"{timm}.conv_dw", f"{timm}.bn{1 + step}"
        yield *depthwise, f"{vision}.{step}.0", f"{vision}.{step}.1", hidden
        last = f"{timm}.conv_pw{'l' * step}", f"{timm}.bn{2 + step}"
        yield *last, f"{vision}.{1 + step}", f"{vision}.{2 + step}", MOBILENET_CHANNELS[number - 1]
    yield "conv_head", "bn2", "features.18.0", "features.18.1", 1280


def test_timms_mobilenet_gets_torchvisions_names():
    tensors, expected = {}, {}
    for timm, timm_norm, vision, vision_norm, channels in mobilenet_layers():
        weight, mean = torch.rand(channels), torch.rand(channels)
        tensors |= {f"{timm}.weight": weight, f"{timm_norm}.running_mean": mean}
        expected |= {f"{vision}.weight": weight, f"{vision_norm}.running_mean": mean}
    tensors["classifier.bias"] = expected["classifier.1.bias"] = torch.rand(1000)
    renamed = torchvision_names(tensors)
    assert len(renamed) == 2 * 52 + 1
    assert renamed.keys() == expected.keys()
    assert all(renamed[name] is expected[name] for name in expected)


def test_timms_vgg_gets_torchvisions_names_and_shapes():
    tensors = {
        "features.0.weight": torch.rand(2, 3, 3, 3),
        "pre_logits.fc1.weight": torch.rand(4, 2, 7, 7),
        "pre_logits.fc1.bias": torch.rand(4), "pre_logits.fc2.weight": torch.rand(4, 4, 1, 1),
        "head.fc.weight": torch.rand(10, 4),
    }  # fmt: skip
    renamed = torchvision_names(tensors)
    assert {name: tuple(value.shape) for name, value in renamed.items()} == {
        "features.0.weight": (2, 3, 3, 3), "classifier.0.weight": (4, 98),
        "classifier.0.bias": (4,), "classifier.3.weight": (4, 4), "classifier.6.weight": (10, 4),
    }  # fmt: skip


def test_other_names_stay():
    tensors = {"conv1.weight": torch.rand(1), "layer1.0.downsample.0.weight": torch.rand(1)}
    assert torchvision_names(tensors) == tensors
