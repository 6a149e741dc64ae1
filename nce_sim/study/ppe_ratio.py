"""Which share of PPE lanes balances the two arrays, for one split: a family of machines, simulated.

Three families grow from a base machine, whose buffers, bus and memory stay:

- `lanes`: as many columns in all as the base machine has; each is a column of PPEs or of PEs.
- `area`: as much area of lanes in all; what a column of PPEs takes follows from its scheme.
- `fabric`: columns that fuse into PPEs (a machine with a `fabric`); the ratio is how many do.

For the first two, the gain that changing the ratio by layer could bring is a bound: each layer as
on the machine of the family that is best for it, at no cost of changing. A fabric is simulated.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from nce_sim.config.machine import Machine
from nce_sim.config.machine_schema import ArrayConfig, MachineConfig
from nce_sim.config.vary import Changes
from nce_sim.cost.area import lane_area_um2
from nce_sim.errors import InputError
from nce_sim.machine.engine import Network, Run, simulate
from nce_sim.machine.probe import COMPUTE
from nce_sim.resilience.split import Split
from nce_sim.schedule.domains import DOMAINS, PROTECTED, UNPROTECTED

FAMILIES = ("lanes", "area", "fabric")
MOST_POINTS = 31

Item = TypeVar("Item")


@dataclass(frozen=True)
class RatioPoint:
    """One machine of a family with the split: `columns` by domain, and what the run took.

    `layer_cycles` is the time from one barrier to the next; `busy` the share of it in which each
    domain's lanes had neurons to compute, by layer and domain.
    """

    columns: Mapping[str, int]
    ppe_ratio: float
    latency_cycles: int
    latency_us: float
    energy_pj: float
    area_mm2: float
    layer_cycles: Mapping[str, int]
    busy: Mapping[str, Mapping[str, float]]

    @staticmethod
    def of(run: Run) -> "RatioPoint":
        """Return what is kept of a run."""
        arrays = run.machine.config.arrays
        return RatioPoint(
            columns={domain: array.columns for domain, array in arrays.items()},
            ppe_ratio=run.machine.config.ppe_ratio,
            latency_cycles=run.latency_cycles,
            latency_us=run.latency_us,
            energy_pj=run.energy.total_pj,
            area_mm2=run.area.total_mm2,
            layer_cycles=layer_cycles(run),
            busy=_busy(run),
        )


@dataclass(frozen=True)
class RatioStudy:
    """All machines of a family with one split, in order of their PPE ratio.

    `fused_by_layer` is the fabric that is fused anew at layer boundaries; None in other families.
    """

    family: str
    base: str
    network: str
    split: Split
    points: tuple[RatioPoint, ...]
    fused_by_layer: RatioPoint | None

    @cached_property
    def best(self) -> RatioPoint:
        """The fixed ratio with the least latency; of equals, the one with less energy."""
        return min(self.points, key=lambda point: (point.latency_cycles, point.energy_pj))

    @property
    def bound_cycles(self) -> int:
        """Latency if each layer ran as on the machine that is best for it, changing for nothing."""
        layers = self.best.layer_cycles
        return sum(min(point.layer_cycles[name] for point in self.points) for name in layers)

    @property
    def gain_by_layer(self) -> float:
        """Share of the best fixed ratio's latency that a ratio by layer saves.

        Simulated, switches included, for a fabric; else the bound.
        """
        cycles = (
            self.bound_cycles if self.fused_by_layer is None else self.fused_by_layer.latency_cycles
        )
        return 1 - cycles / self.best.latency_cycles

    def rows(self) -> list[dict[str, float]]:
        """Return one flat record a machine, for a table."""
        return [
            {
                "ppe_columns": point.columns[PROTECTED],
                "pe_columns": point.columns[UNPROTECTED],
                "ppe_ratio": point.ppe_ratio,
                "latency_us": point.latency_us,
                "energy_uj": point.energy_pj / 1e6,
                "area_mm2": point.area_mm2,
                "ppe_busy": _mean_busy(point, PROTECTED),
                "pe_busy": _mean_busy(point, UNPROTECTED),
            }
            for point in self.points
        ]

    def __str__(self) -> str:
        best = self.best
        return (
            f"{self.network}, {self.split.unprotected_fraction:.0%} unprotected, family "
            f"'{self.family}' of {self.base}: best with {best.ppe_ratio:.0%} PPEs "
            f"({best.columns[PROTECTED]} + {best.columns[UNPROTECTED]} columns), "
            f"{best.latency_us:,.1f} us; a ratio by layer "
            f"{'saves' if self.fused_by_layer is not None else 'would save at most'} "
            f"{self.gain_by_layer:.1%}"
        )


def study_ratio(
    network: Network,
    name: str,
    base: Machine,
    split: Split,
    family: str = "lanes",
    advance: Callable[[int], None] = lambda _: None,
) -> RatioStudy:
    """Simulate a split on all machines of a family, at most 31 of them evenly spaced.

    `advance` is told each machine that is done.
    Raises InputError for an unknown family, and for one that does not fit the base machine.
    """
    machines = family_of(base, family)
    points = []
    for machine in machines:
        points.append(RatioPoint.of(simulate(network, machine, split)))
        advance(1)
    fused = None
    if base.config.fabric is not None:
        fused = RatioPoint.of(simulate(network, _fused(base, by_layer=True), split))
        advance(1)
    return RatioStudy(family, base.config.name, name, split, tuple(points), fused)


def family_of(base: Machine, family: str) -> list[Machine]:
    """Return the machines of a family in order of their PPE ratio; see `study_ratio`."""
    if family not in FAMILIES:
        raise InputError(f"unknown family '{family}': known are {', '.join(FAMILIES)}")
    config = base.config
    if (config.fabric is not None) != (family == "fabric"):
        raise InputError(
            f"family '{family}' does not suit machine '{config.name}': a machine with a fabric has "
            f"family 'fabric', one with dedicated arrays 'lanes' or 'area'"
        )
    if config.fabric is not None:
        clusters = range(1, config.fabric.most_clusters + 1)
        return [_fused(base, by_layer=False, clusters=each) for each in _evenly(clusters)]
    return [_dedicated(base, columns) for columns in _evenly(_columns(base, family))]


RATIO_FIELDS = tuple(
    f"{domain}.array.{field}" for domain in DOMAINS for field in ("columns", "weight_words")
)
"""Fields of a machine's file in which a family of dedicated arrays differs from its base."""


def ratio_changes(base: Machine, family: str, ratio: float) -> Changes:
    """Return what makes the base machine that of the family whose PPE ratio is nearest.

    `family` is "lanes" or "area", `ratio` a share of the lanes, 0 to 1; of two that are equally
    near, it is the one with fewer PPEs. The changes set `RATIO_FIELDS`.
    Raises InputError for a family that does not fit the base machine.
    """
    if base.config.fabric is not None:
        raise InputError(
            f"machine '{base.config.name}' has a fabric: how many PPEs are fused is its field "
            f"fabric.clusters"
        )
    machines = (_dedicated(base, columns) for columns in _columns(base, family))
    nearest = min(machines, key=lambda each: abs(each.config.ppe_ratio - ratio))
    arrays = nearest.config.arrays
    return tuple(
        (f"{domain}.array.{field}", getattr(arrays[domain], field))
        for domain in DOMAINS
        for field in ("columns", "weight_words")
    )


def _columns(base: Machine, family: str) -> list[dict[str, int]]:
    """Return the columns of each domain on all machines of a family with dedicated arrays."""
    of_lanes = family == "lanes"
    counts = _columns_of_equal_lanes(base.config) if of_lanes else _columns_of_equal_area(base)
    if not counts:
        raise InputError(f"machine '{base.config.name}' is too small to change columns of lanes")
    return counts


def _columns_of_equal_lanes(config: MachineConfig) -> list[dict[str, int]]:
    protected, unprotected = config.protected.array, config.unprotected.array
    if protected.rows != unprotected.rows:
        raise InputError(
            f"family 'lanes' exchanges columns of equal length; machine '{config.name}' has "
            f"{protected.rows} rows of PPEs and {unprotected.rows} of PEs: use family 'area'"
        )
    every = protected.columns + unprotected.columns
    return [{PROTECTED: each, UNPROTECTED: every - each} for each in range(1, every)]


def _columns_of_equal_area(base: Machine) -> list[dict[str, int]]:
    """Exchange columns of PPEs for as many columns of PEs as fit into their area."""
    of_column = {
        domain: base.config.arrays[domain].rows * lane_area_um2(base, domain) for domain in DOMAINS
    }
    area = sum(base.config.arrays[domain].columns * of_column[domain] for domain in DOMAINS)
    found = []
    for protected in range(1, int(area // of_column[PROTECTED]) + 1):
        left = area - protected * of_column[PROTECTED]
        unprotected = int(left * (1 + 1e-12) // of_column[UNPROTECTED])
        if unprotected >= 1:
            found.append({PROTECTED: protected, UNPROTECTED: unprotected})
    return found


def _evenly(items: Sequence[Item]) -> list[Item]:
    """Return at most MOST_POINTS items, the ends included."""
    count = min(len(items), MOST_POINTS)
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, count)]


def _dedicated(base: Machine, columns: Mapping[str, int]) -> Machine:
    """Return the base machine with other columns, each with the weight words that it had."""
    changed = {}
    for name, domain in base.config.domains.items():
        array: ArrayConfig = domain.array
        words = max(1, array.weight_words * columns[name] // array.columns)
        lanes = {"columns": columns[name], "weight_words": words}
        changed[name] = domain.model_copy(update={"array": array.model_copy(update=lanes)})
    return base.model_copy(update={"config": base.config.model_copy(update=changed)})


def _fused(base: Machine, by_layer: bool, clusters: int | None = None) -> Machine:
    """Return a machine with its fabric fused otherwise at the start."""
    fabric = base.config.fabric
    assert fabric is not None
    update: dict[str, object] = {"fuse_per_layer": by_layer}
    if clusters is not None:
        update["clusters"] = clusters
    fabric = fabric.model_copy(update=update)
    arrays = fabric.arrays(fabric.clusters)
    domains = {
        name: domain.model_copy(update={"array": arrays[name]})
        for name, domain in base.config.domains.items()
    }
    return base.model_copy(
        update={"config": base.config.model_copy(update={"fabric": fabric, **domains})}
    )


def layer_cycles(run: Run) -> dict[str, int]:
    """Return the cycles from one barrier to the next, by layer; they sum to the latency."""
    found = {work.layer.name: 0 for work in run.program.layers}
    for span in run.timeline:
        if span.domain_of_array == PROTECTED:
            found[span.layer] += span.cycles
    return found


def _busy(run: Run) -> dict[str, dict[str, float]]:
    """Return the share of each layer's time in which an array computes."""
    whole = layer_cycles(run)
    computing = {name: dict.fromkeys(DOMAINS, 0) for name in whole}
    for span in run.timeline:
        domain = span.domain_of_array
        if domain is not None and span.what == COMPUTE:
            computing[span.layer][domain] += span.cycles
    return {
        name: {domain: cycles / whole[name] for domain, cycles in of_layer.items()}
        for name, of_layer in computing.items()
    }


def _mean_busy(point: RatioPoint, domain: str) -> float:
    """Return the share of the whole run in which an array computes."""
    cycles: Iterable[float] = (
        point.busy[name][domain] * cycles for name, cycles in point.layer_cycles.items()
    )
    return sum(cycles) / point.latency_cycles
