"""Policies from their configuration: the one place where kinds meet classes."""

from nce_sim.config import scenario as config
from nce_sim.runtime.observations import Policy
from nce_sim.runtime.policies.context import PolicyContext
from nce_sim.runtime.policies.custom import load_policy
from nce_sim.runtime.policies.deadline import Deadline
from nce_sim.runtime.policies.oracle import Oracle
from nce_sim.runtime.policies.power_cap import PowerCap
from nce_sim.runtime.policies.proportional_integral import ProportionalIntegral
from nce_sim.runtime.policies.static import Static
from nce_sim.runtime.policies.threshold import Threshold
from nce_sim.runtime.policies.tracking import Tracking

WATCHING = ("threshold", "tracking", "pi")
"""Kinds that go by the monitor's estimate; a custom policy says so itself."""


def build_policy(given: config.Policy, context: PolicyContext) -> Policy:
    """Return a policy as a scenario describes it.

    Raises InputError for what does not fit the grid, and as `load_policy` does.
    """
    match given:
        case config.StaticPolicy():
            return Static(context, fraction=given.fraction)
        case config.ThresholdPolicy():
            return Threshold(
                context, above=given.above, below=given.below, hold_requests=given.hold_requests
            )
        case config.TrackingPolicy():
            return Tracking(
                context, estimate=given.estimate, least_checks=given.least_checks,
                probe_requests=given.probe_requests,
            )  # fmt: skip
        case config.PowerCapPolicy():
            return PowerCap(context, margin=given.margin, window_requests=given.window_requests)
        case config.DeadlinePolicy():
            slack_cycles = round(given.slack_us * context.grid.clock_mhz)
            inner = Static(context, fraction=given.fraction)
            return Deadline(context, inner=inner, slack_cycles=slack_cycles)
        case config.PiPolicy():
            return ProportionalIntegral(
                context, setpoint=given.setpoint, proportional=given.proportional,
                integral_per_s=given.integral_per_s,
            )  # fmt: skip
        case config.OraclePolicy():
            return Oracle(context)
        case config.CustomPolicy():
            return load_policy(given.factory, context, given.options)


def start_point(given: config.Policy, context: PolicyContext) -> int:
    """Return the split that a mission begins with: a static one's own, else the most protected."""
    return context.point_of(given.fraction) if isinstance(given, config.StaticPolicy) else 0


def watches(given: config.Policy) -> bool:
    """Tell whether a policy goes by the monitor: only then its mission pays for the checks."""
    return given.checks if isinstance(given, config.CustomPolicy) else given.kind in WATCHING
