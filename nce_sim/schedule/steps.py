"""The layers of a network as the machine takes them, one step after another.

A convolution that closes a residual block becomes two steps: the arrays store its sums, then the
vector units add the other branches and apply the non-linearity. The neuron, and whose it is,
belongs to the convolution; the addition is done in the same domain.
"""

from collections.abc import Mapping
from dataclasses import replace

from nce_sim.errors import InputError
from nce_sim.workload.layer import Kind, Layer


def machine_steps(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Return `layers` in order, each closing layer as its two parts.

    What reads a closing layer reads its addition. Raises InputError for layers that the machine
    has no unit for.
    """
    if not any(layer.closes_block for layer in layers):
        return layers
    now: dict[str, str] = {}
    found: list[Layer] = []
    for layer in layers:
        source, *others = (now.get(name, name) for name in layer.sources)
        placed = replace(layer, source=source, others=tuple(others))
        if layer.closes_block:
            found += placed.parts
            now[layer.name] = placed.parts[1].name
        else:
            found.append(placed)
    return tuple(found)


def closed_by(layers: tuple[Layer, ...]) -> Mapping[str, str]:
    """Return the layer whose neurons each addition finishes, by the addition's name."""
    parts = (layer.parts for layer in layers if layer.closes_block)
    return {addition.name: sums.name for sums, addition in parts}


def check_steps(layers: tuple[Layer, ...]) -> None:
    """Raise InputError for what the machine has no unit for."""
    for layer in layers:
        rank = len(layer.out_shape)
        if layer.kind is Kind.PAD:
            raise InputError(
                f"layer {layer.name} pads by {layer.margins} (top, bottom, left, right): the "
                f"machine knows padding that is even on both sides, of a convolution or a pooling"
            )
        if layer.kind is Kind.ACTIVATION:
            raise InputError(
                f"layer {layer.name} is a non-linearity of its own: the machine applies one to "
                f"what a convolution, a linear layer or an addition ends with"
            )
        if layer.kind is Kind.FLATTEN and rank != 1:
            raise InputError(
                f"layer {layer.name} gives {layer.in_shape} the shape {layer.out_shape}: the "
                f"machine knows flattening only"
            )
        if layer.kind is Kind.ADD and rank != 3:
            raise InputError(f"layer {layer.name} adds vectors: only maps can be added so far")
        if layer.kind is Kind.CONCAT and rank != 3:
            raise InputError(f"layer {layer.name} joins vectors: only maps can be joined so far")
