"""The sentences at the top of the page, computed from the result."""

from nce_sim.accuracy.statistics import Difference
from nce_sim.faults.models import Dropout, FaultModel
from nce_sim.machine.engine import Run
from nce_sim.report.selection import end_run, focus_fraction, hardest_faults, lead_method
from nce_sim.report.style import method_name
from nce_sim.report.wording import change, join, percent, points, with_interval
from nce_sim.study.main_job import MainJobResult


def headline(result: MainJobResult) -> list[str]:
    """Return what an architect wants to know first, a sentence or two each."""
    if result.no_better_than_guessing:
        return [*doubts(result), *_cost(result), *_worthwhile(result)]
    sentences = [_accuracy(result, fault) for fault in hardest_faults(result)]
    return [*doubts(result), *sentences, *_cost(result), *_worthwhile(result)]


def doubts(result: MainJobResult) -> list[str]:
    """Return why accuracies of this job should not be believed, a sentence each."""
    found = []
    if result.no_better_than_guessing:
        found.append(
            f"Accuracy says nothing here: fault-free it is {with_interval(result.fault_free)}, and "
            f"one and the same answer to all {result.fault_free.trials:,} images gives "
            f"{percent(result.guessing)}. Are the weights trained ones, and for these labels? "
            f"Latency, energy and area of a split of this size hold all the same; which neurons "
            f"matter does not."
        )
    if result.numbering_doubt is not None:
        doubt = result.numbering_doubt
        found.append(f"{doubt[0].upper()}{doubt[1:]}.")
    return found


def _accuracy(result: MainJobResult, fault: FaultModel) -> str:
    """Compare the methods under one fault at the split in focus."""
    lead, fraction = lead_method(result), focus_fraction(result)
    found = result.accuracy_of(lead, fraction, fault)
    sentence = (
        f"With {percent(fraction, 0)} of the neurons on PEs, chosen by {_in_sentence(lead)}, and "
        f"{in_words(fault)}, accuracy is {with_interval(found.correct)} against "
        f"{with_interval(found.fault_free)} fault-free"
    )
    others = [method for method in result.plan.methods if method != lead]
    compared = [
        f"{_in_sentence(method)} gives {with_interval(other.correct)} "
        f"({_compared(lead, method, found.minus(other))})"
        for method in others
        for other in [result.accuracy_of(method, fraction, fault)]
    ]
    return f"{sentence}; {join(compared)}." if compared else f"{sentence}."


def _in_sentence(method: str) -> str:
    """Return a method's name within a sentence."""
    name = method_name(method)
    return name if name.isupper() else name.lower()


def _compared(lead: str, other: str, difference: Difference) -> str:
    """Return the paired difference of two methods, and whether it may be none."""
    text = f"{_in_sentence(lead)} minus {_in_sentence(other)}: {points(difference)}"
    return f"{text}, not told apart" if difference.low <= 0 <= difference.high else text


def in_words(fault: FaultModel) -> str:
    """Return a fault with its level."""
    if isinstance(fault, Dropout):
        return f"dropout p = {fault.level:g}"
    return f"Gaussian noise sigma = {fault.level:g}"


def _cost(result: MainJobResult) -> list[str]:
    """Compare the split in focus with everything protected and everything unprotected."""
    lead, fraction = lead_method(result), focus_fraction(result)
    run = result.hardware_of(lead, fraction)
    energy_uj = run.energy.total_pj / 1e6
    sentence = (
        f"An inference at that split takes {run.latency_us:,.0f} us and {energy_uj:,.0f} uJ "
        f"[{run.energy.low_pj / 1e6:,.0f}, {run.energy.high_pj / 1e6:,.0f}] on {_machine(result)}"
    )
    compared = [
        f"everything {name} takes {end.latency_us:,.0f} us and {end.energy.total_pj / 1e6:,.0f} uJ"
        for name, end in (
            ("protected", end_run(result, 0.0)),
            ("unprotected", end_run(result, 1.0)),
        )
        if end is not None
    ]
    sentences = [f"{sentence}; {join(compared)}." if compared else f"{sentence}."]
    protected = end_run(result, 0.0)
    if protected is not None and fraction > 0:
        sentences.append(_against_protected(run, protected))
    return sentences


def _machine(result: MainJobResult) -> str:
    area = result.area
    return f"{result.machine.config.name} ({area.total_mm2:.2f} mm²)"


def _against_protected(run: Run, protected: Run) -> str:
    """Say plainly whether the split pays, and name the components that decide it."""
    more_energy = run.energy.total_pj > protected.energy.total_pj
    more_time = run.latency_cycles > protected.latency_cycles
    verdict = {
        (True, True): "The split costs more than protecting everything",
        (True, False): "The split costs more energy than protecting everything",
        (False, True): "The split saves energy but takes longer than protecting everything",
        (False, False): "The split costs no more than protecting everything",
    }[more_energy, more_time]
    changes = {
        name: (pj - protected.energy.by_component_pj[name]) / 1e6
        for name, pj in run.energy.by_component_pj.items()
    }
    most, least = max(changes, key=lambda n: changes[n]), min(changes, key=lambda n: changes[n])
    energy = change(run.energy.total_pj, protected.energy.total_pj)
    time = change(run.latency_cycles, protected.latency_cycles)
    sentence = f"{verdict}: energy {energy}, latency {time}."
    if changes[least] < 0:
        sentence += f" The largest saving is in {least} ({changes[least]:+,.0f} uJ)."
    if changes[most] > 0:
        sentence += f" The largest added cost is in {most} ({changes[most]:+,.0f} uJ)."
    return sentence


def _worthwhile(result: MainJobResult) -> list[str]:
    """Name the splits that save energy, and say whether any saves time."""
    protected = end_run(result, 0.0)
    if protected is None:
        return []
    lead = lead_method(result)
    runs = {
        fraction: result.hardware_of(lead, fraction)
        for fraction in sorted(result.plan.fractions)
        if fraction > 0
    }
    saving = [
        f"{percent(fraction, 0)} ({change(run.energy.total_pj, protected.energy.total_pj)})"
        for fraction, run in runs.items()
        if run.energy.total_pj < protected.energy.total_pj
    ]
    faster = [
        f"{percent(fraction, 0)} ({change(run.latency_cycles, protected.latency_cycles)})"
        for fraction, run in runs.items()
        if run.latency_cycles < protected.latency_cycles
    ]
    splits = f"Of the splits by {_in_sentence(lead)}, "
    energy = f"less energy than all protected: {join(saving)}" if saving else "none saves energy"
    time = f"faster: {join(faster)}" if faster else "none is faster than all protected"
    return [f"{splits}{energy}; {time}."]
