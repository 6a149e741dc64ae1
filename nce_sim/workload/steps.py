"""The layers of a network as the machine takes them, one step after another.

A convolution that closes a residual block becomes two steps: the arrays store its sums, then the
vector units add the other branches and apply the non-linearity. The neuron, and whose it is,
belongs to the convolution; the addition is done in the same domain.
"""

from collections.abc import Mapping
from dataclasses import replace

from nce_sim.workload.layer import Layer


def machine_steps(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Return `layers` in order, each closing layer as its two parts.

    What reads a closing layer reads its addition.
    """
    if not any(layer.closes_block for layer in layers):
        return layers
    now = finished_by(layers)
    found: list[Layer] = []
    for layer in layers:
        source, *others = (now.get(name, name) for name in layer.sources)
        placed = replace(layer, source=source, others=tuple(others))
        found += placed.parts if layer.closes_block else [placed]
    return tuple(found)


def finished_by(layers: tuple[Layer, ...]) -> Mapping[str, str]:
    """Return the addition that finishes the neurons of each closing layer, by names."""
    return {layer.name: layer.parts[1].name for layer in layers if layer.closes_block}


def closed_by(layers: tuple[Layer, ...]) -> Mapping[str, str]:
    """Return the layer whose neurons each addition finishes, by the addition's name."""
    return {addition: layer for layer, addition in finished_by(layers).items()}
