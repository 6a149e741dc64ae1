"""The report of a campaign in words, figures and rows."""

import nce_sim
from nce_sim.accuracy.statistics import Proportion
from nce_sim.report.campaign_figures import (
    figure_accuracy,
    figure_layers,
    figure_outcomes,
    figure_series,
    point_name,
)
from nce_sim.report.study_page import StudyReport
from nce_sim.report.wording import percent
from nce_sim.study.campaign import CampaignPoint, CampaignResult


def campaign_report(result: CampaignResult) -> StudyReport:
    """Return the report of a campaign."""
    figures = {
        "outcomes": (
            figure_outcomes(result),
            "Shares of inferences by how they ended. Critical: a right answer became wrong. DUE: a "
            "fault was detected and could not be repaired. Same answer: other output bits, but the "
            "same class.",
        ),
        "accuracy": (
            figure_accuracy(result),
            "Accuracy with its 95 % interval; a DUE is no right answer. Where all images of a "
            "realisation share the faults, the sample are the realisations.",
        ),
    }
    series = figure_series(result)
    if series is not None:
        figures["series"] = (
            series,
            "Accuracy with its 95 % interval over the measured share of neurons, of all neurons of "
            "all inferences, whose stored value the faults turned into another.",
        )
    layers = figure_layers(result)
    if layers is not None:
        figures["layers"] = (
            layers,
            "Of the inferences whose first struck layer was this one, the share that ended in "
            "another answer that nobody noticed.",
        )
    return StudyReport(
        title=f"{result.config.name}: faults in {result.network.name} on "
        f"{result.machine.config.name}",
        lead=result.config.description,
        headline=headline(result),
        figures=figures,
        rows=[_short_row(result, point) for point in result.points],
        making=_making(result),
        tables={
            "points": [full_row(point) for point in result.points],
            "layers": [
                {"case": point.case.name, "fraction": point.fraction, **row}
                for point in result.points
                for row in point.result.by_layer()
            ],
        },
    )


def headline(result: CampaignResult) -> list[str]:
    """Return the answer in sentences, then what the rates assume."""
    first = result.points[0].result
    worst = min(result.points, key=lambda point: point.result.accuracy)
    silent = max(result.points, key=lambda point: point.result.rates["critical_sdc"].value)
    found = [
        f"Without faults {percent(first.fault_free.value)} of {first.labels.size:,} images are "
        f"right in {first.precision}, {percent(first.float_reference.value)} in float32.",
        f"Worst: {point_name(result, worst)}, with {_text(worst.result.rates['accuracy'])} right.",
        f"Most right answers turn wrong without notice under {point_name(result, silent)}: "
        f"{_text(silent.result.rates['critical_sdc'])} of the inferences.",
    ]
    for point in result.points:
        if point.latencies is not None and point.result.inferences.repeated.any():
            times = point.latencies
            found.append(
                f"Retries under {point_name(result, point)}: latency {times.mean_us:,.1f} us on "
                f"average, {times.p99_us:,.1f} at p99, {times.most_us:,.1f} at most, "
                f"{times.worst_us:,.1f} if every wave ran twice; {point.run.latency_us:,.1f} "
                f"without."
            )
    said = dict.fromkeys(text for point in result.points for text in point.case.assumptions)
    return [*found, *said]


def _text(rate: Proportion) -> str:
    return f"{_in_brackets(rate)} %"


def _in_brackets(rate: Proportion) -> str:
    """Return a rate in per cent with its interval."""
    return f"{100 * rate.value:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


COLUMNS = {
    "accuracy": "accuracy", "SDC-1": "sdc", "critical": "critical_sdc", "SDC-5": "sdc5",
    "DUE": "due", "NaN/Inf": "not_finite", "same bits": "masked_bits",
    "same answer": "masked_top1",
}  # fmt: skip
"""Columns of the page's table, and the rates that they show."""


def _short_row(result: CampaignResult, point: CampaignPoint) -> dict[str, str | float]:
    rates = point.result.rates
    return {
        "case": point_name(result, point),
        **{f"{name} (%)": _in_brackets(rates[rate]) for name, rate in COLUMNS.items()},
        "struck words": f"{point.result.inferences.struck.mean():.3g}",
        "neuron error rate": f"{point.result.error_rate:.2e}",
    }


def full_row(point: CampaignPoint) -> dict[str, str | float]:
    """Return all figures of a point, flat."""
    times = point.latencies.summary() if point.latencies is not None else {}
    return {
        "case": point.case.name,
        "fraction": point.fraction,
        "struck_words_mean": float(point.result.inferences.struck.mean()),
        **point.result.summary(),
        "latency_us": point.run.latency_us,
        "energy_uj": point.run.energy.total_pj / 1e6,
        **times,
    }


def _making(result: CampaignResult) -> list[tuple[str, str]]:
    origin, campaign = result.ranking.origin, result.config
    return [
        ("nce-sim", nce_sim.__version__),
        ("Network", f"{origin.network}, {origin.network_identity}"),
        ("Ranking", f"{origin.method}, {origin.images} images of {origin.data}"),
        ("Machine", f"{result.machine.config.name}: {result.machine.config.description}"),
        ("Technology", result.machine.technology.description),
        ("Images", f"{result.data}, {campaign.realisations} realisations of the faults"),
        ("Number format", result.points[0].result.precision),
        ("Seed", str(result.seed)),
    ]
