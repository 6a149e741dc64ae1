"""All-CNN-C of Springenberg et al. (arXiv:1412.6806, Table 1), the paper's first network."""

from torch import nn


def all_cnn_c(in_channels: int = 3, classes: int = 10) -> nn.Sequential:
    """Build All-CNN-C: nine convolutions, each with a ReLU, then a global average pooling.

    A 32x32 input gives 357,002 neurons (Table I of Schorn et al.) whatever `in_channels` is.
    Dropout follows the input and both strided convolutions, as in the original's training.
    """

    def block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        return [convolution, nn.ReLU()]

    return nn.Sequential(
        nn.Dropout(0.2),
        *block(in_channels, 96),
        *block(96, 96),
        *block(96, 96, stride=2),
        nn.Dropout(0.5),
        *block(96, 192),
        *block(192, 192),
        *block(192, 192, stride=2),
        nn.Dropout(0.5),
        *block(192, 192),
        *block(192, 192, kernel=1),
        *block(192, classes, kernel=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
