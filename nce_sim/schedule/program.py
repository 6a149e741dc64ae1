"""The whole program of one inference: for every layer and domain, tiles and where its data lie."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nce_sim.config.machine import DomainConfig, MachineConfig
from nce_sim.config.technology import BYTES_BY_FORMAT
from nce_sim.errors import InputError
from nce_sim.schedule.domains import DOMAINS, FOREIGN, UNPROTECTED
from nce_sim.schedule.footprint import Footprint, padded_macs
from nce_sim.schedule.tiles import Tile, largest_window_bytes, tile_plan
from nce_sim.schedule.waves import WavePlan, plan_waves
from nce_sim.workload.layer import INPUT, Kind, Layer

RESIDENT, EXTERNAL = "resident", "external"
"""Where a map lies: in a domain's local buffer, or in its region of the external memory."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class DomainWork:
    """What one domain does in one layer.

    `mask` marks the outputs of this domain. `plan` is None for the vector unit. Inputs of the own
    and the foreign domain and the outputs each lie RESIDENT or EXTERNAL.
    """

    mask: Mask
    plan: WavePlan | None
    tiles: tuple[Tile, ...]
    own_inputs: str
    foreign_inputs: str
    outputs: str
    padded_macs: int

    @property
    def elements(self) -> int:
        """Outputs of this domain."""
        return int(np.count_nonzero(self.mask))


@dataclass(frozen=True)
class LayerWork:
    """One layer of the program. `map_bytes` is its part of the protection map."""

    layer: Layer
    domains: Mapping[str, DomainWork]
    map_bytes: int

    @property
    def on_array(self) -> bool:
        """Whether the arrays compute it; the vector units do otherwise."""
        return self.layer.has_neurons


@dataclass(frozen=True)
class Program:
    """All layers in order, for one machine and one split."""

    machine: MachineConfig
    layers: tuple[LayerWork, ...]

    @property
    def element_bytes(self) -> int:
        """Bytes of an operand."""
        return BYTES_BY_FORMAT[self.machine.number_format]


def build_program(
    layers: tuple[Layer, ...], machine: MachineConfig, unprotected: Mapping[str, Mask]
) -> Program:
    """Schedule `layers` (in order) for the neurons marked in `unprotected`, by layer name.

    Raises InputError for masks that do not fit the layers and for layers that do not fit the
    machine.
    """
    expected = {layer.name: layer.out_shape for layer in layers if layer.has_neurons}
    if expected != {name: mask.shape for name, mask in unprotected.items()}:
        raise InputError("the split was made for another network")
    for name, mask in unprotected.items():
        if mask.dtype != np.bool_:
            raise InputError(f"layer {name}: a split is an array of bool, not of {mask.dtype}")
    return Program(machine, tuple(_Placer(layers, machine).place(unprotected)))


@dataclass(frozen=True)
class _StoredMap:
    """A map between two layers: which elements are unprotected, and where each part lies."""

    unprotected: Mask
    place: Mapping[str, str]

    def part(self, domain: str) -> Mask:
        return self.unprotected if domain == UNPROTECTED else ~self.unprotected


class _Placer:
    """Walks through the layers and keeps track of the maps in the local buffers."""

    def __init__(self, layers: tuple[Layer, ...], machine: MachineConfig) -> None:
        self.layers, self.machine = layers, machine
        self.element_bytes = BYTES_BY_FORMAT[machine.number_format]
        self.last_reader = {layer.source: number for number, layer in enumerate(layers)}

    def place(self, unprotected: Mapping[str, Mask]) -> Iterator[LayerWork]:
        network_input = np.zeros(self.layers[0].in_shape, bool)
        maps = {INPUT: _StoredMap(network_input, dict.fromkeys(DOMAINS, EXTERNAL))}
        for number, layer in enumerate(self.layers):
            source = maps[layer.source]
            if layer.kind is Kind.FLATTEN:
                maps[layer.name] = _StoredMap(source.unprotected.reshape(-1), source.place)
            else:
                mask = (
                    unprotected[layer.name]
                    if layer.has_neurons
                    else pooled_mask(layer, source.unprotected)
                )
                place = self._place_outputs(mask, maps)
                maps[layer.name] = _StoredMap(mask, place)
                yield self._work(layer, source, maps[layer.name])
            for name in [n for n in maps if self.last_reader.get(n, len(self.layers)) <= number]:
                del maps[name]

    def _place_outputs(self, mask: Mask, maps: Mapping[str, _StoredMap]) -> dict[str, str]:
        """Keep a domain's part of a new map resident if it fits beside those still needed."""
        place = {}
        for domain in DOMAINS:
            held = sum(
                int(np.count_nonzero(stored.part(domain)))
                for stored in maps.values()
                if stored.place[domain] == RESIDENT
            )
            new = int(np.count_nonzero(mask if domain == UNPROTECTED else ~mask))
            capacity = self.machine.domains[domain].buffers.resident_bytes
            fits = (held + new) * self.element_bytes <= capacity
            place[domain] = RESIDENT if fits else EXTERNAL
        return place

    def _work(self, layer: Layer, source: _StoredMap, output: _StoredMap) -> LayerWork:
        domains = {}
        for domain in DOMAINS:
            mask = output.part(domain)
            footprint = Footprint(layer, source.part(domain))
            config = self.machine.domains[domain]
            plan = None
            tiles: Iterable[Tile] = ()
            if not layer.has_neurons:
                tiles = _pooling_tiles(layer, domain, mask, footprint, config, self.element_bytes)
            else:
                plan = plan_waves(
                    layer, domain, mask, config.array, self.machine.dataflow,
                    partial(self._is_whole, layer, config),
                )  # fmt: skip
                if plan is not None:
                    tiles = tile_plan(plan, mask, footprint, config.buffers, self.element_bytes)
            domains[domain] = DomainWork(
                mask=mask,
                plan=plan,
                tiles=tuple(tiles),
                own_inputs=source.place[domain],
                foreign_inputs=source.place[FOREIGN[domain]],
                outputs=output.place[domain],
                padded_macs=padded_macs(layer, mask) if layer.has_neurons else 0,
            )
        return LayerWork(layer, domains, -(-layer.neurons // 8))

    def _is_whole(self, layer: Layer, config: DomainConfig, window: int) -> bool:
        """Tell whether a window's inputs fit; all are alike where the weights split K anyway."""
        channels = min(config.array.columns, layer.channels)
        weights = channels * layer.reduction_length * self.element_bytes
        inputs = largest_window_bytes(layer, window, self.element_bytes)
        return weights > config.buffers.weight_bytes or inputs <= config.buffers.input_bytes


def pooled_mask(layer: Layer, unprotected: Mask) -> Mask:
    """Mark the pooled values all of whose parts are unprotected."""
    padded = np.pad(
        unprotected,
        ((0, 0), *((padding, padding) for padding in layer.padding)),
        constant_values=True,
    )
    view = np.lib.stride_tricks.sliding_window_view(padded, layer.kernel, axis=(1, 2))
    windows = view[:, :: layer.stride[0], :: layer.stride[1]]
    rows, columns = layer.out_shape[1:] if len(layer.out_shape) == 3 else (1, 1)
    return windows[:, :rows, :columns].all(axis=(3, 4)).reshape(layer.out_shape)


def _pooling_tiles(
    layer: Layer,
    domain: str,
    mask: Mask,
    footprint: Footprint,
    config: DomainConfig,
    element_bytes: int,
) -> Iterator[Tile]:
    """Cut a pooling layer into bands of rows of as many channels as fit the buffers."""
    channels, height, width = layer.in_shape
    rows, columns = layer.out_shape[1:] if len(layer.out_shape) == 3 else (1, 1)
    shaped = mask.reshape(channels, rows, columns)

    def needs(band: int) -> dict[str, int]:
        """Return the bytes of `band` output rows of one channel, by buffer."""
        tall = min(height, (band - 1) * layer.stride[0] + layer.kernel[0])
        return {"input": tall * width * element_bytes, "output": band * columns * element_bytes}

    bounds = {"input": config.buffers.input_bytes, "output": config.buffers.output_bytes}
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
    together = min(bounds[name] // demand for name, demand in needs(band).items())
    for first in range(0, channels, together):
        last = min(first + together, channels)
        for top in range(0, rows, band):
            part = shaped[first:last, top : top + band]
            outputs = int(np.count_nonzero(part))
            if outputs == 0:
                continue
            demanded = footprint.of_neurons(part, top, np.arange(first, last))
            yield Tile(
                windows=(top, min(top + band, rows)),
                groups=(first, last),
                chunk=None,
                reduction=(0, layer.window),
                cycles=-(-outputs * layer.window // config.vector_lanes),
                neurons=outputs,
                own_input_bytes=demanded.own * element_bytes,
                foreign_input_bytes=demanded.foreign * element_bytes,
                weight_bytes=0,
                output_bytes=outputs * element_bytes,
            )
