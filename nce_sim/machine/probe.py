"""What is recorded while the machine runs: spans on a timeline."""

from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

COMPUTE, LOAD, STORE = "compute", "wait for load", "wait for store"
VECTOR, SWITCH, BARRIER = "wait for vector unit", "fuse columns", "wait at barrier"
PORTS, FILL, RETRY = "wait for operand ports", "fill the pipeline", "repeat after a mismatch"

CAUSES = (COMPUTE, PORTS, FILL, RETRY, LOAD, STORE, VECTOR, SWITCH, BARRIER)
"""What an array does in each cycle: its lanes multiply, or it waits for one of these."""


class Span(NamedTuple):
    """Something that lasted from `start_cycle` to `end_cycle` on one resource.

    `what` is a cause on an array or a vector unit, "load" and "store" on a domain's ports, and the
    ports that are served on a channel. On the timeline COMPUTE includes PORTS, FILL and RETRY.
    `tile` is the tile's number within its layer and array, or -1.
    """

    resource: str
    what: str
    layer: str
    tile: int
    start_cycle: int
    end_cycle: int

    @property
    def domain_of_array(self) -> str | None:
        """The domain whose array this span is about; None for any other resource."""
        return _domain_of(self.resource)

    @property
    def cycles(self) -> int:
        """Length of the span."""
        return self.end_cycle - self.start_cycle


@cache
def _domain_of(resource: str) -> str | None:
    """Return the domain of an array's name; the resources of a machine are few."""
    domain, _, part = resource.partition(" ")
    return domain if part == "array" else None


@dataclass
class Timeline:
    """Spans in the order in which they ended; empty ones are not kept."""

    spans: list[Span] = field(default_factory=list)

    def add(
        self, resource: str, what: str, layer: str, tile: int, start_cycle: int, end_cycle: int
    ) -> None:
        """Record a span."""
        if end_cycle > start_cycle:
            self.spans.append(Span(resource, what, layer, tile, start_cycle, end_cycle))
