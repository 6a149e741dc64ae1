"""The whole program of one inference: for every layer and array, tiles and where their data lie."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from nce_sim.config.machine_schema import ArrayConfig, DomainConfig, MachineConfig
from nce_sim.config.technology import BYTES_BY_FORMAT
from nce_sim.errors import InputError
from nce_sim.schedule.balance import fuse_by_layer, overflow
from nce_sim.schedule.domains import DOMAINS, PROTECTED, UNPROTECTED
from nce_sim.schedule.footprint import Footprint, padded_macs
from nce_sim.schedule.layout import EXTERNAL, RESIDENT, Region, StoredMap
from nce_sim.schedule.steps import check_steps
from nce_sim.schedule.tiles import Ends, Tile, WeightStore, largest_window_bytes, tile_plan
from nce_sim.schedule.vector import carried_mask, vector_tiles
from nce_sim.schedule.waves import Array, WavePlan, plan_waves
from nce_sim.workload.layer import INPUT, Kind, Layer
from nce_sim.workload.steps import closed_by, machine_steps

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Share:
    """Neurons of one domain in one layer, and the tiles that compute them on one array.

    `array` is the domain of the lanes, `domain` that of the neurons in `mask`; they differ only
    where idle PPEs take unprotected neurons. `plan` is None for a vector unit. `padded_macs` are
    one image's. `mismatches` marks the waves that run again, images x windows x groups x chunks,
    which takes `repeat_cycles`.
    """

    array: str
    domain: str
    mask: Mask
    plan: WavePlan | None
    tiles: tuple[Tile, ...]
    outputs: str
    padded_macs: int
    mismatches: NDArray[np.bool_] | None = None
    repeat_cycles: int = 0

    @cached_property
    def elements(self) -> int:
        """Outputs of this share, of one image."""
        return int(np.count_nonzero(self.mask))


@dataclass(frozen=True)
class LayerWork:
    """One layer of the program.

    `map_bytes` is its part of the protection map; `arrays` are those in force, and `switches` tells
    whether the columns are fused anew before it.
    """

    layer: Layer
    shares: tuple[Share, ...]
    map_bytes: int
    arrays: Mapping[str, ArrayConfig]
    switches: bool = False

    @property
    def on_array(self) -> bool:
        """Whether the arrays compute it; the vector units do otherwise."""
        return self.layer.has_neurons

    def on(self, array: str) -> tuple[Share, ...]:
        """Return the shares of one array, in order."""
        return tuple(share for share in self.shares if share.array == array)

    def tiles(self, array: str) -> tuple[Tile, ...]:
        """Return the tiles of one array, in order; a tile's number is its place here."""
        return tuple(tile for share in self.on(array) for tile in share.tiles)


@dataclass(frozen=True)
class Program:
    """All layers in order, for one machine, one split and one batch.

    `flattened` gives the map that each flattened one is, by name: flattening moves nothing. Nor
    does joining: `joined` gives the maps that each joined one consists of.
    """

    machine: MachineConfig
    layers: tuple[LayerWork, ...]
    batch: int
    flattened: Mapping[str, str] = field(default_factory=dict)
    joined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def element_bytes(self) -> int:
        """Bytes of an operand."""
        return BYTES_BY_FORMAT[self.machine.number_format]

    def shares(self, array: str) -> list[tuple[LayerWork, Share]]:
        """Return all shares of an array with their layers."""
        return [(work, share) for work in self.layers for share in work.on(array)]


def build_program(
    layers: tuple[Layer, ...],
    machine: MachineConfig,
    unprotected: Mapping[str, Mask],
    map_bits: Mapping[str, int] | None = None,
    batch: int = 1,
    checked: Mapping[str, Mask] | None = None,
) -> Program:
    """Schedule `layers` (in order) for the neurons marked in `unprotected`, by layer name.

    `map_bits` is the size of each layer's part of the protection map; one a neuron, if not given.
    `checked` marks unprotected neurons that the protected array computes once more, after its own,
    to be compared with: nothing of that is stored.

    Raises InputError for masks that do not fit the layers and for layers that do not fit the
    machine.
    """
    expected = {layer.name: layer.out_shape for layer in layers if layer.has_neurons}
    if expected != {name: mask.shape for name, mask in unprotected.items()}:
        raise InputError("the split was made for another network")
    for name, mask in unprotected.items():
        if mask.dtype != np.bool_:
            raise InputError(f"layer {name}: a split is an array of bool, not of {mask.dtype}")
    closed = closed_by(layers)
    layers = machine_steps(layers)
    check_steps(layers)
    if batch < 1:
        raise InputError(f"a batch has at least 1 image, not {batch}")
    bits = map_bits or {name: mask.size for name, mask in unprotected.items()}
    placer = _Placer(layers, machine, unprotected, bits, batch, checked or {}, closed)
    joined = {layer.name: layer.sources for layer in layers if layer.kind is Kind.CONCAT}
    return Program(machine, tuple(placer.place()), batch, _flattened(layers), joined)


def _flattened(layers: tuple[Layer, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for layer in layers:
        if layer.kind is Kind.FLATTEN:
            found[layer.name] = found.get(layer.source, layer.source)
    return found


class _Placer:
    """Walks through the layers and keeps track of the maps in the local buffers."""

    def __init__(
        self,
        layers: tuple[Layer, ...],
        machine: MachineConfig,
        unprotected: Mapping[str, Mask],
        map_bits: Mapping[str, int],
        batch: int,
        checked: Mapping[str, Mask],
        closed: Mapping[str, str],
    ) -> None:
        self.layers, self.machine, self.batch = layers, machine, batch
        self.unprotected, self.map_bits, self.checked = unprotected, map_bits, checked
        self.closed = closed
        self.joined = {
            source for layer in layers if layer.kind is Kind.CONCAT for source in layer.sources
        }
        self.element_bytes = BYTES_BY_FORMAT[machine.number_format]
        self.regions = Region.of(machine)
        self.last_reader = {
            source: number for number, layer in enumerate(layers) for source in layer.sources
        }
        self.arrays = self._arrays_by_layer()

    def place(self) -> Iterator[LayerWork]:
        """Yield each layer's work; flattening and joining only give maps another shape.

        Maps that are joined lie in external memory, channel after channel, as if they were one.
        """
        network_input = np.zeros(self.layers[0].in_shape, bool)
        external = dict.fromkeys(DOMAINS, EXTERNAL)
        maps = {INPUT: StoredMap(network_input, external, self.regions)}
        arrays: Mapping[str, ArrayConfig] = self.machine.arrays
        for number, layer in enumerate(self.layers):
            sources = [maps[name] for name in layer.sources]
            if layer.kind is Kind.FLATTEN:
                maps[layer.name] = sources[0]
            elif layer.kind is Kind.CONCAT:
                mask = np.concatenate([source.unprotected for source in sources])
                maps[layer.name] = StoredMap(mask, external, self.regions)
            else:
                owner = self.closed.get(layer.name, layer.name)
                mask = (
                    self.unprotected[owner]
                    if owner in self.unprotected
                    else carried_mask(layer, [source.unprotected for source in sources])
                )
                stays = layer.name not in self.joined
                maps[layer.name] = (
                    self._place_outputs(mask, maps)
                    if stays
                    else StoredMap(mask, external, self.regions)
                )
                before, arrays = arrays, self.arrays.get(layer.name, arrays)
                yield self._work(layer, sources, maps[layer.name], arrays, arrays != before)
            for name in [n for n in maps if self.last_reader.get(n, len(self.layers)) <= number]:
                del maps[name]

    def _place_outputs(self, mask: Mask, maps: Mapping[str, StoredMap]) -> StoredMap:
        """Keep a domain's part of a new map resident if it fits beside those still needed."""
        place = {}
        new = StoredMap(mask, dict.fromkeys(DOMAINS, RESIDENT), self.regions)
        for domain in DOMAINS:
            held = {
                id(stored): stored.kept_bytes(domain)
                for stored in maps.values()
                if stored.place[domain] == RESIDENT
            }
            needed = sum(held.values()) + new.kept_bytes(domain)
            capacity = self.machine.domains[domain].buffers.resident_bytes
            place[domain] = RESIDENT if needed * self.batch <= capacity else EXTERNAL
        return new.moved_to(place)

    def _work(
        self, layer: Layer, sources: list[StoredMap], output: StoredMap,
        arrays: Mapping[str, ArrayConfig], switches: bool,
    ) -> LayerWork:  # fmt: skip
        if layer.has_neurons:
            shares = self._array_shares(layer, sources[0], output, arrays)
        else:
            shares = [self._vector_share(layer, domain, sources, output) for domain in DOMAINS]
        map_bytes = -(-self.map_bits[layer.name] // 8) if layer.has_neurons else 0
        return LayerWork(layer, tuple(shares), map_bytes, arrays, switches)

    def _array_shares(
        self, layer: Layer, source: StoredMap, output: StoredMap, arrays: Mapping[str, ArrayConfig]
    ) -> list[Share]:
        masks = {UNPROTECTED: self.unprotected[layer.name]}
        masks[PROTECTED] = ~masks[UNPROTECTED]
        plans = {name: self._plan(layer, name, masks[name], arrays[name]) for name in DOMAINS}
        taken = None
        if self.machine.overflow:
            plan = partial(self._plan, layer, PROTECTED, config=arrays[PROTECTED])
            taken = overflow(
                masks[UNPROTECTED], plans[UNPROTECTED], plans[PROTECTED], plan, self.batch
            )
        if taken is not None:
            masks[UNPROTECTED] = masks[UNPROTECTED] & ~taken
            plans[UNPROTECTED] = self._plan(
                layer, UNPROTECTED, masks[UNPROTECTED], arrays[UNPROTECTED]
            )
        shares = [
            self._share(layer, name, name, masks[name], plans[name], source, output)
            for name in DOMAINS
        ]
        if taken is not None:
            plan_taken = self._plan(layer, PROTECTED, taken, arrays[PROTECTED])
            shares.append(
                self._share(layer, PROTECTED, UNPROTECTED, taken, plan_taken, source, output)
            )
        if layer.name in self.checked and self.checked[layer.name].any():
            shares.append(self._check(layer, source, output, arrays[PROTECTED]))
        return shares

    def _check(
        self, layer: Layer, source: StoredMap, output: StoredMap, config: ArrayConfig
    ) -> Share:
        """Return the share of neurons that the protected array computes to compare with."""
        mask = self.checked[layer.name]
        plan = self._plan(layer, PROTECTED, mask, config)
        share = self._share(layer, PROTECTED, UNPROTECTED, mask, plan, source, output)
        return replace(share, tiles=tuple(tile._replace(stores=()) for tile in share.tiles))

    def _plan(self, layer: Layer, domain: str, mask: Mask, config: ArrayConfig) -> WavePlan | None:
        buffers = self.machine.domains[domain]
        scheme = self.machine.scheme_of(domain)
        array = Array.create(config, self.machine.dataflow, buffers.buffers.codec_cycles, scheme)
        fits = partial(self._is_whole, layer, buffers, config)
        return plan_waves(layer, mask, array, fits, self.batch)

    def _share(
        self, layer: Layer, array: str, domain: str, mask: Mask, plan: WavePlan | None,
        source: StoredMap, output: StoredMap,
    ) -> Share:  # fmt: skip
        tiles: list[Tile] = []
        if plan is not None:
            footprint = Footprint(layer, source, array)
            ends = Ends(array, domain, footprint, output, self._weights(domain))
            buffers = self.machine.domains[array].buffers
            tiles = tile_plan(plan, mask, ends, buffers, self.element_bytes, self.batch)
        return Share(
            array=array,
            domain=domain,
            mask=mask,
            plan=plan,
            tiles=tuple(tiles),
            outputs=output.place[domain],
            padded_macs=padded_macs(layer, mask),
        )

    def _weights(self, domain: str) -> WeightStore:
        """Return where the weights of a domain's neurons lie."""
        shared = self.machine.weights == "protected_only"
        store = PROTECTED if shared else domain
        return WeightStore(store, self.regions[store], schedule_order=store == domain)

    def _vector_share(
        self, layer: Layer, domain: str, sources: list[StoredMap], output: StoredMap
    ) -> Share:
        footprints = [Footprint(layer, source, domain) for source in sources]
        mask = output.unprotected if domain == UNPROTECTED else ~output.unprotected
        config = self.machine.domains[domain]
        tiles = vector_tiles(
            layer, domain, mask, footprints, output, config, self.element_bytes, self.batch
        )
        return Share(
            domain,
            domain,
            mask.reshape(layer.out_shape),
            None,
            tuple(tiles),
            output.place[domain],
            0,
        )

    def _is_whole(
        self, layer: Layer, config: DomainConfig, array: ArrayConfig, window: int
    ) -> bool:
        """Tell whether a window's inputs fit; all are alike where the weights split K anyway.

        The columns' channels belong to at most as many families, each with its own inputs.
        """
        channels = min(array.columns, layer.channels)
        weights = channels * layer.reduction_length * self.element_bytes
        read = layer.in_shape[0] // layer.groups * min(array.columns, layer.groups)
        inputs = largest_window_bytes(layer, window, read, self.element_bytes)
        return weights > config.buffers.weight_bytes or inputs <= config.buffers.input_bytes

    def _arrays_by_layer(self) -> Mapping[str, Mapping[str, ArrayConfig]]:
        """Choose the fusing of a fabric layer by layer; dedicated arrays never change."""
        fabric = self.machine.fabric
        if fabric is None or not fabric.fuse_per_layer:
            return {}

        def cycles(layer: Layer, arrays: Mapping[str, ArrayConfig]) -> int:
            """Return the cycles of the slower array."""
            unprotected = self.unprotected[layer.name]
            plans = (
                self._plan(layer, name, mask, arrays[name])
                for name, mask in ((PROTECTED, ~unprotected), (UNPROTECTED, unprotected))
            )
            return max(plan.batch_cycles(self.batch) for plan in plans if plan is not None)

        neuron_layers = [layer for layer in self.layers if layer.has_neurons]
        return fuse_by_layer(neuron_layers, fabric, cycles)
