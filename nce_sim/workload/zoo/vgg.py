"""VGG-16 of Simonyan and Zisserman (arXiv:1409.1556, configuration D), the paper's second."""

from torch import nn

CHANNELS_BY_STAGE = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16(classes: int = 1000) -> nn.Sequential:
    """Build VGG-16; a 3x224x224 input gives 13,556,712 neurons (Table I of Schorn et al.)."""
    parts: list[nn.Module] = []
    inputs = 3
    for stage in CHANNELS_BY_STAGE:
        for outputs in stage:
            parts += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
            inputs = outputs
        parts.append(nn.MaxPool2d(2))
    parts.append(nn.Flatten())
    for features, outputs in ((512 * 7 * 7, 4096), (4096, 4096)):
        parts += [nn.Linear(features, outputs), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*parts, nn.Linear(4096, classes))
