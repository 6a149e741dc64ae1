"""The vector units: pooling and additions, after the barrier of the layer that they read."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from nce_sim.config.machine_schema import DomainConfig
from nce_sim.errors import InputError
from nce_sim.schedule.domains import FOREIGN
from nce_sim.schedule.footprint import Footprint, dilate
from nce_sim.schedule.layout import StoredMap
from nce_sim.schedule.tiles import CROSSINGS, INPUTS, OUTPUTS, Stream, Tile
from nce_sim.workload.activations import Curve
from nce_sim.workload.layer import Kind, Layer

Mask = NDArray[np.bool_]


CURVE_ELEMENTS = {Curve.LEAKY_RELU: 1, Curve.SILU: 2, Curve.GELU: 2, Curve.GELU_TANH: 2}
"""Elements that a vector unit combines for a non-linearity: a product with a slope, and a sum for
a curve that a table cuts into straight pieces. Comparing with zero or six is part of the output."""


def curve_elements(layer: Layer) -> int:
    """Return the elements that a layer's non-linearity takes for each output."""
    return 0 if layer.activation is None else CURVE_ELEMENTS.get(layer.activation.curve, 0)


def operands(layer: Layer) -> int:
    """Return the values that one output of a pooling or an addition is made of."""
    return len(layer.sources) if layer.kind is Kind.ADD else layer.window


def carried_mask(layer: Layer, unprotected: Sequence[Mask]) -> Mask:
    """Mark the pooled or added values all of whose parts are unprotected."""
    if layer.kind is Kind.ADD:
        return np.asarray(np.logical_and.reduce(list(unprotected)))
    padded = np.pad(
        unprotected[0],
        ((0, 0), *((padding, padding) for padding in layer.padding)),
        constant_values=True,
    )
    rows, columns = layer.out_shape[1:] if len(layer.out_shape) == 3 else (1, 1)
    (down, right), (tall, wide) = layer.stride, layer.kernel
    found = np.ones((len(padded), rows, columns), bool)
    for row in range(tall):
        for column in range(wide):
            found &= padded[
                :,
                row : row + (rows - 1) * down + 1 : down,
                column : column + (columns - 1) * right + 1 : right,
            ]
    return found.reshape(layer.out_shape)


def vector_tiles(
    layer: Layer,
    domain: str,
    mask: Mask,
    footprints: Sequence[Footprint],
    outputs: StoredMap,
    config: DomainConfig,
    element_bytes: int,
    batch: int,
) -> Iterator[Tile]:
    """Cut a pooling or an addition into bands of rows of as many channels as fit the buffers.

    Raises InputError if one row of one channel does not fit.
    """
    rows, columns = layer.out_shape[1:] if len(layer.out_shape) == 3 else (1, 1)
    shaped = mask.reshape(layer.channels, rows, columns)
    band, together = _band(layer, domain, rows, columns, config, element_bytes)
    bands = [
        _Band(layer, domain, shaped[:, top : top + band], top, footprints, outputs, together)
        for top in range(0, rows, band)
    ]
    for image in range(batch):
        for place, first in enumerate(range(0, layer.channels, together)):
            for each in bands:
                neurons = each.neurons[place]
                if neurons == 0:
                    continue
                yield Tile(
                    image=image,
                    windows=(each.top, each.top + each.rows),
                    groups=(first, min(first + together, layer.channels)),
                    chunk=None,
                    reduction=(0, operands(layer)),
                    cycles=-(-neurons * operands(layer) // config.vector_lanes),
                    neurons=neurons,
                    loads=each.loads(place, element_bytes),
                    stores=each.stores(place, element_bytes),
                )


class _Band:
    """Some rows of the output of a vector unit, by sets of channels that make a tile together."""

    def __init__(
        self, layer: Layer, domain: str, part: Mask, top: int, footprints: Sequence[Footprint],
        outputs: StoredMap, together: int,
    ) -> None:  # fmt: skip
        self.domain, self.top, self.rows = domain, top, part.shape[1]
        self.sources = [footprint.source for footprint in footprints]
        self.outputs = outputs
        channels = np.arange(layer.channels)
        self.neurons = [
            int(np.count_nonzero(part[first : first + together]))
            for first in range(0, layer.channels, together)
        ]
        needed, in_top = dilate(layer, part, top)
        self.read = [
            source.read_by_sets(in_top, needed, channels, together) for source in self.sources
        ]
        self.written = (
            outputs.read_by_sets(top, part, channels, together)
            if len(layer.out_shape) == 3
            else [
                outputs.read_flat(first, min(first + together, layer.channels))
                for first in range(0, layer.channels, together)
            ]
        )

    def loads(self, place: int, element_bytes: int) -> tuple[Stream, ...]:
        """Return the streams of the inputs of one set of channels."""
        return tuple(
            Stream(
                what, holder, source.is_external(holder), asked.elements * element_bytes,
                asked.moved_bytes, asked.rows_opened,
            )
            for source, demands in zip(self.sources, self.read, strict=True)
            for what, holder in ((INPUTS, self.domain), (CROSSINGS, FOREIGN[self.domain]))
            for asked in [demands[place][holder]]
            if asked.elements
        )  # fmt: skip

    def stores(self, place: int, element_bytes: int) -> tuple[Stream, ...]:
        """Return the stream of the outputs of one set of channels."""
        written = self.written[place][self.domain]
        return (
            Stream(
                OUTPUTS, self.domain, self.outputs.is_external(self.domain),
                self.neurons[place] * element_bytes, written.moved_bytes, written.rows_opened,
            ),
        )  # fmt: skip


def _band(
    layer: Layer, domain: str, rows: int, columns: int, config: DomainConfig, element_bytes: int
) -> tuple[int, int]:
    """Return how many output rows of how many channels make a tile."""
    height, width = layer.in_shape[1:]
    maps = len(layer.sources)
    bounds = {"input": config.buffers.input_bytes, "output": config.buffers.output_bytes}

    def needs(band: int) -> dict[str, int]:
        """Return the bytes of `band` output rows of one channel, by buffer."""
        tall = min(height, (band - 1) * layer.stride[0] + layer.kernel[0])
        return {
            "input": maps * tall * width * element_bytes,
            "output": band * columns * element_bytes,
        }

    band = rows
    while band > 1 and any(needs(band)[name] > bounds[name] for name in bounds):
        band -= 1
    for name, demand in needs(band).items():
        if demand > bounds[name]:
            raise InputError(
                f"layer {layer.name} does not fit the {domain} domain: one row of one channel "
                f"needs {demand:,} bytes of the {name} buffer, which has {bounds[name]:,} "
                f"({demand - bounds[name]:,} too few): enlarge buffers.{name}_bytes"
            )
    return band, min(bounds[name] // demand for name, demand in needs(band).items())
