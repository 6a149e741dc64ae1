"""Compare the simulator with Eyeriss' silicon: the convolutions of AlexNet and VGG-16.

    python benchmarks/eyeriss.py             # the memory as hw_configs/eyeriss-like.yaml divides it
    python benchmarks/eyeriss.py --divide    # and divided anew for each layer (minutes)

Eyeriss runs layer by layer with all maps in DRAM between, so each convolution is simulated as a
network of its own, with all neurons on the PEs. "towers" takes the groups of a convolution one
after the other. Published figures: Chen, Krishna, Emer and Sze, IEEE JSSC 52(1), 2017, Tables V and
VI (1 V, 200 MHz); docs/silicon.md says how each was confirmed, and explains the gaps.
"""

import argparse
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np

import nce_sim as nce
from nce_sim.machine.engine import Run
from nce_sim.resilience.split import Split
from nce_sim.workload.layer import INPUT, Kind, Layer

MB = 1e6
"""The paper's: 15.4 MB are 0.0029 accesses of 16 bits for each of 2.66e9 multiply-accumulates."""

EXTERNAL = "external memory"

KIB = 1024
OUTPUT_KIB, WEIGHT_KIB = (2, 8), (16, 32, 48, 64)
"""Halves of the double buffers that `--divide` tries; inputs take the rest."""


@dataclass(frozen=True)
class Figures:
    """Latency, traffic with the external memory and energy of the chip, for a whole batch.

    `compute_ms` is the part in which the lanes compute: Eyeriss' processing latency.
    """

    latency_ms: float
    compute_ms: float
    dram_mb: float
    chip_mj: float

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(
            self.latency_ms + other.latency_ms,
            self.compute_ms + other.compute_ms,
            self.dram_mb + other.dram_mb,
            self.chip_mj + other.chip_mj,
        )

    @property
    def chip_mw(self) -> float:
        """Mean power of the chip, external memory apart."""
        return self.chip_mj / self.latency_ms * 1e3


NOTHING = Figures(0, 0, 0, 0)


def _published(latency_ms: float, compute_ms: float, dram_mb: float, chip_mw: float) -> Figures:
    return Figures(latency_ms, compute_ms, dram_mb, chip_mw * latency_ms / 1e3)


BATCH = {"alexnet": 4, "vgg16": 3}
PUBLISHED_BY_LAYER = {
    "conv1": _published(20.9, 16.5, 5.0, 332),
    "conv2": _published(41.9, 39.2, 4.0, 288),
    "conv3": _published(23.6, 21.3, 3.0, 266),
    "conv4": _published(18.4, 16.0, 2.1, 235),
    "conv5": _published(10.5, 10.0, 1.3, 236),
}
PUBLISHED = {
    "alexnet": _published(115.3, 103.5, 15.4, 278),
    "vgg16": _published(4309.5, 3755.2, 321.1, 236),
}


@dataclass(frozen=True)
class Alone:
    """A network of one layer."""

    layers: tuple[Layer]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--divide", action="store_true", help="divide the memory for each layer")
    parser.add_argument("--network", choices=tuple(BATCH), help="one of the two only")
    options = parser.parse_args()
    machine = nce.load_machine("eyeriss-like")
    print(f"{machine.config.description}; technology {machine.technology.name}")
    for network in [options.network] if options.network else BATCH:
        compare(network, machine, options.divide)


def compare(network: str, machine: nce.Machine, divide: bool) -> None:
    """Print the table of one network: published, layers whole, towers apart, memory divided."""
    batch = BATCH[network]
    layers = [layer for layer in nce.load_model(network).layers if layer.kind is Kind.CONV2D]
    print(f"\n{network}, convolutions, batch {batch}: ms (lanes compute), MB of DRAM, mW of chip")
    print(f"{'':6s} {'least MB':>8s} {'published':>29s} {'simulated':>29s} {'towers':>29s}", end="")
    print(f" {'memory divided':>29s}" if divide else "")
    totals = [NOTHING] * (3 if divide else 2)
    for layer in layers:
        found = [simulate(layer, machine, batch), by_towers(layer, machine, batch)]
        if divide:
            found.append(best_division(layer, machine, batch))
        known = PUBLISHED_BY_LAYER.get(layer.name) if network == "alexnet" else None
        _print_row(layer.name, least_mb(layer, batch), known, found)
        totals = [total + each for total, each in zip(totals, found, strict=True)]
    least = sum(least_mb(layer, batch) for layer in layers)
    _print_row("all", least, PUBLISHED[network], totals)
    of_chip = ", ".join(f"{each.chip_mj / batch:.1f}" for each in (PUBLISHED[network], *totals))
    print(f"energy of the chip for an image, mJ: {of_chip}")


def _print_row(name: str, least: float, known: Figures | None, found: list[Figures]) -> None:
    cells = [f"{'':29s}" if known is None else _cell(known), *map(_cell, found)]
    print(f"{name:6s} {least:8.1f} {' '.join(cells)}", flush=True)


def _cell(figures: Figures) -> str:
    return (
        f"{figures.latency_ms:8.1f} ({figures.compute_ms:6.1f}) {figures.dram_mb:7.1f} "
        f"{figures.chip_mw:4.0f}"
    )


def simulate(layer: Layer, machine: nce.Machine, batch: int) -> Figures:
    """Simulate one layer as a network of its own, all neurons on the PEs."""
    alone = replace(layer, name="alone", source=INPUT)
    return _simulate(alone, Hashable(machine), batch)


class Hashable:
    """A machine that may be the key of a cache: equal by its content."""

    def __init__(self, machine: nce.Machine) -> None:
        self.machine, self._content = machine, machine.model_dump_json()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hashable) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)


@cache
def _simulate(layer: Layer, machine: Hashable, batch: int) -> Figures:
    """Layers of one shape are alike: VGG-16 has several."""
    on_pes = Split(1.0, "layer", {layer.name: np.ones(layer.out_shape, bool)})
    return figures_of(nce.simulate(Alone((layer,)), machine.machine, on_pes, batch=batch))


def figures_of(run: Run) -> Figures:
    """Take the figures to compare from a run."""
    cycles = sum(by_array["unprotected"] for by_array in run.compute_cycles_by_layer.values())
    chip_pj = sum(pj for name, pj in run.energy.by_component_pj.items() if name != EXTERNAL)
    return Figures(
        latency_ms=run.latency_us / 1e3,
        compute_ms=cycles / run.machine.config.clock_mhz / 1e3,
        dram_mb=run.counts.memory_bytes / MB,
        chip_mj=chip_pj / 1e9,
    )


def by_towers(layer: Layer, machine: nce.Machine, batch: int) -> Figures:
    """Simulate the groups of a convolution one after the other: each is a convolution."""
    return sum((simulate(tower, machine, batch) for tower in towers(layer)), NOTHING)


def towers(layer: Layer) -> list[Layer]:
    """Return the groups of a convolution as convolutions that do not know of each other."""
    (inputs, *in_size), (outputs, *out_size) = layer.in_shape, layer.out_shape
    tower = replace(
        layer, groups=1, in_shape=(inputs // layer.groups, *in_size),
        out_shape=(outputs // layer.groups, *out_size),
    )  # fmt: skip
    return [tower] * layer.groups


def best_division(layer: Layer, machine: nce.Machine, batch: int) -> Figures:
    """Divide the buffers' bytes among inputs, weights and outputs so that the latency is least.

    Eyeriss, too, divides its global buffer anew for each layer (its Table III).
    """
    found = (by_towers(layer, each, batch) for each in divisions(machine))
    return min(found, key=lambda figures: figures.latency_ms)


def divisions(machine: nce.Machine) -> list[nce.Machine]:
    """Return the machine with its buffers divided in other ways, and as it is."""
    buffers = machine.config.unprotected.buffers
    half_bytes = buffers.input_bytes + buffers.weight_bytes + buffers.output_bytes
    found = [machine]
    for output_kib, weight_kib in product(OUTPUT_KIB, WEIGHT_KIB):
        content = machine.model_dump()
        content["config"]["unprotected"]["buffers"] |= {
            "input_bytes": half_bytes - KIB * (output_kib + weight_kib),
            "weight_bytes": KIB * weight_kib,
            "output_bytes": KIB * output_kib,
        }
        found.append(nce.Machine.model_validate(content))
    return found


def least_mb(layer: Layer, batch: int, element_bytes: int = 2) -> float:
    """Return the traffic that no dataflow avoids: inputs and outputs once, weights once a batch."""
    maps = int(np.prod(layer.in_shape)) + layer.outputs
    return element_bytes * (batch * maps + layer.weights) / MB


if __name__ == "__main__":
    main()
