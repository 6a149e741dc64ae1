"""The paper's networks with images, as nce-sim and as plain modules take them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import nce_sim as nce
from benchmarks.timing import Job
from nce_sim.workload.graph import Workload
from nce_sim.workload.layout import fast_layout
from nce_sim.workload.models import load_module


@dataclass(frozen=True)
class Case:
    """A bundled network with images and labels, of which modules take `batch` at a time."""

    title: str
    model: str
    network: Workload
    images: Tensor
    labels: Tensor
    batch: int

    def module(self) -> nn.Module:
        """Return a new module of the network, in channels_last."""
        return load_module(self.model).to(memory_format=torch.channels_last)

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Return all images, in channels_last, with their labels."""
        pairs = zip(self.images.split(self.batch), self.labels.split(self.batch), strict=True)
        return [(fast_layout(images), labels) for images, labels in pairs]

    def first(self, count: int) -> "Case":
        """Return the case with few images."""
        images, labels = self.images[:count], self.labels[:count]
        return Case(self.title, self.model, self.network, images, labels, self.batch)

    def plain(self, channels_last: bool = True) -> Job:
        """Return a pass of the module itself over all images, in float32."""
        module = self.module() if channels_last else load_module(self.model)
        batches = [images for images, _ in self.batches()]
        if not channels_last:
            batches = [images.contiguous() for images in self.images.split(self.batch)]

        def run() -> None:
            with torch.inference_mode():
                for images in batches:
                    module(images)

        return run


def trained(count: int, batch: int = 64) -> Case:
    """Return All-CNN-C, trained, with test images of Fashion-MNIST."""
    data = nce.load_data("fashion-mnist", "test").first(count)
    network = nce.load_model("allcnn-fashion")
    return Case("All-CNN-C", "allcnn-fashion", network, data.images[:], data.labels, batch)


def random_vgg16(count: int, batch: int = 8) -> Case:
    """Return VGG-16 with random weights, images and labels."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, 224, 224, generator=draws)
    labels = torch.randint(1000, (count,), generator=draws)
    return Case("VGG-16", "vgg16", nce.load_model("vgg16"), images, labels, batch)
