"""AlexNet of Krizhevsky, Sutskever and Hinton (NIPS 2012), with its two towers."""

from torch import nn


def alexnet(classes: int = 1000) -> nn.Sequential:
    """Build AlexNet for a 3x227x227 input: five convolutions, three fully connected layers.

    The two towers of the original are groups: conv2, conv4 and conv5 see only the maps of their own
    half. Pooling overlaps (windows of 3, steps of 2). The original also normalises the outputs of
    conv1 and conv2 across neighbouring channels; this is left out, since the machine has no unit
    for it: it has no neurons and no weights, and no shape depends on it.
    """

    def block(
        inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)
        return [convolution, nn.ReLU()]

    return nn.Sequential(
        *block(3, 96, 11, stride=4),
        nn.MaxPool2d(3, 2),
        *block(96, 256, 5, padding=2, groups=2),
        nn.MaxPool2d(3, 2),
        *block(256, 384, 3, padding=1),
        *block(384, 384, 3, padding=1, groups=2),
        *block(384, 256, 3, padding=1, groups=2),
        nn.MaxPool2d(3, 2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(256 * 6 * 6, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, classes),
    )
