"""The main table: one row a split, for the page and for the terminal."""

from collections.abc import Mapping
from dataclasses import dataclass

from nce_sim.accuracy.statistics import Proportion
from nce_sim.machine.engine import Run
from nce_sim.report.selection import hardest_faults, lead_method
from nce_sim.study.main_job import MainJobResult

PARTS = {
    "PPE lanes": ("protected lanes",),
    "PE lanes": ("unprotected lanes",),
    "PPE buffers": ("protected buffers",),
    "PE buffers": ("unprotected buffers",),
    "Bus": ("bus",),
    "Memory": ("external memory",),
}
"""Columns of energy and the components that each sums up; all others are "Rest"."""

REST = "Rest"


@dataclass(frozen=True)
class SplitRow:
    """One split: accuracy of every method under each of the hardest faults, cost of the lead's.

    `accuracy` is keyed by (method, the fault as text); `neurons` and `macs` are the shares on PEs.
    `energy_uj` maps the columns of `PARTS` and "Rest" to microjoules; they sum to the total.
    """

    fraction: float
    neurons: float
    macs: float
    accuracy: Mapping[tuple[str, str], Proportion]
    run: Run
    energy_uj: Mapping[str, float]

    @property
    def total_uj(self) -> float:
        """Energy of one inference in microjoules."""
        return self.run.energy.total_pj / 1e6


def split_rows(result: MainJobResult) -> list[SplitRow]:
    """Return the rows of the main table by rising share of unprotected neurons."""
    lead = lead_method(result)
    rows = []
    for point in result.hardware:
        if point.method != lead:
            continue
        accuracy = {
            (method, str(fault)): result.accuracy_of(method, point.fraction, fault).correct
            for fault in hardest_faults(result)
            for method in result.plan.methods
        }
        rows.append(
            SplitRow(
                fraction=point.fraction,
                neurons=point.split.unprotected_fraction,
                macs=point.run.mac_share_unprotected,
                accuracy=accuracy,
                run=point.run,
                energy_uj=energy_by_part(point.run),
            )
        )
    return sorted(rows, key=lambda row: row.fraction)


def energy_by_part(run: Run) -> dict[str, float]:
    """Return energy in microjoules by the columns of the main table."""
    components = {name: pj / 1e6 for name, pj in run.energy.by_component_pj.items()}
    parts = {
        part: sum(components[name] for name in names if name in components)
        for part, names in PARTS.items()
    }
    named = {name for names in PARTS.values() for name in names}
    parts[REST] = sum(uj for name, uj in components.items() if name not in named)
    return parts
