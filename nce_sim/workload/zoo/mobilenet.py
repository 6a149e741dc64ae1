"""MobileNetV2 of Sandler et al. (arXiv:1801.04381, Table 2), width 1.

Parameters have torchvision's names, so that its checkpoints fit.
"""

from torch import Tensor, nn

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, output channels, blocks, and stride of the first block."""


def _layer(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    """Return a convolution with BatchNorm and ReLU6."""
    convolution = nn.Conv2d(
        inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter each channel by a 3x3 one, project by a linear 1x1 one.

    Where shapes agree the input is added to what the projection gives.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        expand = [_layer(inputs, hidden, 1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *expand,
            _layer(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return the projected maps, with the input added if it fits."""
        projected: Tensor = self.conv(maps)
        return maps + projected if self.adds else projected


class MobileNetV2(nn.Module):
    """A strided convolution, inverted residuals, a 1x1 convolution, a global average."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        parts, inputs = [_layer(3, 32, 3, stride=2)], 32
        for expansion, outputs, blocks, stride in STAGES:
            for number in range(blocks):
                first = stride if number == 0 else 1
                parts.append(InvertedResidual(inputs, outputs, first, expansion))
                inputs = outputs
        self.features = nn.Sequential(*parts, _layer(inputs, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out")

    def forward(self, images: Tensor) -> Tensor:
        """Return images x classes."""
        outputs: Tensor = self.classifier(self.features(images).mean((2, 3)))
        return outputs


def mobilenet_v2(classes: int = 1000) -> MobileNetV2:
    """Build MobileNetV2; a 3x224x224 input gives 300 million MACs."""
    return MobileNetV2(classes)
