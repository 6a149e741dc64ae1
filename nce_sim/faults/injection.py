"""Inject the paper's faults into the outputs of the neurons of a block of images."""

import numpy as np
import torch
from torch import Tensor

from nce_sim.errors import InputError
from nce_sim.faults.block_draws import BlockDraws
from nce_sim.faults.models import Dropout, FaultModel, GaussianNoise, check_layers
from nce_sim.resilience.split import Split
from nce_sim.workload.execute import Executable, OutputHook
from nce_sim.workload.graph import Workload
from nce_sim.workload.layer import Layer
from nce_sim.workload.layout import by_position, restore_shape, rows_by_position

WIDENED = 2048
"""Neurons whose masks NumPy widens at once: few enough to stay in the fastest cache."""


class Injector:
    """One variant, a fault model on the unprotected neurons of a split, ready to be applied."""

    def __init__(self, executable: Executable, split: Split, fault: FaultModel) -> None:
        check_split(executable.network, split)
        self.fault = fault
        self.stored = executable.stored
        self.offsets = executable.network.offsets
        self.unprotected = {
            layer.name: by_position(split.unprotected[layer.name]).to(executable.device)
            for layer in executable.network.neuron_layers
        }
        self._struck = {name for name, mask in self.unprotected.items() if mask.any()}
        if isinstance(fault, GaussianNoise):
            layers = [layer.name for layer in executable.network.neuron_layers]
            check_layers(fault.mean_activation, layers, "GaussianNoise: mean_activation")
            unit = {name: executable.step(name) for name in self.unprotected}
            self.deviation = {
                name: (mask * (fault.sigma * fault.mean_activation[name] / unit[name])).to(
                    executable.dtype
                )
                for name, mask in self.unprotected.items()
            }
        else:
            self.protected_bits: dict[str, Tensor | None] = {
                name: None if mask.all() else mask.to(torch.int8).sub_(1)
                for name, mask in self.unprotected.items()
            }

    def strikes(self, layer: Layer) -> bool:
        """Tell whether a layer has unprotected neurons: all others stay as they are."""
        return layer.name in self._struck

    def hook(self, draws: BlockDraws) -> OutputHook:
        """Return the function that injects one block's faults into layers' outputs, in place."""
        return lambda layer, _, output: self.strike(draws, layer, output, output)

    def strike(self, draws: BlockDraws, layer: Layer, output: Tensor, into: Tensor) -> Tensor:
        """Return a layer's output with one block's faults.

        If any may strike they are written to `into`: like `output`, or itself.
        """
        if not self.strikes(layer):
            return output
        start = self.offsets[layer.name]
        own = slice(start, start + layer.neurons)
        neurons, struck = rows_by_position(output), rows_by_position(into)
        match self.fault:
            case Dropout(probability):
                survivors = draws.survivors(probability)[:, own]
                drop(neurons, survivors, self.protected_bits[layer.name], struck)
            case GaussianNoise():
                normals = draws.normals[:, own]
                torch.addcmul(neurons, normals, self.deviation[layer.name], out=struck)
                struck = self.stored(layer, struck)
        return restore_shape(struck, output)


def drop(neurons: Tensor, survivors: Tensor, protected: Tensor | None, into: Tensor) -> None:
    """Zero the neurons that neither survive nor are protected: masks of eight bits, 0 or -1."""
    width = bits_of(neurons.dtype)
    bits, into = neurons.view(width), into.view(width)
    kept = survivors if protected is None else survivors | protected
    if bits.device.type != "cpu":
        torch.bitwise_and(bits, kept.to(width), out=into)
        return
    usual = np.setbufsize(WIDENED)
    try:
        np.bitwise_and(bits.numpy(), kept.numpy(), out=into.numpy())
    finally:
        np.setbufsize(usual)


def bits_of(dtype: torch.dtype) -> torch.dtype:
    """Return the integer type of a type's width.

    Zeroing by bit masks is exact, and several times faster than by boolean ones.
    """
    return {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]


def check_split(network: Workload, split: Split) -> None:
    """Raise InputError unless the split has the network's layers and shapes."""
    expected = {layer.name: layer.out_shape for layer in network.neuron_layers}
    given = {name: mask.shape for name, mask in split.unprotected.items()}
    if expected != given:
        raise InputError(f"the split was made for another network than '{network.name}'")
