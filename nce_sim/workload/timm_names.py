"""Names of timm's checkpoints, as torchvision has them for the same networks.

ResNets have the same names in both. MobileNetV2 (timm's mobilenetv2_100) and VGG differ.
"""

import re
from collections.abc import Mapping

from torch import Tensor

BLOCKS_BY_STAGE = (1, 2, 3, 4, 3, 3, 1)
"""Blocks of each stage of MobileNetV2 (its paper's table 2)."""

STEM = {"conv_stem": "features.0.0", "bn1": "features.0.1"}
HEAD = {"conv_head": "features.18.0", "bn2": "features.18.1", "classifier": "classifier.1"}
"""Before the first block, and behind the last, which is the 17th."""

FIRST_BLOCK = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
BLOCK = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2",
         "bn3": "3"}  # fmt: skip
"""Layers of a block: the first has no expansion before its depthwise convolution."""

VGG = {
    "pre_logits.fc1": "classifier.0",
    "pre_logits.fc2": "classifier.3",
    "head.fc": "classifier.6",
}
"""VGG's fully connected layers; timm stores the first two as convolutions over the whole map."""


def torchvision_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under torchvision's names; what is not timm's own stays as it is."""
    if "conv_stem.weight" in tensors:
        return _renamed(tensors, _mobilenet_v2())
    if "pre_logits.fc1.weight" in tensors:
        return {
            name: tensor.flatten(1) if re.fullmatch(r"classifier\..*weight", name) else tensor
            for name, tensor in _renamed(tensors, VGG).items()
        }
    return dict(tensors)


def _mobilenet_v2() -> dict[str, str]:
    """Return torchvision's name of each layer by timm's."""
    names = STEM | HEAD
    number = 0
    for stage, blocks in enumerate(BLOCKS_BY_STAGE):
        for block in range(blocks):
            number += 1
            for timm, place in (FIRST_BLOCK if number == 1 else BLOCK).items():
                names[f"blocks.{stage}.{block}.{timm}"] = f"features.{number}.conv.{place}"
    return names


def _renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Rename layers; the last part of a tensor's name, such as weight, stays."""
    renamed = {}
    for name, tensor in tensors.items():
        layer, _, last = name.rpartition(".")
        renamed[f"{names.get(layer, layer)}.{last}"] = tensor
    return renamed
