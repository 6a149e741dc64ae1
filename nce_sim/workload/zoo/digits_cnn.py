"""A convolutional network for 8x8 digits, so small that every neuron can be struck in turn."""

from torch import nn


def digits_cnn(classes: int = 10) -> nn.Sequential:
    """Build four convolutions, each with a ReLU, and a global average pooling.

    All-CNN-C's plan in small: a strided convolution takes the place of pooling and a 1x1
    convolution that of the fully connected layer. A 1x8x8 input gives 2,218 neurons for 10 classes.
    """

    def block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
        return [convolution, nn.ReLU()]

    return nn.Sequential(
        *block(1, 16),
        *block(16, 32, stride=2),
        *block(32, 32),
        nn.Dropout(0.2),
        *block(32, classes, kernel=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
