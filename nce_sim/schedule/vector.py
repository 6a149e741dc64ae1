"""The vector units: pooling and additions, after the barrier of the layer that they read."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from nce_sim.config.machine import DomainConfig
from nce_sim.errors import InputError
from nce_sim.schedule.domains import FOREIGN
from nce_sim.schedule.footprint import Footprint
from nce_sim.schedule.layout import StoredMap
from nce_sim.schedule.tiles import CROSSINGS, INPUTS, OUTPUTS, Stream, Tile
from nce_sim.workload.layer import Kind, Layer

Mask = NDArray[np.bool_]


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
    channels = layer.out_shape[0]
    rows, columns = layer.out_shape[1:] if len(layer.out_shape) == 3 else (1, 1)
    shaped = mask.reshape(channels, rows, columns)
    band, together = _band(layer, domain, rows, columns, config, element_bytes)
    for image in range(batch):
        for first in range(0, channels, together):
            chosen = np.arange(first, min(first + together, channels))
            for top in range(0, rows, band):
                part = shaped[chosen[0] : chosen[-1] + 1, top : top + band]
                neurons = int(np.count_nonzero(part))
                if neurons == 0:
                    continue
                written = outputs.read(top, part, chosen)[domain]
                yield Tile(
                    image=image,
                    windows=(top, min(top + band, rows)),
                    groups=(int(chosen[0]), int(chosen[-1]) + 1),
                    chunk=None,
                    reduction=(0, operands(layer)),
                    cycles=-(-neurons * operands(layer) // config.vector_lanes),
                    neurons=neurons,
                    loads=tuple(
                        stream
                        for footprint in footprints
                        for stream in _loads(footprint, domain, part, top, chosen, element_bytes)
                    ),
                    stores=(
                        Stream(
                            OUTPUTS, domain, outputs.is_external(domain), neurons * element_bytes,
                            written.moved_bytes, written.rows_opened,
                        ),
                    ),
                )  # fmt: skip


def _loads(
    footprint: Footprint, domain: str, part: Mask, top: int, chosen: NDArray[np.int64],
    element_bytes: int,
) -> Iterator[Stream]:  # fmt: skip
    demand = footprint.of_neurons(part, top, chosen)
    for what, holder, asked in (
        (INPUTS, domain, demand.own),
        (CROSSINGS, FOREIGN[domain], demand.foreign),
    ):
        if asked.elements:
            external, data = footprint.source.is_external(holder), asked.elements * element_bytes
            yield Stream(what, holder, external, data, asked.moved_bytes, asked.rows_opened)


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
