"""What is recorded while the machine runs: spans on a timeline."""

from dataclasses import dataclass, field

COMPUTE, LOAD, STORE, BARRIER = "compute", "wait for load", "wait for store", "wait at barrier"
CAUSES = (COMPUTE, LOAD, STORE, BARRIER)
"""What an array does in each cycle: it computes, or it waits for one of these."""


@dataclass(frozen=True, slots=True)
class Span:
    """Something that lasted from `start_cycle` to `end_cycle` on one resource.

    `what` is a cause of `CAUSES` on an array, or "load" and "store" on a domain's ports; `tile` is
    the tile's number within its layer and domain, or -1.
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
        domain, _, part = self.resource.partition(" ")
        return domain if part == "array" else None

    @property
    def cycles(self) -> int:
        """Length of the span."""
        return self.end_cycle - self.start_cycle


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
