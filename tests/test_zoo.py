"""The zoo: neurons by hand, MACs near the papers', torchvision's and timm's names."""

from functools import cache
from pathlib import Path

import pytest
import torch
from graph_networks import settle

import nce_sim as nce
from nce_sim.workload.execute import forward, prepare
from nce_sim.workload.models import load_description
from nce_sim.workload.timm_names import torchvision_names
from nce_sim.workload.weights import mistakes
from nce_sim.workload.zoo.allcnn import all_cnn_c
from nce_sim.workload.zoo.mobilenet import mobilenet_v2
from nce_sim.workload.zoo.resnet import resnet18, resnet50
from nce_sim.workload.zoo.vgg import vgg16


@cache
def on_meta(build) -> tuple[torch.nn.Module, nce.Workload]:
    with torch.device("meta"):
        module = build()
    side = 32 if build is all_cnn_c else 224
    return module, nce.Workload.from_module(module, torch.zeros(1, 3, side, side, device="meta"))


def resnet18_neurons() -> int:
    """Stem, and in each stage four convolutions of the width; a projection in all but the first."""
    total = 64 * 112**2
    for width, size in ((64, 56), (128, 28), (256, 14), (512, 7)):
        total += (4 + (width > 64)) * width * size**2
    return total + 1000


def resnet50_neurons() -> int:
    """A bottleneck has w + w + 4w channels; its first 1x1 convolution comes before the stride."""
    total = 64 * 112**2
    for blocks, width, size in ((3, 64, 56), (4, 128, 28), (6, 256, 14), (3, 512, 7)):
        before = size if width == 64 else 2 * size
        total += width * before**2 + (blocks - 1) * width * size**2
        total += blocks * (width + 4 * width) * size**2
        total += 4 * width * size**2  # the projection
    return total + 1000


def mobilenet_neurons() -> int:
    """Expansion before the stride, depthwise and projection after it; the linear ends count too."""
    total, inputs, size = 32 * 112**2, 32, 112
    for expansion, outputs, blocks, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
        (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for number in range(blocks):
            hidden = inputs * expansion
            if expansion > 1:
                total += hidden * size**2
            size //= stride if number == 0 else 1
            total += (hidden + outputs) * size**2
            inputs = outputs
    return total + 1280 * 7**2 + 1000


def allcnn_macs() -> int:
    """All-CNN-C by the table of its paper: (inputs, outputs, kernel, side of the output map)."""
    table = (
        (3, 96, 3, 32), (96, 96, 3, 32), (96, 96, 3, 16), (96, 192, 3, 16), (192, 192, 3, 16),
        (192, 192, 3, 8), (192, 192, 3, 8), (192, 192, 1, 8), (192, 10, 1, 8),
    )  # fmt: skip
    return sum(i * o * k**2 * side**2 for i, o, k, side in table)


CASES = (
    # Neurons of the first two: Table I of Schorn et al. Their papers give no MACs. All-CNN-C's
    # are by hand, with 1.4 million parameters as its paper says; VGG-16's are the 15.3e9 of its
    # convolutions and 0.12e9 of its fully connected layers (Sze et al., Proc. IEEE 2017, Table 2).
    (all_cnn_c, 357_002, allcnn_macs(), 1_369_738),
    (vgg16, 13_556_712, 15.5e9, 138_357_544),
    # MACs: He et al., Table 1, have 1.8e9 and 3.8e9 (strides in the 1x1 convolutions: v1);
    # v1.5, here, has 4.1e9. Sandler et al., Table 4, have 300e6. Parameters: torchvision's.
    (resnet18, resnet18_neurons(), 1.8e9, 11_689_512),
    (resnet50, resnet50_neurons(), 4.1e9, 25_557_032),
    (mobilenet_v2, mobilenet_neurons(), 300e6, 3_504_872),
)


@pytest.mark.parametrize(("build", "neurons", "macs", "size"), CASES)
def test_counts(build, neurons, macs, size):
    module, network = on_meta(build)
    assert network.neurons == neurons
    assert network.macs == pytest.approx(macs, rel=0.02)
    assert sum(parameter.numel() for parameter in module.parameters()) == size


def test_counts_of_the_docstrings():
    assert resnet18_neurons() == 2_484_712
    assert sum(layer.closes_block for layer in on_meta(resnet18)[1].layers) == 8
    assert sum(layer.closes_block for layer in on_meta(resnet50)[1].layers) == 16
    assert sum(layer.closes_block for layer in on_meta(mobilenet_v2)[1].layers) == 10


@pytest.mark.parametrize(
    ("build", "names", "count"),
    [
        (
            resnet18,
            {
                "conv1.weight": (64, 3, 7, 7), "bn1.running_var": (64,),
                "layer2.0.downsample.0.weight": (128, 64, 1, 1),
                "layer2.0.downsample.1.num_batches_tracked": (),
                "layer4.1.conv2.weight": (512, 512, 3, 3), "layer4.1.bn2.bias": (512,),
                "fc.bias": (1000,),
            },
            122,
        ),
        (
            resnet50,
            {
                "layer1.0.conv3.weight": (256, 64, 1, 1), "layer3.5.bn3.weight": (1024,),
                "layer1.0.downsample.0.weight": (256, 64, 1, 1), "fc.weight": (1000, 2048),
            },
            320,
        ),
        (
            vgg16,
            {
                "features.0.weight": (64, 3, 3, 3), "features.28.bias": (512,),
                "features.10.weight": (256, 128, 3, 3), "classifier.0.weight": (4096, 25088),
                "classifier.3.weight": (4096, 4096), "classifier.6.bias": (1000,),
            },
            32,
        ),
        (
            mobilenet_v2,
            {
                "features.0.0.weight": (32, 3, 3, 3), "features.1.conv.0.0.weight": (32, 1, 3, 3),
                "features.1.conv.1.weight": (16, 32, 1, 1), "features.1.conv.2.bias": (16,),
                "features.2.conv.0.0.weight": (96, 16, 1, 1),
                "features.2.conv.1.1.running_mean": (96,),
                "features.17.conv.2.weight": (320, 960, 1, 1), "features.17.conv.3.weight": (320,),
                "features.18.0.weight": (1280, 320, 1, 1), "classifier.1.weight": (1000, 1280),
            },
            314,
        ),
    ],
)  # fmt: skip
def test_parameters_have_torchvisions_names(build, names, count):
    state = on_meta(build)[0].state_dict()
    assert len(state) == count
    assert {name: tuple(state[name].shape) for name in names} == names


@pytest.mark.parametrize("build", [resnet18, mobilenet_v2])
def test_a_network_computes_what_its_module_does(build):
    module = settle(build(classes=10), seed=1)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    executable = prepare(nce.Workload.from_module(module, images[:1]), "float32")
    with torch.inference_mode():
        expected = module(images)
        found = forward(executable, executable.images(images))
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_bundled_networks_are_these():
    for name, build in (
        ("allcnn-cifar10", all_cnn_c), ("vgg16", vgg16), ("resnet50", resnet50),
        ("mobilenetv2", mobilenet_v2),
    ):  # fmt: skip
        description, _ = load_description(name)
        assert description.architecture.endswith(f":{build.__name__}")
    assert load_description("allcnn-cifar10")[0].data.name == "cifar-10"
    network = nce.load_model("resnet18")
    assert (network.name, network.neurons) == ("resnet18", resnet18_neurons())


def saved(folder, state) -> Path:
    """Write a description of a MobileNetV2 whose weights are what `torch.save` makes of it."""
    torch.save(state, folder / "weights.pth")
    (folder / "model.yaml").write_text(
        "name: mine\ndescription: test\n"
        "architecture: nce_sim.workload.zoo.mobilenet:mobilenet_v2\n"
        "arguments: {classes: 10}\ninput_shape: [3, 32, 32]\nweights: weights.pth\n"
    )
    return folder


def test_a_checkpoint_of_torch_is_loaded(tmp_path):
    module = settle(mobilenet_v2(classes=10), seed=1)
    network = nce.load_model(saved(tmp_path, module.state_dict()))
    same = nce.Workload.from_module(module, torch.zeros(1, 3, 32, 32))
    assert network.identity == same.identity


def timm_state(build) -> dict[str, torch.Tensor]:
    """Return a checkpoint of random numbers, without memory, in timm's names and shapes.

    Of MobileNetV2 by its structure; VGG-16's first fully connected layers are convolutions; those
    of ResNets are torchvision's.
    """
    state = dict(on_meta(build)[0].state_dict())
    if build is vgg16:
        for vision, timm, kernel in (("0", "fc1", 7), ("3", "fc2", 1)):
            weight = state.pop(f"classifier.{vision}.weight")
            state[f"pre_logits.{timm}.weight"] = weight.unflatten(1, (-1, kernel, kernel))
            state[f"pre_logits.{timm}.bias"] = state.pop(f"classifier.{vision}.bias")
        for last in ("weight", "bias"):
            state[f"head.fc.{last}"] = state.pop(f"classifier.6.{last}")
    if build is mobilenet_v2:
        names = {vision: timm for timm, vision in mobilenet_names()}
        split = {name: name.rpartition(".") for name in state}
        state = {f"{names[layer]}.{last}": state[name] for name, (layer, _, last) in split.items()}
    return state


def mobilenet_names():
    """Yield timm's and torchvision's name of every layer of MobileNetV2."""
    yield from (("conv_stem", "features.0.0"), ("bn1", "features.0.1"))
    yield from (("conv_head", "features.18.0"), ("bn2", "features.18.1"))
    yield "classifier", "classifier.1"
    first = (("conv_dw", "0.0"), ("bn1", "0.1"), ("conv_pw", "1"), ("bn2", "2"))
    other = (
        ("conv_pw", "0.0"), ("bn1", "0.1"), ("conv_dw", "1.0"), ("bn2", "1.1"), ("conv_pwl", "2"),
        ("bn3", "3"),
    )  # fmt: skip
    number = 0
    for stage, blocks in enumerate((1, 2, 3, 4, 3, 3, 1)):
        for block in range(blocks):
            number += 1
            for timm, place in first if number == 1 else other:
                yield f"blocks.{stage}.{block}.{timm}", f"features.{number}.conv.{place}"


@pytest.mark.parametrize("build", [vgg16, resnet18, resnet50, mobilenet_v2])
def test_checkpoints_of_timm_fit_shape_by_shape(build):
    needed = on_meta(build)[0].state_dict()
    given = torchvision_names(timm_state(build))
    assert {name: value.shape for name, value in given.items()} == {
        name: value.shape for name, value in needed.items()
    }
    assert mistakes(given, needed) == []
    last = list(needed)[-1]
    given[last] = given[last][:3]
    missing = given.pop(next(iter(needed)))
    wrong = mistakes(given | {"strange": missing}, needed)
    assert len(wrong) == 3
    assert wrong[0].endswith(f"missing, shape {' x '.join(map(str, missing.shape))} is needed")
    assert wrong[1].startswith(f"{last}: shape 3")
    assert wrong[2].startswith("strange: unexpected")
