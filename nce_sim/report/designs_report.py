"""Competing designs at equal risk in words, figures and rows; and whether the table matters."""

from collections.abc import Sequence
from typing import Any

from nce_sim.report.designs_figure import figure_costs, figure_front
from nce_sim.report.study_page import StudyReport
from nce_sim.report.technology_figure import figure_matrix
from nce_sim.report.wording import SPACE, change, join, percent, points
from nce_sim.study.designs import NEURON
from nce_sim.study.equal_risk import RIVALS, DesignPoint, EqualRisk
from nce_sim.study.technology_choice import Corner, TechnologyChoice

MOST_FLIPS = 3
"""Single figures that are named in a sentence."""

EQUAL_WORDS = {
    "lanes": "as many lanes that compute neurons, and as many bytes of buffers",
    "area": "as much area of the chip, with the same bytes of buffers",
}


def designs_report(
    risk: EqualRisk, choice: TechnologyChoice, making: Sequence[tuple[str, str]]
) -> StudyReport:
    """Return the report of both studies."""
    return StudyReport(
        title=f"{risk.network}: competing designs at equal risk",
        lead=(
            f"What do designs cost where they give equally few silent errors? All are built from "
            f"{risk.base.config.name}, with {EQUAL_WORDS[risk.equal]}."
        ),
        headline=[*risk_headline(risk), *technology_headline(choice)],
        figures={
            "costs": (
                figure_costs(risk),
                "Each design's cheapest point that meets the target; hollow: its point of least "
                "risk, which is not shown to meet it. Bars: all figures of the technology table "
                "at one end of their range.",
            ),
            "front": (
                figure_front(risk),
                "All points of all grids, with intervals of the rate of silent errors. Hollow: "
                "PEs' buffers have no code. Triangles: no silent error was seen, and the upper end "
                "of the interval is drawn.",
            ),
            "technology": (
                figure_matrix(choice),
                "Energy of the engine that one table chooses, under another, against the best "
                "there.",
            ),
        },
        rows=[_short_row(risk, point) for point in risk.points],
        making=[*making, *_assumptions(risk, choice)],
        tables={
            "points": [full_row(risk, point) for point in risk.points],
            "technology": technology_rows(choice),
            "dropout": loss_rows(choice),
        },
    )


def risk_headline(risk: EqualRisk) -> list[str]:
    """Return the answer in sentences: first whether neuron granularity pays."""
    return [verdict(risk), _cheapest(risk), _target(risk)]


def verdict(risk: EqualRisk) -> str:
    """Return whether a split by neuron pays against coarser ones and TMR for everything."""
    mine = risk.chosen(NEURON)
    where = f"At {_fit(risk.target_fit)} of silent errors neuron granularity"
    if mine is None:
        return (
            f"{where} does not pay here: no split by neuron of this grid is shown to meet that "
            f"({_nearest(risk, NEURON)}); {join([_alone(risk, name) for name in RIVALS])}."
        )
    against = join([_against(risk, mine, name) for name in RIVALS])
    verb = "pays here" if risk.neuron_pays else "does not pay here"
    return (
        f"{where} {verb}: with {_place(mine)} it takes {_costs(mine)}; that is, {against}."
    )  # fmt: skip


def _against(risk: EqualRisk, mine: DesignPoint, name: str) -> str:
    """Return a comparison with a rival."""
    rival = risk.chosen(name)
    if rival is None:
        return f"against {_rival(name)}, which is not shown to meet it, nothing to compare"
    return (
        f"against {_rival(name)}{f' ({_place(rival)})' if rival.design.is_split else ''} "
        f"{change(mine.energy_uj.value, rival.energy_uj.value)} energy, "
        f"{change(mine.latency_us, rival.latency_us)} latency and "
        f"{change(mine.area_mm2.value, rival.area_mm2.value)} area"
    )


def _alone(risk: EqualRisk, name: str) -> str:
    """Return what a rival costs, or that it does not meet the target either."""
    point = risk.chosen(name)
    if point is None:
        return f"{_rival(name)} does not either ({_nearest(risk, name)})"
    place = f" with {_place(point)}" if point.design.is_split else ""
    return f"{_rival(name)} meets it{place} for {_costs(point)}"


def _nearest(risk: EqualRisk, name: str) -> str:
    """Return the lowest upper end among the points of a design that are fast enough."""
    points_of = [point for point in risk.of(name) if point.is_fast_enough]
    if not points_of:
        return "none is fast enough for the demand"
    return f"the lowest upper end is {_fit(min(point.sdc_fit.high for point in points_of))}"


def _rival(name: str) -> str:
    return {"channel": "a split by channel", "layer": "a split by layer"}.get(
        name, "TMR for everything"
    )


def _place(point: DesignPoint) -> str:
    """Return the choice of a point in words."""
    buffers = _BUFFERS[point.choice.pe_buffers]
    return f"{percent(point.fraction, 0)} on PEs and their buffers {buffers}"


def _costs(point: DesignPoint) -> str:
    return (
        f"{point.energy_uj.value:,.0f}{SPACE}uJ, {point.latency_us:,.0f}{SPACE}us and "
        f"{point.area_mm2.value:.2f}{SPACE}mm2"
    )


def _fit(rate: float) -> str:
    return f"{rate:.3g}{SPACE}FIT"


def _cheapest(risk: EqualRisk) -> str:
    """Return which design of all is cheapest at the target, and which do not meet it."""
    chosen = {each: risk.chosen(each.name) for each in risk.designs}
    meeting = [point for point in chosen.values() if point is not None]
    failing = [each.label for each, point in chosen.items() if point is None]
    if not meeting:
        return "No design of these is shown to meet that target: take more images, or a higher one."
    best = min(meeting, key=lambda point: point.cost(risk.minimise))
    text = f"Least {risk.minimise} of all at that target: {best.design.label}, {_costs(best)}."
    return text + (f" Not shown to meet it: {join(failing)}." if failing else "")


def _target(risk: EqualRisk) -> str:
    return (
        f"The target is {risk.target_reason}; 1 FIT is one silent error in 1e9 hours, at "
        f"{risk.demand.images_per_second:g} images a second and the raw rates of the technology "
        f"table ({risk.demand.rates})."
    )


def technology_headline(choice: TechnologyChoice) -> list[str]:
    """Return whether the best engine depends on the table."""
    usual = choice.answers[choice.best(0)]
    asked = f"For at most {100 * choice.most_lost:g} points of accuracy lost at {choice.dropout}, "
    found = []
    if len(choice.chosen) == 1:
        found.append(
            f"{asked}{usual.name} takes least energy under all {len(choice.tables)} tables."
        )
    else:
        regret, one, other = choice.largest_regret
        by_answer = [
            f"{choice.answers[place].name} with {join(_tables_of(choice, place))}"
            for place in choice.chosen
        ]
        found.append(
            f"{asked}the best engine depends on the technology table: {'; '.join(by_answer)}. "
            f"Choosing with {choice.tables[one].name} costs {percent(regret)} more energy at "
            f"{choice.tables[other].name}."
        )
    found.append(_corner_sentence(choice))
    return found


def _tables_of(choice: TechnologyChoice, answer: int) -> list[str]:
    """Return the names of the tables that choose an answer."""
    return [table.name for place, table in enumerate(choice.tables) if choice.best(place) == answer]


def _corner_sentence(choice: TechnologyChoice) -> str:
    own = choice.tables[0].name
    if choice.flips:
        named = sorted(choice.flips, key=lambda flip: -flip.saves)[:MOST_FLIPS]
        count = len(choice.flips)
        ends = "one end of a range changes" if count == 1 else f"{count} ends of ranges change"
        return (
            f"Of {choice.figures_tried} figures of {own}, {ends} the answer alone: "
            f"{'; '.join(_flip(each) for each in named)}."
        )
    if choice.corner is not None:
        return (
            f"No single figure of {own} changes the answer within its range; all "
            f"{choice.figures_tried} together, each where it hurts most, do: then "
            f"{choice.corner.answer.name} saves {percent(choice.corner.saves)}."
        )
    return (
        f"No corner of the ranges of {own} changes the answer: not even with all "
        f"{choice.figures_tried} figures where each hurts it most."
    )


def _flip(flip: Corner) -> str:
    ((figure, end),) = flip.ends.items()
    return f"{figure} {end} ({flip.answer.name}, saves {percent(flip.saves)})"


def _short_row(risk: EqualRisk, point: DesignPoint) -> dict[str, str | float]:
    rate, split = point.sdc_fit, point.design.is_split
    chosen = risk.chosen(point.design.name) is point
    return {
        "design": point.design.name,
        "on PEs (%)": f"{100 * point.fraction:.0f}" if split else "",
        "PE buffers": _BUFFERS[point.choice.pe_buffers] if split else "",
        "SDC (FIT)": f"{rate.value:.2g} [{rate.low:.1g}, {rate.high:.2g}]",
        "target": "chosen" if chosen else "met" if point.meets(risk.target_fit) else "no",
        "uJ": f"{point.energy_uj.value:,.0f}",
        "us": f"{point.latency_us:,.0f}",
        "mm2": f"{point.area_mm2.value:.2f}",
    }


_BUFFERS = {"none": "bare", "secded": "SECDED"}


def full_row(risk: EqualRisk, point: DesignPoint) -> dict[str, str | float]:
    """Return all figures of a point, flat."""
    measured, rate, one = point.risk, point.sdc_fit, point.risk.silent
    return {
        "design": point.design.name,
        "fraction": point.fraction,
        "pe_buffers": point.choice.pe_buffers,
        "lanes": point.lanes,
        "latency_us": point.latency_us,
        "energy_uj": point.energy_uj.value,
        "energy_low_uj": point.energy_uj.low,
        "energy_high_uj": point.energy_uj.high,
        "area_mm2": point.area_mm2.value,
        "area_low_mm2": point.area_mm2.low,
        "area_high_mm2": point.area_mm2.high,
        "idle_area_mm2": point.idle_mm2,
        "duty": point.duty,
        "raw_fit": measured.raw_fit,
        "open_fit": measured.open_fit,
        "faults_per_inference": measured.strikes,
        "inferences": measured.grouped.trials,
        "silent_errors": measured.grouped.successes,
        "confidence": measured.grouped.confidence,
        "p_silent": one.value,
        "p_silent_low": one.low,
        "p_silent_high": one.high,
        "sdc_fit": rate.value,
        "sdc_fit_low": rate.low,
        "sdc_fit_high": rate.high,
        "meets": int(point.meets(risk.target_fit)),
        "chosen": int(risk.chosen(point.design.name) is point),
    }


def technology_rows(choice: TechnologyChoice) -> list[dict[str, str | float]]:
    """Return the energy of each table's answer under each table."""
    rows: list[dict[str, str | float]] = []
    for one, table in enumerate(choice.tables):
        answer = choice.best(one)
        for other, built in enumerate(choice.tables):
            rows.append(
                {
                    "chosen_with": table.name,
                    "answer": choice.answers[answer].name,
                    "built_in": built.name,
                    "energy_uj": choice.energies_uj[other][answer],
                    "more_than_best": choice.regret(one, other),
                }
            )
    return rows


def loss_rows(choice: TechnologyChoice) -> list[dict[str, str | float]]:
    """Return the accuracy lost at each fraction, in points of a hundred."""
    return [
        {
            "fraction": loss.fraction,
            "lost_points": 100 * loss.lost.value,
            "lost_points_low": 100 * loss.lost.low,
            "lost_points_high": 100 * loss.lost.high,
            "allowed": int(loss.within(choice.most_lost)),
        }
        for loss in choice.losses
    ]


def _assumptions(risk: EqualRisk, choice: TechnologyChoice) -> list[tuple[str, str]]:
    idle = max(point.idle_mm2 for point in risk.points)
    lost = "; ".join(f"{loss.fraction:.0%}: {points(loss.lost)}" for loss in choice.losses[1:])
    slow = [
        f"{table.name} at most {limit:.0f} MHz" for table, limit in choice.slowed(risk.base)
    ]  # fmt: skip
    return [
        ("Faults", "single bit flips; one in an inference, whose rate is measured on groups"),
        ("Unused domain", f"one lane and the smallest buffers, {idle:.3f} mm2 at most"),
        ("Accuracy lost under dropout", lost),
        *([("Slower tables", ", ".join(slow))] if slow else []),
    ]


def summary(risk: EqualRisk, choice: TechnologyChoice) -> dict[str, Any]:
    """Return both studies as plain data."""
    return {
        "verdict": verdict(risk),
        "neuron_pays": risk.neuron_pays,
        "target_fit": risk.target_fit,
        "equal": risk.equal,
        "minimise": risk.minimise,
        "points": [full_row(risk, point) for point in risk.points],
        "answers": {
            table.name: choice.answers[choice.best(place)].name
            for place, table in enumerate(choice.tables)
        },
        "technology": technology_rows(choice),
        "dropout": loss_rows(choice),
        "flips": [{**flip.ends, "answer": flip.answer.name} for flip in choice.flips],
    }
