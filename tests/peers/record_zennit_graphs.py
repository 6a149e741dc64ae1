"""Record zennit's relevance of networks that branch into tests/data/zennit_graphs.npz.

    pip install --no-deps zennit && python tests/peers/record_zennit_graphs.py

BatchNorm is merged by zennit's canonizer, additions are made a layer (`zennit.layer.Sum`) that
shares by zennit's own rule for it, `Norm` ("signed"), or by the positive parts of its inputs.
Averages share by positive parts. All is in float64 with a tiny stabiliser.
"""

from pathlib import Path

import numpy as np
import torch
from record_zennit import LayerMapComposite, Norm, Pass, ZPlus, small_networks
from torch import Tensor, nn
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.core import BasicHook, Stabilizer
from zennit.layer import Sum

import graph_networks  # isort: skip

TINY = 1e-30
NETWORKS = {"residual": (1, 2, 3), "bottlenecks": (3, 4)}
COUNT = 3


class PositiveParts(BasicHook):
    """Share by the positive parts of what is added or averaged."""

    def __init__(self) -> None:
        stabilizer = Stabilizer.ensure(TINY)
        super().__init__(
            input_modifiers=[lambda terms: terms.clamp(min=0)],
            param_modifiers=[lambda parameter, name: parameter],
            output_modifiers=[lambda outputs: outputs],
            gradient_mapper=lambda relevance, outputs: relevance / stabilizer(outputs[0]),
            reducer=lambda terms, gradients: terms[0] * gradients[0],
        )


class Recorded(nn.Module):
    """A network whose additions and averages are layers, and whose neurons' values are kept."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.additions = nn.ModuleList(Sum(-1) for _ in network.blocks)
        self.relu = nn.ReLU()
        self.kept: list[Tensor] = []

    def keep(self, values: Tensor) -> Tensor:
        values.retain_grad()
        self.kept.append(values)
        return values


class RecordedResidual(Recorded):
    def forward(self, images: Tensor) -> Tensor:
        network, maps = self.network, images
        maps = network.pool(self.keep(self.relu(network.norm(network.stem(maps)))))
        for block, addition in zip(network.blocks, self.additions, strict=True):
            inner = self.keep(self.relu(block.bn1(block.conv1(maps))))
            if block.downsample is not None:
                maps = self.keep(block.downsample(maps))
            sums = block.bn2(block.conv2(inner))
            maps = self.keep(self.relu(addition(torch.stack([maps, sums], -1))))
        return self.keep(network.fc(self.mean(maps).flatten(1)))


class RecordedBottlenecks(Recorded):
    def forward(self, images: Tensor) -> Tensor:
        network, maps = self.network, images
        for part in network.stem:
            maps = part(maps)
        self.keep(maps)
        for block, addition in zip(network.blocks, self.additions, strict=True):
            inner = maps
            for part in block:
                inner = part(inner)
                if isinstance(part, nn.ReLU6):
                    self.keep(inner)
            maps = self.keep(addition(torch.stack([maps, inner], -1)))
        return self.keep(network.classifier(self.mean(maps).flatten(1)))


def relevance(module: Recorded, additions: BasicHook) -> list[np.ndarray]:
    """Return zennit's relevance of every neuron of each image, layer by layer."""
    composite = LayerMapComposite(
        [
            (nn.ReLU, Pass()),
            (nn.ReLU6, Pass()),
            (Sum, additions),
            (nn.AdaptiveAvgPool2d, PositiveParts()),
            (nn.Conv2d, ZPlus(stabilizer=TINY, zero_params="bias")),
            (nn.Linear, ZPlus(stabilizer=TINY, zero_params="bias")),
        ],
        canonizers=[SequentialMergeBatchNorm()],
    )
    images = small_networks.images(COUNT).double().requires_grad_()
    with composite.context(module) as modified:
        for part in modified.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eps = 0.0  # merged, but the identity that zennit leaves divides by 1 + eps
        output = modified(images)
        one_hot = nn.functional.one_hot(small_networks.labels(COUNT), output.shape[1])
        output.backward(one_hot.double())
    return [values.grad.numpy() for values in module.kept]


def main() -> None:
    recorded = {}
    for name, seeds in NETWORKS.items():
        wrap = {"residual": RecordedResidual, "bottlenecks": RecordedBottlenecks}[name]
        for seed in seeds:
            for additions, rule in (
                ("positive", PositiveParts()),
                ("signed", Norm(stabilizer=TINY)),
            ):
                network = getattr(graph_networks, name)(seed).double()
                for part in network.modules():
                    if isinstance(part, nn.ReLU | nn.ReLU6):
                        part.inplace = False
                for number, values in enumerate(relevance(wrap(network).eval(), rule)):
                    recorded[f"{name}/{seed}/{additions}/{number}"] = values.astype(np.float32)
    path = Path(__file__).parents[1] / "data" / "zennit_graphs.npz"
    np.savez_compressed(path, **recorded)
    print(len(recorded), "arrays in", path)


if __name__ == "__main__":
    main()
