"""How maps lie in memory: channels-last, so that a neuron's order is row, column, channel."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.workload.layer import Shape


def fast_layout(tensor: Tensor) -> Tensor:
    """Return maps channels-last, in which convolutions run fastest; anything else as it is.

    Maps of one channel lie alike in both orders; torch goes by their strides, so these say which.
    """
    if tensor.dim() != 4:
        return tensor
    _, channels, height, width = tensor.shape
    strides = (height * width * channels, 1, width * channels, channels)
    return tensor.contiguous(memory_format=torch.channels_last).as_strided(tensor.shape, strides)


def rows_by_position(output: Tensor) -> Tensor:
    """Return images x neurons in the order row, column, channel; no copy if channels-last."""
    ordered = output.permute(0, 2, 3, 1) if output.dim() == 4 else output
    return ordered.reshape(len(output), -1)


def restore_shape(neurons: Tensor, like: Tensor) -> Tensor:
    """Undo `rows_by_position`."""
    if like.dim() < 4:
        return neurons
    count, channels, height, width = like.shape
    return neurons.reshape(count, height, width, channels).permute(0, 3, 1, 2)


def by_position(mask: NDArray[np.bool_]) -> Tensor:
    """Flatten C x H x W (or features) in the order row, column, channel."""
    ordered = np.moveaxis(mask, 0, -1) if mask.ndim == 3 else mask
    return torch.from_numpy(np.ascontiguousarray(ordered).reshape(-1))


def from_position(values: NDArray[np.float64], shape: Shape) -> NDArray[np.float64]:
    """Undo `by_position` for an array of numbers: return C x H x W, or features."""
    if len(shape) < 3:
        return values.reshape(shape)
    channels, height, width = shape
    return np.ascontiguousarray(np.moveaxis(values.reshape(height, width, channels), -1, 0))
