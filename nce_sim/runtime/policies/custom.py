"""A policy of the user's own, by the import path of its factory."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from nce_sim.errors import InputError
from nce_sim.runtime.observations import Observation, Policy
from nce_sim.runtime.policies.context import PolicyContext


class UsersPolicy:
    """A policy of which it is told, in one line, what goes wrong in it."""

    def __init__(self, path: str, policy: Policy) -> None:
        self.path, self.policy = path, policy

    def decide(self, seen: Observation) -> int:
        """Return what the policy decides; raise InputError if it fails."""
        try:
            return self.policy.decide(seen)
        except Exception as reason:
            raise InputError(
                f"policy '{self.path}': decide failed in cycle {seen.cycle:,}: {reason!r}"
            ) from reason


def load_policy(
    path: str, context: PolicyContext, options: Mapping[str, Any] | None = None
) -> Policy:
    """Return what the factory "package.module:factory" makes of (context, **options).

    Raises InputError, which names the path and the reason, if the module or the factory cannot be
    loaded, the factory fails, or what it returns has no `decide`.
    """
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise InputError(f"policy '{path}' must be given as package.module:factory")
    try:
        module = import_module(module_name)
    except Exception as reason:  # whatever the user's module does wrong when it is loaded
        raise InputError(f"policy '{path}': cannot import {module_name}: {reason!r}") from reason
    factory = getattr(module, name, None)
    if not callable(factory):
        what = "has no" if factory is None else "has something else than a function as"
        raise InputError(f"policy '{path}': module {module_name} {what} '{name}'")
    try:
        policy = factory(context, **(options or {}))
    except Exception as reason:
        raise InputError(f"policy '{path}': the factory failed: {reason!r}") from reason
    if not callable(getattr(policy, "decide", None)):
        raise InputError(
            f"policy '{path}': the factory returned a {type(policy).__name__}, which has no "
            "method decide(observation) -> index of the split"
        )
    return UsersPolicy(path, policy)
