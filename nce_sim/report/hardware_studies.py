"""The hardware studies in words, figures and rows: PPE ratio and granularity."""

from collections.abc import Sequence

from nce_sim.report.granularity_figure import figure_granularity
from nce_sim.report.ratio_figure import figure_ratio
from nce_sim.report.study_page import StudyReport
from nce_sim.report.wording import change, percent
from nce_sim.schedule.domains import PROTECTED, UNPROTECTED
from nce_sim.study.granularity import UNITS, GranularityPoint, GranularityStudy
from nce_sim.study.ppe_ratio import RatioStudy

Making = Sequence[tuple[str, str]]


def ratio_report(study: RatioStudy, making: Making) -> StudyReport:
    """Return the report of a study of PPE ratios."""
    return StudyReport(
        title=f"{study.network}: PPE ratio, family {study.family} of {study.base}",
        lead=(
            "Which share of the lanes should be protected, so that neither array waits for the "
            "other? The same split runs on every machine of the family."
        ),
        headline=ratio_headline(study),
        figures={
            "ratio": (
                figure_ratio(study),
                "Latency over the PPE ratio, and how busy each array is at the best one.",
            )
        },
        rows=study.rows(),
        making=making,
    )


def ratio_headline(study: RatioStudy) -> list[str]:
    """Return the answer in sentences."""
    best = study.best
    found = [
        f"With {percent(study.split.unprotected_fraction, 0)} of the neurons unprotected, "
        f"{percent(best.ppe_ratio, 0)} PPEs ({best.columns[PROTECTED]} columns beside "
        f"{best.columns[UNPROTECTED]} of PEs) are fastest: {best.latency_us:,.1f} us, "
        f"{best.energy_pj / 1e6:,.1f} uJ, {best.area_mm2:.2f} mm2."
    ]
    gain = percent(study.gain_by_layer)
    if study.fused_by_layer is None:
        found.append(
            f"A ratio chosen anew for each layer could save at most {gain} of that latency, if "
            f"changing cost nothing."
        )
    else:
        fused = study.fused_by_layer
        found.append(
            f"Fusing columns anew at layer boundaries takes {fused.latency_us:,.1f} us and "
            f"{fused.energy_pj / 1e6:,.1f} uJ, switches included: {gain} less latency."
        )
    return found


def granularity_report(study: GranularityStudy, making: Making) -> StudyReport:
    """Return the report of a study of granularities."""
    return StudyReport(
        title=f"{study.network}: granularity of the split on {study.machine}",
        lead=(
            "What does protecting neuron by neuron cost in hardware, against the same share "
            "protected in coarser units? Accuracy is not part of this page."
        ),
        headline=granularity_headline(study),
        figures={
            "granularity": (
                figure_granularity([study]),
                "Latency and energy of an inference, relative to protecting everything.",
            )
        },
        rows=[_row(point) for unit in UNITS for point in _inner(study, unit.name)],
        making=making,
    )


def _row(point: GranularityPoint) -> dict[str, str | float]:
    return {
        "unit": point.unit,
        "asked": point.asked_fraction,
        "share": point.fraction,
        "mac_share": point.mac_share,
        "latency_us": point.latency_us,
        "energy_uj": point.energy_pj / 1e6,
        "crossing_kib": point.crossing_bytes / 1024,
        "map_kib": point.map_bytes / 1024,
    }


def granularity_headline(study: GranularityStudy) -> list[str]:
    """Return the answer in sentences: where each unit pays, and by how much at its best."""
    return [_sentence(study, unit.name) for unit in UNITS]


def _sentence(study: GranularityStudy, unit: str) -> str:
    points = _inner(study, unit)
    whole = study.protected
    frugal = [point for point in points if point.energy_pj < whole.energy_pj]
    fast = min(points, key=lambda point: point.latency_cycles)
    text = f"By {unit}: latency at best {change(fast.latency_cycles, whole.latency_cycles)} "
    text += f"(at {percent(fast.fraction, 0)} on PEs); "
    if not frugal:
        return text + "energy is never below that of protecting everything."
    middle = min(points, key=lambda point: abs(point.fraction - 0.5))
    return text + (
        f"energy pays from {percent(frugal[0].fraction, 0)} on, "
        f"{change(middle.energy_pj, whole.energy_pj)} at {percent(middle.fraction, 0)}."
    )


def _inner(study: GranularityStudy, unit: str) -> list[GranularityPoint]:
    """Return a unit's points between the ends."""
    return [point for point in study.of(unit) if 0 < point.fraction < 1]
