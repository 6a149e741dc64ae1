"""What of a network's steps (`nce_sim.workload.steps`) the machine has a unit for."""

from nce_sim.errors import InputError
from nce_sim.workload.layer import Kind, Layer


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
