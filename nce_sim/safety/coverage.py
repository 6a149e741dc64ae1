"""What a protection scheme claims: the share of faults that it controls, and that it reports."""

from dataclasses import dataclass

MEASURED = "measured behind the scheme"


@dataclass(frozen=True)
class Coverage:
    """Diagnostic coverage of a scheme (ISO 26262-5:2018, annex D).

    `residual` is the share of faults that cannot violate the safety goal by themselves any more,
    `latent` the share of those that it masks of which somebody hears.
    """

    residual: float
    latent: float
    reason: str


def coverage_of(scheme: str, *, reports: bool = False) -> Coverage:
    """Return the coverages of a scheme."""
    if scheme in ("ideal",):
        return Coverage(1.0, 1.0, "ideal: assumed perfect")
    return Coverage(1.0, 1.0 if reports else 0.0, scheme)
