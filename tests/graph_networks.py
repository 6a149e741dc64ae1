"""Small networks that branch, for tests of capture, relevance and the machine."""

import numpy as np
import torch
from small_networks import fill
from torch import Tensor, nn
from torch.nn import functional

import nce_sim as nce


def settle(module: nn.Module, seed: int) -> nn.Module:
    """Fill all parameters, and give every BatchNorm statistics of its own."""
    fill(module, seed)
    random = np.random.Generator(np.random.Philox(seed + 1))

    def draw(low: float, high: float, like: Tensor) -> Tensor:
        return torch.from_numpy(random.uniform(low, high, tuple(like.shape))).float()

    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.weight.copy_(draw(0.5, 1.5, part.weight))
                part.bias.copy_(draw(-0.3, 0.3, part.bias))
                part.running_mean.copy_(draw(-0.5, 0.5, part.running_mean))
                part.running_var.copy_(draw(0.5, 2.0, part.running_var))
    return module.eval()


def captured(module: nn.Module, channels: int = 2, size: int = 12) -> nce.Workload:
    return nce.Workload.from_module(module, torch.zeros(1, channels, size, size))


class Block(nn.Module):
    """Two convolutions with BatchNorm and a shortcut, which projects where shapes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel, 1, kernel // 2, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(inputs)))))
        out += inputs if self.downsample is None else self.downsample(inputs)
        return self.relu(out)


class Residual(nn.Module):
    """A stem, residual blocks, global average pooling and a linear layer: a ResNet in small."""

    def __init__(self, plan: tuple[tuple[int, int, int], ...], pooled: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, plan[0][0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(plan[0][0])
        self.pool = nn.MaxPool2d(3, 2, 1) if pooled else nn.Identity()
        self.blocks = nn.Sequential(*(Block(*each) for each in plan))
        self.fc = nn.Linear(plan[-1][1], 5)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.pool(functional.relu(self.norm(self.stem(inputs))))
        return self.fc(self.blocks(maps).mean((2, 3)))


def residual(seed: int = 1) -> nn.Module:
    return settle(Residual(((4, 4, 1), (4, 6, 2))), seed)


class AddAfter(nn.Module):
    """Additions of activated branches, which no convolution closes, and of three branches."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 4, 3, padding=1)
        self.three = nn.Conv2d(4, 4, 1)
        self.four = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4 * 36, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        first = torch.relu(self.one(inputs))
        added = torch.relu(self.two(first)) + first
        more = functional.relu(self.three(added) + added + self.four(added))
        return self.fc(torch.flatten(functional.avg_pool2d(more + more, 2), 1))


class Bottlenecks(nn.Module):
    """MobileNetV2 in small: depthwise convolutions, ReLU6, additions without non-linearity."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU6(True))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.ReLU6(True),
                nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8), nn.ReLU6(True),
                nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4),
            )
            for _ in range(2)
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(4, 5))

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.stem(inputs)
        for block in self.blocks:
            maps = maps + block(maps)
        return self.classifier(functional.adaptive_avg_pool2d(maps, 1).flatten(1))


class Joined(nn.Module):
    """Branches of different kernels that are concatenated, as GoogLeNet's and DenseNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.narrow = nn.Conv2d(4, 3, 1)
        self.wide = nn.Conv2d(4, 5, 5, padding=2)
        self.dense = nn.Conv2d(12, 4, 3, padding=1)
        self.fc = nn.Linear(16, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = torch.relu(self.stem(inputs))
        branches = [functional.relu(self.narrow(maps)), functional.relu(self.wide(maps))]
        joined = torch.cat([*branches, functional.max_pool2d(maps, 3, 1, 1)], 1)
        dense = torch.cat((torch.relu(self.dense(joined)), joined), dim=1)
        return self.fc(functional.adaptive_avg_pool2d(dense, 1).squeeze(-1).squeeze(-1))


def add_after(seed: int = 2) -> nn.Module:
    return settle(AddAfter(), seed)


def bottlenecks(seed: int = 3) -> nn.Module:
    return settle(Bottlenecks(), seed)


def joined(seed: int = 4) -> nn.Module:
    return settle(Joined(), seed)


BUILDERS = (residual, add_after, bottlenecks, joined)
