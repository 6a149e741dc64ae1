"""Residual networks of He, Zhang, Ren and Sun (arXiv:1512.03385, Table 1).

Parameters have torchvision's names, so that its checkpoints fit. The bottleneck has its stride in
the 3x3 convolution, as torchvision and most checkpoints do ("v1.5"); the paper has it in the 1x1
convolution before.
"""

from collections.abc import Callable

from torch import Tensor, nn


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class _Block(nn.Module):
    """A stack of convolutions, to whose sums the block's input is added before the last ReLU.

    Where shapes differ the input passes a 1x1 convolution first: a projection (option B).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                _convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
            )

    def stack(self, maps: Tensor) -> Tensor:
        """Return the sums of the last convolution, normalised."""
        raise NotImplementedError

    def forward(self, maps: Tensor) -> Tensor:
        """Return the rectified sum of the stack and the shortcut."""
        shortcut = maps if self.downsample is None else self.downsample(maps)
        rectified: Tensor = self.relu(self.stack(maps) + shortcut)
        return rectified


class BasicBlock(_Block):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__(inputs, width, stride)
        self.conv1 = _convolution(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)

    def stack(self, maps: Tensor) -> Tensor:
        """Return the normalised sums of the second convolution."""
        maps = self.relu(self.bn1(self.conv1(maps)))
        sums: Tensor = self.bn2(self.conv2(maps))
        return sums


class Bottleneck(_Block):
    """A 1x1 convolution to `width` channels, a 3x3 one, and a 1x1 one to four times as many."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__(inputs, 4 * width, stride)
        self.conv1 = _convolution(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _convolution(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)

    def stack(self, maps: Tensor) -> Tensor:
        """Return the normalised sums of the third convolution."""
        maps = self.relu(self.bn1(self.conv1(maps)))
        maps = self.relu(self.bn2(self.conv2(maps)))
        sums: Tensor = self.bn3(self.conv3(maps))
        return sums


class ResNet(nn.Module):
    """A stem, four stages of blocks, a global average.

    The stem is a strided 7x7 convolution and max pooling, or for `small_images` a 3x3 convolution
    alone, as is usual for CIFAR. `width` is the number of channels of the stem and the first stage.
    """

    def __init__(
        self, block: Callable[[int, int, int], nn.Module], expansion: int, depths: list[int],
        classes: int, in_channels: int = 3, width: int = 64, small_images: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv1 = (
            _convolution(in_channels, width, 3)
            if small_images
            else _convolution(in_channels, width, 7, stride=2)
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small_images else nn.MaxPool2d(3, stride=2, padding=1)
        inputs = width
        for stage, depth in enumerate(depths):
            channels, blocks = width * 2**stage, []
            for number in range(depth):
                blocks.append(block(inputs, channels, 2 if stage > 0 and number == 0 else 1))
                inputs = expansion * channels
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return images x classes."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in range(1, 5):
            maps = getattr(self, f"layer{stage}")(maps)
        outputs: Tensor = self.fc(self.avgpool(maps).flatten(1))
        return outputs


def resnet18(classes: int = 1000) -> ResNet:
    """Build ResNet-18; a 3x224x224 input gives 2,484,712 neurons and 1.81 billion MACs."""
    return ResNet(BasicBlock, BasicBlock.expansion, [2, 2, 2, 2], classes)


def resnet18_small(in_channels: int = 3, classes: int = 10, width: int = 64) -> ResNet:
    """Build ResNet-18 for images of about 32x32, the usual variant for CIFAR.

    Its first convolution is 3x3 with stride 1 and no pooling follows: a 3x32x32 input gives 0.56
    billion MACs with the original `width` of 64.
    """
    return ResNet(
        BasicBlock, BasicBlock.expansion, [2, 2, 2, 2], classes, in_channels, width,
        small_images=True,
    )  # fmt: skip


def resnet50(classes: int = 1000) -> ResNet:
    """Build ResNet-50 (v1.5); a 3x224x224 input gives 4.09 billion MACs."""
    return ResNet(Bottleneck, Bottleneck.expansion, [3, 4, 6, 3], classes)
