"""What a sweep's page says of how it was made."""

from nce_sim.report.sweep_report import SweepDescription
from nce_sim.report.wording import join
from nce_sim.study.sweep import SweepResult
from nce_sim.study.worker import versions


def describe_sweep(result: SweepResult, configuration: str) -> SweepDescription:
    """Return the description of a finished study; `configuration` is the text of its file."""
    study = result.study
    return SweepDescription(
        study.name, study.description.strip(), tuple(making_of(result)), configuration
    )


def making_of(result: SweepResult) -> list[tuple[str, str]]:
    """Return names and values of what a study was made with."""
    networks = {each.network.name: each.network.identity for each in result.points}
    machines = {
        (each.machine.name, each.machine.identity): None
        for each in result.points
        if each.machine is not None
    }
    inputs = {name: value for each in result.points for name, value in each.inputs}
    seeds = sorted({each.seed for each in result.points})
    return [
        ("Versions", ", ".join(versions())),
        ("Seeds" if len(seeds) > 1 else "Seed", join([str(seed) for seed in seeds])),
        *(("Network", f"{name}, {identity}") for name, identity in networks.items()),
        *_machines(list(machines)),
        *((f"{name[0].upper()}{name[1:]}", value) for name, value in sorted(inputs.items())),
    ]


MOST_MACHINES = 8


def _machines(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return a line a machine; many are variants of a few, which the table tells apart."""
    if len(found) <= MOST_MACHINES:
        return [("Machine", f"{name}, {identity}") for name, identity in found]
    names = list(dict.fromkeys(name for name, _ in found))
    return [("Machines", f"{len(found):,} variants of {join(names)}")]
