"""The report of a safety study in words, figures and rows."""

from collections.abc import Sequence

from nce_sim.config.voltage_curves import Range
from nce_sim.report.safety_figures import figure_components, figure_metrics
from nce_sim.report.study_page import StudyReport
from nce_sim.report.wording import percent
from nce_sim.safety.assessment import NOT_A_CERTIFICATE, TARGETS, Safety, shown_fit
from nce_sim.safety.ranges import total

FMEDA = "fmeda"
"""Name of the table with all rows."""


def safety_report(safety: Safety, title: str, making: Sequence[tuple[str, str]]) -> StudyReport:
    """Return the report of a safety study."""
    return StudyReport(
        title=title,
        lead="Failure rates of the engine: raw rates from bits and area, what one fault does "
        "measured by injection, and the metrics of ISO 26262-5 that follow.",
        headline=headline(safety),
        figures={
            "components": (
                figure_components(safety),
                "Rates of silent wrong answers (SDC) in FIT, failures in a thousand million hours. "
                "Bars: best figures. Lines: bounds with every rate and every probability at its "
                "low, and at its high end; no confidence intervals.",
            ),
            "metrics": (
                figure_metrics(safety),
                "Single-point fault metric and latent fault metric with their bounds, beside the "
                "targets of ISO 26262-5:2018 for items of ASIL B, C and D.",
            ),
        },
        rows=metric_rows(safety),
        making=making,
        tables={
            FMEDA: [row.record() for row in safety.rows],
            "components": component_rows(safety),
        },
    )


def headline(safety: Safety) -> list[str]:
    """Return what dominates first, then the sums, then what they assume."""
    name, fit = next(iter(safety.by_component().items()))
    if safety.sdc_fit.best == 0:
        first = f"No component's best figure has silent wrong answers: {shown_fit(safety.sdc_fit)}."
    else:
        share = fit.best / safety.sdc_fit.best
        first = (
            f"{name.capitalize()} dominates: {shown_fit(fit)} of silent wrong answers, "
            f"{percent(share, 0)} of all {shown_fit(safety.sdc_fit)}."
        )
    assumed = total(row.sdc_fit for row in safety.counted if not row.outcome.behind_scheme)
    return [
        first,
        f"Of these, {shown_fit(assumed)} are faults that were not injected and are taken to end in "
        f"a wrong answer unless a code corrects them.",
        f"Detected and not repaired (DUE): {shown_fit(safety.due_fit)}; {safety.reaction}.",
        f"Contribution to PMHF over {safety.inputs.lifetime_h:,.0f} h: "
        f"{shown_fit(safety.pmhf_fit)}.",
        NOT_A_CERTIFICATE,
    ]


def metric_rows(safety: Safety) -> list[dict[str, str | float]]:
    """Return the metrics beside the targets of an item."""
    rows: list[dict[str, str | float]] = []
    for name, metric in safety.spfm.items():
        targets = [f"{target.spfm:.0%}" for target in TARGETS]
        rows.append(_row(f"SPFM, {name} faults", _percents(metric), targets))
    rows.append(
        _row("LFM, permanent faults", _percents(safety.lfm), [f"{t.lfm:.0%}" for t in TARGETS])
    )
    targets = [f"{target.pmhf_fit:g} FIT" for target in TARGETS]
    rows.append(_row("PMHF contribution", shown_fit(safety.pmhf_fit), targets))
    for name in ("raw", "sdc", "critical_sdc", "due", "residual", "dual_point"):
        fit = getattr(safety, f"{name}_fit")
        rows.append(_row(f"{name.replace('_', ' ')} rate", shown_fit(fit), ["", "", ""]))
    return rows


def _row(name: str, value: str, targets: Sequence[str]) -> dict[str, str | float]:
    named = {f"ASIL {each.asil}": text for each, text in zip(TARGETS, targets, strict=True)}
    return {"figure": name, "engine": value, **named}


def _percents(metric: Range | None) -> str:
    if metric is None:
        return "no faults"
    return f"{100 * metric.best:.1f} % [{100 * metric.low:.1f}, {100 * metric.high:.1f}]"


def component_rows(safety: Safety) -> list[dict[str, str | float]]:
    """Return the rates of each component, bounds included."""
    rates = ("raw_fit", "sdc_fit", "critical_sdc_fit", "due_fit", "violating_fit", "latent_fit")
    sums = {name: safety.by_component(name) for name in rates}
    return [
        {
            "component": component,
            **{
                f"{name}{end}": getattr(fits[component], place)
                for name, fits in sums.items()
                for end, place in (("_low", "low"), ("", "best"), ("_high", "high"))
            },
        }
        for component in sums["sdc_fit"]
    ]
