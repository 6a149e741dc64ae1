"""Layers as dense matrices, for slow twins of relevance propagation."""

import numpy as np
import torch
from small_networks import fill
from torch import nn

import nce_sim as nce
from nce_sim.workload.execute import linear_part, run_layer
from nce_sim.workload.layer import Kind, Layer

INPUT_SHAPE = (1, 2, 12, 12)


def capture(module: nn.Module) -> nce.Workload:
    return nce.Workload.from_module(module, torch.zeros(INPUT_SHAPE))


def dense_matrix(network: nce.Workload, layer: Layer) -> np.ndarray:
    """Return the linear map of a layer as inputs x outputs, by applying it to unit vectors."""
    size = int(np.prod(layer.in_shape))
    basis = torch.eye(size, dtype=torch.float64).reshape(size, *layer.in_shape)
    if layer.kind is Kind.FLATTEN:
        return np.eye(size)
    if layer.kind is Kind.AVERAGE_POOL:
        return run_layer(layer, None, basis).reshape(size, -1).numpy()
    weight = network.parameters[layer.name].weight.double()
    return linear_part(layer, weight, None, basis).reshape(size, -1).numpy()


def slow_max_pool(layer: Layer, inputs: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    maps = inputs.reshape(layer.in_shape)
    found = np.zeros(layer.in_shape)
    for place, share in zip(np.ndindex(layer.out_shape), relevance, strict=True):
        channel, row, column = place
        top, left = row * layer.stride[0], column * layer.stride[1]
        window = maps[channel, top : top + layer.kernel[0], left : left + layer.kernel[1]]
        winner = np.unravel_index(np.argmax(window), window.shape)
        found[channel, top + winner[0], left + winner[1]] += share
    return found.ravel()


def signed_network() -> nn.Module:
    """A network whose second layer reads values of both signs."""
    return fill(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(144, 5), nn.ReLU(),
        ),
        seed=4,
    )  # fmt: skip
