"""VGG-16 of Simonyan and Zisserman (arXiv:1409.1556, configuration D), the paper's second.

Parameters have torchvision's names, so that its checkpoints fit.
"""

from torch import Tensor, nn

CHANNELS_BY_STAGE = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each with a max pooling, and three fully connected layers.

    torchvision pools adaptively to 7x7 in between, which does nothing to a 224x224 input.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        inputs = 3
        for stage in CHANNELS_BY_STAGE:
            for outputs in stage:
                parts += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = outputs
            parts.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5),
            nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5),
            nn.Linear(4096, classes),
        )  # fmt: skip
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                nn.init.zeros_(part.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Return images x classes."""
        outputs: Tensor = self.classifier(self.features(images).flatten(1))
        return outputs


def vgg16(classes: int = 1000) -> VGG:
    """Build VGG-16; a 3x224x224 input gives 13,556,712 neurons (Table I of Schorn et al.)."""
    return VGG(classes)
