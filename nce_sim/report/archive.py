"""The result as one JSON document: all that is needed to draw the figures and tables again."""

import json
from dataclasses import asdict
from typing import Any

from nce_sim.report.headline import doubts
from nce_sim.report.resilience_summary import relevance_map, spatial_layers
from nce_sim.report.selection import focus_fraction, lead_method
from nce_sim.report.tables import accuracy_rows, area_rows, hardware_rows, layer_rows
from nce_sim.study.main_job import MainJobResult

FORMAT = 1
"""Raised by one whenever a key of the document changes its meaning."""


def json_bytes(result: MainJobResult) -> bytes:
    """Return the document in UTF-8: keys sorted, no date, no timing, no NaN."""
    text = json.dumps(document(result), indent=1, sort_keys=True, allow_nan=False)
    return (text + "\n").encode()


def document(result: MainJobResult) -> dict[str, Any]:
    """Return the document as plain dicts, lists, texts and numbers."""
    area = result.area
    return {
        "format": FORMAT,
        "plan": asdict(result.plan),
        "data": result.data,
        "float32_accuracy": result.float32_fault_free.value,
        "fault_free_accuracy": result.fault_free.value,
        "agreement": result.agreement.value,
        "guessing_accuracy": result.guessing,
        "doubts": doubts(result),
        "network": _network(result),
        "machine": result.machine.config.model_dump(mode="json"),
        "technology": result.machine.technology.model_dump(mode="json"),
        "rankings": {name: asdict(each.origin) for name, each in result.rankings.items()},
        "accuracy": accuracy_rows(result),
        "hardware": hardware_rows(result),
        "layers": layer_rows(result),
        "area": {
            "components": area_rows(result),
            "total_mm2": area.total_mm2,
            "low_mm2": area.low_mm2,
            "high_mm2": area.high_mm2,
        },
        "relevance_maps": _maps(result),
        "timeline": _timeline(result),
    }


def _network(result: MainJobResult) -> dict[str, Any]:
    network = result.network
    return {
        "name": network.name,
        "identity": network.identity,
        "input_shape": list(network.input_shape),
        "neurons": network.neurons,
        "macs": network.macs,
    }


def _maps(result: MainJobResult) -> dict[str, dict[str, list[list[float]]]]:
    """Return the maps that are drawn: layer, method, rows of columns."""
    return {
        layer: {
            method: relevance_map(ranking, layer).tolist()
            for method, ranking in result.rankings.items()
        }
        for layer in spatial_layers(result.rankings[lead_method(result)])
    }


def _timeline(result: MainJobResult) -> dict[str, Any]:
    """Return the spans that are drawn, each as a list in the order of `columns`."""
    method, fraction = lead_method(result), focus_fraction(result)
    spans = result.hardware_of(method, fraction).timeline
    return {
        "method": method,
        "asked_fraction": fraction,
        "columns": ["resource", "what", "layer", "tile", "start_cycle", "end_cycle"],
        "spans": [[s.resource, s.what, s.layer, s.tile, s.start_cycle, s.end_cycle] for s in spans],
    }
