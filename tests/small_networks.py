"""Small networks with weights from NumPy's Philox, so that they are the same everywhere."""

import numpy as np
import torch
from torch import Tensor, nn

from nce_sim.workload.execute import forward, prepare


def fill(module: nn.Module, seed: int) -> nn.Module:
    """Set every parameter: weights normal with He's deviation, biases normal and small."""
    random = np.random.Generator(np.random.Philox(seed))
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 100
            values = random.standard_normal(tuple(parameter.shape)) * (2 / fan_in) ** 0.5
            parameter.copy_(torch.from_numpy(values))
    return module.eval()


def all_convolutional(seed: int = 1) -> nn.Module:
    """A miniature All-CNN: 2x12x12 input, strided and 1x1 convolutions, global average pooling."""
    return fill(
        nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
            nn.Conv2d(8, 5, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        ),
        seed,
    )  # fmt: skip


def with_pooling(seed: int = 2) -> nn.Module:
    """A miniature VGG: 2x12x12 input, max and average pooling, fully connected layers."""
    return fill(
        nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(72, 12), nn.ReLU(), nn.Linear(12, 5), nn.ReLU(),
        ),
        seed,
    )  # fmt: skip


def images(count: int, seed: int = 3) -> Tensor:
    """Normal images, count x 2 x 12 x 12 float32."""
    random = np.random.Generator(np.random.Philox(seed))
    return torch.from_numpy(random.standard_normal((count, 2, 12, 12)).astype(np.float32))


def labels(count: int) -> Tensor:
    """The classes 0 to 4 in turn."""
    return torch.arange(count) % 5


def one_thread():
    """For a fixture: layers of these networks are too small to share out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def outputs_with(network, inputs, layer_name=None, neuron=0, displace=None):
    """The network's outputs, float64, where one neuron of every image is displaced."""
    executable = prepare(network, "float32")

    def hook(layer, _, output):
        if layer.name == layer_name:
            flat = output.flatten(1).clone()
            flat[:, neuron] = displace(flat[:, neuron])
            output = flat.reshape(output.shape)
        return output

    with torch.inference_mode():
        return forward(executable, executable.images(inputs), hook=hook).flatten(1).double()
