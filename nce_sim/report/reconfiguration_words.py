"""What the missions of a scenario say in sentences, computed from the result."""

from nce_sim.report.policy_choice import (
    best_adaptive,
    best_static,
    cheapest,
    comparison,
    energy_uj,
    followed,
    keeps_target,
    of_kind,
)
from nce_sim.report.reconfiguration_rows import latency_us, shown_uj
from nce_sim.report.wording import SPACE, change, join, percent, points, with_interval
from nce_sim.runtime.monitor import Lag
from nce_sim.study.reconfiguration import Against, Played, Reconfiguration


def headline(study: Reconfiguration) -> list[str]:
    """Return the answer in sentences: what is cheapest, and whether adapting pays, come first."""
    return [
        _cheapest(study),
        verdict(study),
        *_against_all(study),
        *_regret(study),
        _lags(study),
        _surface(study),
        _latency(study),
    ]


def _cheapest(study: Reconfiguration) -> str:
    """Return which policy takes least energy among those that keep the quality target."""
    policies = followed(study)
    if not policies:
        return "No policy here is one that an engine could follow: there are bounds only."
    keeping = [each for each in policies if keeps_target(study, each)]
    target = (
        f"the quality target, {percent(study.goals.quality_target)} of right answers in every "
        f"{study.goals.window_requests:,} requests in a row"
    )
    best = cheapest(keeping)
    if best is None:
        least_bad = max(policies, key=lambda each: each.worst_window.value)
        return (
            f"No policy that an engine can follow keeps {target}: the best worst window is that of "
            f"{least_bad.name}, {with_interval(least_bad.worst_window)}; without faults "
            f"{with_interval(study.fault_free)} are right."
        )
    return (
        f"Of {len(policies)} policies that an engine can follow, {len(keeping)} "
        f"{'keeps' if len(keeping) == 1 else 'keep'} {target} (the interval of the worst window "
        f"reaches it). The cheapest that does is {best.name}: "
        f"{_energy(best)} an inference, {with_interval(best.worst_window)} in the worst window, "
        f"{percent(best.result.missed_share, 2)} of the deadlines missed."
    )


def verdict(study: Reconfiguration) -> str:
    """Return whether the best adaptive policy pays against the best static split, and by how much.

    It pays if it keeps the quality target, and takes less energy than every static split that does.
    Deadlines do not enter; they are named where any is missed.
    """
    adaptive, static = best_adaptive(study), best_static(study)
    if adaptive is None or static is None:
        missing = "adaptive policy" if adaptive is None else "static split"
        return f"Whether adapting pays is not told: the scenario has no {missing}."
    figures = f"{adaptive.name} takes {_difference(adaptive, static, comparison(study, static))}"
    mine, static_keeps = adaptive.name, keeps_target(study, static)
    of_static = "the cheapest static split that keeps the target" if static_keeps else (
        "the static split of least cost"
    )  # fmt: skip
    if not keeps_target(study, adaptive):
        other = "a static split does" if static_keeps else "no static split does, either"
        reason = f"{mine}, the best adaptive policy, does not keep the target; {other}"
    elif not static_keeps:
        reason = f"{mine} keeps the target and no static split does"
    else:
        reason = f"{mine} keeps the target as static splits do"
    pays = "pays" if adapting_pays(study) else "does not pay"
    text = f"Adapting {pays} here: {reason}; {figures}, {of_static}."
    late = [percent(each.result.missed_share, 2) for each in (adaptive, static)]
    if adaptive.result.counts["missed"] or static.result.counts["missed"]:
        text += f" Of the deadlines {mine} misses {late[0]}, {static.name} {late[1]}."
    return text


def adapting_pays(study: Reconfiguration) -> bool | None:
    """Return whether it does, as `verdict` means it; None if there is nothing to compare."""
    adaptive, static = best_adaptive(study), best_static(study)
    if adaptive is None or static is None:
        return None
    if not keeps_target(study, adaptive):
        return False
    return not keeps_target(study, static) or energy_uj(adaptive) < energy_uj(static)


def _difference(adaptive: Played, static: Played, found: Against | None) -> str:
    """Return energy and worst window of an adaptive policy beside those of a static split."""
    energy = change(energy_uj(adaptive), energy_uj(static))
    text = (
        f"{_energy(adaptive)} an inference with {with_interval(adaptive.worst_window)} in the "
        f"worst window, {energy} energy"
    )
    if found is not None:
        text += f" and {points(found.worst_window)} ({_told(found)})"
    return f"{text} against {static.name}"


def _told(found: Against) -> str:
    """Return whether the worst windows differ for certain."""
    if found.worst_window.low > 0:
        return "better"
    return "worse" if found.worst_window.high < 0 else "not told apart"


def _against_all(study: Reconfiguration) -> list[str]:
    """Return against how many of the static splits adapting wins, and in what."""
    if not study.against:
        return []
    told = [_told(each) for each in study.against]
    cheaper = sum(each.energy_share < 1 for each in study.against)
    beaten = [
        each.static
        for each, which in zip(study.against, told, strict=True)
        if each.energy_share >= 1 and which != "better"
    ]
    found = (
        f"On the same requests and faults {study.against[0].adaptive} takes less energy than "
        f"{cheaper} of {len(told)} static splits, and its worst window is better than that of "
        f"{told.count('better')} and worse than that of {told.count('worse')}, at the "
        f"{percent(study.against[0].worst_window.confidence, 0)} level."
    )
    if beaten:
        return [f"{found} It gains nothing over {join(beaten)}."]
    return [f"{found} It gains something over each of them."]


def _regret(study: Reconfiguration) -> list[str]:
    """Return how far from the optimum over the whole trace the best of each sort are."""
    if of_kind(study, "optimum") is None:
        return []
    sorts = (
        (best_adaptive(study), "the best adaptive policy"),
        (best_static(study), "the best static split"),
        (of_kind(study, "oracle"), "which knows the true rate, but not what switching costs"),
    )
    parts = [
        f"{each.name} ({what}) costs {100 * each.regret:+,.1f}{SPACE}%"
        for each, what in sorts
        if each is not None
    ]
    if not parts:
        return []
    return [
        f"Against the optimum, which knows the whole trace beforehand, and with answers short of "
        f"the target and missed deadlines priced as it prices them, {join(parts)}."
    ]


def _lags(study: Reconfiguration) -> str:
    """Return how late the monitor saw the largest steps of the rate."""
    if not study.lags:
        return "The rate makes no step of which the monitor's lag could be told."
    parts = [_lag(study, seconds, lag) for seconds, lag in study.lags.items()]
    return f"The monitor sees a step of the rate late: {join(parts)}."


def _lag(study: Reconfiguration, seconds: float, lag: Lag | None) -> str:
    when = f"that at {1e3 * seconds:.4g}{SPACE}ms"
    if lag is None:
        return f"{when} never"
    late_us = lag.cycles / study.grid.clock_mhz
    requests = "request" if lag.requests == 1 else "requests"
    return f"{when} after {lag.requests:,} {requests} ({late_us:,.0f}{SPACE}us)"


def _surface(study: Reconfiguration) -> str:
    """Return where the answers come from, and how wrong the surface is between its nodes."""
    surface, error = study.surface, study.surface.accuracy_error
    source = (
        "Answers are drawn from a measured surface of accuracy"
        if study.fast
        else "Each answer is an inference with the faults that struck it; policies and the "
        "optimum go by a measured surface of accuracy"
    )
    return (
        f"{source} ({len(surface.fractions)} splits at {len(surface.rates)} rates, "
        f"{surface.inferences:,} inferences each): at rates between those measured it is off by "
        f"{100 * error.mean:.2f}{SPACE}±{SPACE}{100 * error.mean_error:.2f}{SPACE}points on "
        f"average and {100 * error.largest:.2f}{SPACE}±{SPACE}{100 * error.largest_error:.2f} at "
        f"most."
    )


def _latency(study: Reconfiguration) -> str:
    """Return the latencies of the best policy beside what is asked, and the longest of all."""
    requests = study.scenario.requests
    best = best_adaptive(study) or best_static(study) or study.played[0]
    worst = max(followed(study) or study.played, key=lambda each: latency_us(each, "p9999"))
    included = "changes included" if study.fast else "changes and repeated waves included"
    text = (
        f"The deadline is {requests.deadline_us:g}{SPACE}us and the fault-tolerant time interval "
        f"{requests.fault_tolerant_time_us:g}{SPACE}us. Latency under {best.name}, {included}: p50 "
        f"{latency_us(best, 'p50'):,.1f}{SPACE}us, p99 {latency_us(best, 'p99'):,.1f}{SPACE}us, "
        f"p99.99 {latency_us(best, 'p9999'):,.1f}{SPACE}us, {_within(study, best)}."
    )
    if worst is not best:
        text += (
            f" The longest p99.99 is that of {worst.name}, "
            f"{latency_us(worst, 'p9999'):,.1f}{SPACE}us, {_within(study, worst)}."
        )
    answered = best.result.counts["answered"]
    if answered < 10_000:
        text += f" Of {answered:,} requests p99.99 is the longest latency."
    return text


def _within(study: Reconfiguration, played: Played) -> str:
    """Return what a policy's p99.99 keeps."""
    latency, requests = latency_us(played, "p9999"), study.scenario.requests
    if latency <= requests.deadline_us:
        return "within the deadline"
    if latency <= requests.fault_tolerant_time_us:
        return "beyond the deadline, within the fault-tolerant time interval"
    return "beyond the fault-tolerant time interval"


def _energy(played: Played) -> str:
    return f"{shown_uj(energy_uj(played))}{SPACE}uJ"


def _begin(text: str) -> str:
    return text[:1].upper() + text[1:]
