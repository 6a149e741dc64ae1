"""Where the machines, models, traces and data that travel with the package lie."""

from pathlib import Path

from nce_sim.errors import InputError

PACKAGE = Path(__file__).resolve().parent.parent


def bundled(folder: str) -> Path:
    """Return a bundled folder, such as "hw_configs", "models", "traces" or "scenarios".

    A wheel carries them inside the package; a checkout has them beside it.
    """
    for candidate in (PACKAGE / "bundled" / folder, PACKAGE.parent / folder):
        if candidate.is_dir():
            return candidate
    raise InputError(f"nce-sim is installed without its folder '{folder}/': install it again")


def unknown_name(kind: str, given: str, known: list[str]) -> InputError:
    """Return the error for a name that is neither bundled nor a path."""
    return InputError(
        f"unknown {kind} '{given}': bundled are {', '.join(sorted(known))}; "
        f"'nce-sim list' describes them, and a path works too"
    )
