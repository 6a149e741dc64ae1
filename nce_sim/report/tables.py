"""The result as flat rows and as pandas frames, always in the same order."""

from math import isfinite
from typing import Any

import numpy as np
import pandas as pd

from nce_sim.accuracy.statistics import Proportion
from nce_sim.machine.engine import Run
from nce_sim.report.resilience_summary import LayerResilience, layer_resilience
from nce_sim.report.selection import focus_fraction, lead_method
from nce_sim.study.main_job import AccuracyPoint, HardwarePoint, MainJobResult

Row = dict[str, Any]
"""One line of a table: column to text, number, or None where there is nothing to say."""

FLOAT_FORMAT = "%.10g"


def frame(rows: list[Row]) -> pd.DataFrame:
    """Return rows as a frame, columns in the order of the first row."""
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else None)


def csv_bytes(rows: list[Row]) -> bytes:
    """Return rows as CSV in UTF-8; floats have ten significant digits."""
    text = frame(rows).to_csv(index=False, float_format=FLOAT_FORMAT, lineterminator="\n")
    return text.encode()


def accuracy_rows(result: MainJobResult) -> list[Row]:
    """Return one row for each method, fraction and fault, in the order of the plan.

    Shares and their intervals run from 0 to 1; differences (lead method minus this one, on the
    same images and faults) are in points of a hundred.
    """
    return [_accuracy_row(result, point) for point in result.accuracy]


def _accuracy_row(result: MainJobResult, point: AccuracyPoint) -> Row:
    found, lead = point.result, lead_method(result)
    difference = result.accuracy_of(lead, point.fraction, point.fault).minus(found)
    run = result.hardware_of(point.method, point.fraction)
    return {
        "method": point.method,
        "asked_fraction": point.fraction,
        "unprotected_fraction": point.split.unprotected_fraction,
        "mac_share_unprotected": run.mac_share_unprotected,
        "fault": point.fault.name,
        "level": float(point.fault.level),
        **_share("accuracy", found.correct, plain_ends=True),
        **_share("sdc", found.sdc),
        **_share("critical_sdc", found.critical_sdc),
        **_share("not_finite", found.not_finite),
        "inferences": found.correct.trials,
        "confidence": found.correct.confidence,
        **_share("fault_free_accuracy", found.fault_free),
        f"{lead}_minus_method_points": 100 * difference.value,
        f"{lead}_minus_method_points_low": 100 * difference.low,
        f"{lead}_minus_method_points_high": 100 * difference.high,
    }


def _share(name: str, share: Proportion, plain_ends: bool = False) -> Row:
    """Return a share with the ends of its interval, which are plainly "low" and "high" if asked."""
    prefix = "" if plain_ends else f"{name}_"
    return {name: share.value, f"{prefix}low": share.low, f"{prefix}high": share.high}


def hardware_rows(result: MainJobResult) -> list[Row]:
    """Return one row for each method and fraction, in the order of the plan.

    Energies are in uJ an inference, power in mW over the inference, areas in mm2.
    """
    return [_hardware_row(point) for point in result.hardware]


def _hardware_row(point: HardwarePoint) -> Row:
    run = point.run
    energy, counts = run.energy, run.counts
    components = {
        f"energy_{_column(name)}_uj": pj / 1e6 for name, pj in energy.by_component_pj.items()
    }
    return {
        "method": point.method,
        "asked_fraction": point.fraction,
        "unprotected_fraction": point.split.unprotected_fraction,
        "mac_share_unprotected": run.mac_share_unprotected,
        "latency_cycles": run.latency_cycles,
        "latency_us": run.latency_us,
        "images_per_second": run.images_per_second,
        "energy_uj": energy.total_pj / 1e6,
        "energy_low_uj": energy.low_pj / 1e6,
        "energy_high_uj": energy.high_pj / 1e6,
        **components,
        "power_mw": energy.total_pj / 1e3 / run.latency_us,
        "area_mm2": run.area.total_mm2,
        "bus_bytes": counts.bus_bytes,
        "memory_bytes": counts.memory_bytes,
        "crossing_bytes": counts.crossing_bytes,
        "spilled_bytes": counts.spilled_bytes,
        "map_bytes": counts.map_bytes,
        "memory_rows_opened": counts.rows_opened,
        "memory_refreshes": counts.refreshes,
        "tiles": counts.tiles,
        "fusing_switches": counts.switches,
        **_domain_columns(run),
    }


def _domain_columns(run: Run) -> Row:
    """Return what each domain's array did: waves, lane-cycles, and its cycles by cause."""
    columns: Row = {}
    for domain, done in run.counts.domains.items():
        columns[f"{domain}_waves"] = done.waves
        columns[f"{domain}_repeated_waves"] = done.repeated_waves
        columns[f"{domain}_overflow_neurons"] = done.overflow_neurons
        columns[f"{domain}_idle_lane_cycles"] = done.idle_lane_cycles
        columns[f"{domain}_utilisation"] = run.utilisation(domain)
        for cause, cycles in run.cycles_by_cause[domain].items():
            columns[f"{domain}_{_column(cause)}_cycles"] = cycles
    return columns


def layer_rows(result: MainJobResult) -> list[Row]:
    """Return one row for each layer with neurons, in the network's order.

    Resilience has the unit of each method's own score: only LRP's has a meaning by itself.
    `reduction_length` is K, the multiply-accumulates of one neuron.
    """
    lead, fraction = lead_method(result), focus_fraction(result)
    split = result.rankings[lead].split(fraction)
    cycles = result.hardware_of(lead, fraction).compute_cycles_by_layer
    summaries = {method: layer_resilience(result.rankings[method]) for method in result.rankings}
    rows = []
    for number, layer in enumerate(result.network.neuron_layers):
        row: Row = {
            "layer": layer.name,
            "kind": str(layer.kind),
            "shape": " x ".join(map(str, layer.out_shape)),
            "neurons": layer.neurons,
            "macs": layer.macs,
            "reduction_length": layer.reduction_length,
            "mean_activation": result.mean_activation[layer.name],
            f"{lead}_share_unprotected_at_{fraction:g}": float(
                np.mean(split.unprotected[layer.name])
            ),
        }
        for domain, of_domain in cycles.get(layer.name, {}).items():
            row[f"{lead}_{domain}_compute_cycles_at_{fraction:g}"] = of_domain
        for method, layers in summaries.items():
            lost = result.rankings[method].lost_relevance.get(layer.name)
            row |= _resilience_columns(method, layers[number], lost)
        rows.append(row)
    return rows


def _resilience_columns(method: str, layer: LayerResilience, lost: float | None) -> Row:
    columns = {
        f"{method}_harmonic_resilience": _finite(layer.harmonic),
        f"{method}_arithmetic_resilience_of_finite": _finite(layer.arithmetic),
        f"{method}_share_infinite": layer.share_infinite,
    }
    if lost is not None:
        columns[f"{method}_relevance_lost"] = lost
    return columns


def area_rows(result: MainJobResult) -> list[Row]:
    """Return one row for each component of the machine's area, in mm2."""
    area = result.area
    return [
        {"component": name, "area_mm2": area_mm2}
        for name, area_mm2 in area.by_component_mm2.items()
    ]


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None


def _column(name: str) -> str:
    return name.replace(" ", "_")
