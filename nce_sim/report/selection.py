"""What of a result is shown where the whole would be too much: one split, the hardest faults."""

from nce_sim.faults.models import Dropout, FaultModel, GaussianNoise
from nce_sim.machine.engine import Run
from nce_sim.study.main_job import MainJobResult

FOCUS_FRACTION = 0.4
"""The split that the report looks at closely: the paper's 40 % of the neurons on PEs."""


def lead_method(result: MainJobResult) -> str:
    """Return the method whose splits the report looks at closely: LRP where it was run."""
    methods = result.plan.methods
    return "lrp" if "lrp" in methods else methods[0]


def focus_fraction(result: MainJobResult) -> float:
    """Return the fraction of the plan that is nearest to 0.4; of two, the smaller."""
    return min(sorted(result.plan.fractions), key=lambda f: abs(f - FOCUS_FRACTION))


def focus_run(result: MainJobResult) -> Run:
    """Return the run of the split that the report looks at closely."""
    return result.hardware_of(lead_method(result), focus_fraction(result))


def end_run(result: MainJobResult, fraction: float) -> Run | None:
    """Return the run at one end of the splits, if the plan holds it."""
    if fraction not in result.plan.fractions:
        return None
    return result.hardware_of(lead_method(result), fraction)


def dropouts(result: MainJobResult) -> list[FaultModel]:
    """Return the dropout levels, weakest first."""
    found = [fault for fault in result.faults if isinstance(fault, Dropout)]
    return sorted(found, key=lambda fault: fault.level)


def noises(result: MainJobResult) -> list[FaultModel]:
    """Return the noise levels, weakest first."""
    found = [fault for fault in result.faults if isinstance(fault, GaussianNoise)]
    return sorted(found, key=lambda fault: fault.level)


def hardest_faults(result: MainJobResult) -> list[FaultModel]:
    """Return the highest level of each kind of fault that was injected: dropout, then noise."""
    return [levels[-1] for levels in (dropouts(result), noises(result)) if levels]
