"""What limits a run: the same split on machines with twice as much of one resource each.

Each machine is planned and simulated anew. More of a resource may change the tiles, so that a gain
can be negative.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil

from pydantic import ValidationError

from nce_sim.config.machine import Machine
from nce_sim.config.machine_schema import MachineConfig
from nce_sim.errors import InputError
from nce_sim.machine.engine import Network, Run, simulate
from nce_sim.resilience.split import Split
from nce_sim.schedule.domains import DOMAINS

LEAST_GAIN = 0.01
"""Below this share of the latency nothing counts as the bottleneck."""

DOUBLE_BUFFERS = ("buffers.input_bytes", "buffers.weight_bytes", "buffers.output_bytes")
"""What bounds a tile: both halves of each."""

Changes = Mapping[str, float]
"""Values by the path of their field, as "bus.bytes_per_cycle"."""


@dataclass(frozen=True)
class Candidate:
    """One change of a machine; `parts` is how many resources it changes."""

    what: str
    changes: Changes
    parts: int = 1


@dataclass(frozen=True)
class Gain:
    """What a change brings: the share of the latency that it saves."""

    what: str
    parts: int
    latency_cycles: int
    gain: float


@dataclass(frozen=True)
class Bottleneck:
    """All changes, the one that gains most first; `refused` do not make a machine that works."""

    latency_cycles: int
    gains: tuple[Gain, ...]
    refused: tuple[str, ...]

    @property
    def largest(self) -> Gain:
        """The resource that gains most; several at once only if they gain a hundredth more."""
        single = max((g for g in self.gains if g.parts == 1), key=lambda each: each.gain)
        return self.gains[0] if self.gains[0].gain > single.gain + LEAST_GAIN else single

    def __str__(self) -> str:
        largest = self.largest
        if largest.gain <= LEAST_GAIN:
            return (
                f"no resource by itself limits the run: the most is {largest.gain:.1%} by "
                f"{largest.what}"
            )
        return (
            f"{largest.what} gains {largest.gain:.1%} "
            f"({self.latency_cycles:,} to {largest.latency_cycles:,} cycles)"
        )


def find_bottleneck(
    network: Network,
    split: Split,
    run: Run,
    *,
    mismatch_rate: float = 0.0,
    seed: int = 0,
    begin: Callable[[str, int], Callable[[int], None]],
) -> Bottleneck:
    """Simulate `split` on every changed machine and compare the latencies with that of `run`.

    Batch, rate of mismatches and seed are those of the run. `begin` is told what begins and in how
    many steps; it returns the function that is told the steps done.
    """
    every = candidates(run.machine.config)
    advance = begin("looking for the bottleneck", len(every))
    gains, refused = [], []
    for number, candidate in enumerate(every, 1):
        try:
            changed = simulate(
                network, changed_machine(run.machine, candidate.changes), split,
                batch=run.program.batch, mismatch_rate=mismatch_rate, seed=seed, like=run,
            )  # fmt: skip
        except (InputError, ValidationError):
            refused.append(candidate.what)
        else:
            gain = 1 - changed.latency_cycles / run.latency_cycles
            gains.append(Gain(candidate.what, candidate.parts, changed.latency_cycles, gain))
        advance(number)
    gains.sort(key=lambda each: -each.gain)
    return Bottleneck(run.latency_cycles, tuple(gains), tuple(refused))


def candidates(config: MachineConfig) -> list[Candidate]:
    """Return all changes that make sense for a machine."""
    bus, memory = _bus(config), _doubled(config, "memory.bytes_per_cycle")
    found = [
        *_lanes(config),
        *_operand_ports(config),
        Candidate("doubling the bus bandwidth", bus),
        Candidate("doubling the memory bandwidth", memory),
        Candidate("doubling the bandwidths of bus and memory", {**bus, **memory}, parts=2),
        Candidate("halving the memory latency", _halved(config, "memory.latency_cycles")),
        Candidate(
            "doubling the outstanding memory requests",
            _doubled(config, "memory.outstanding_requests"),
        ),
        *_buffers(config),
        Candidate("doubling the vector units", _of_both(config, "vector_lanes")),
        Candidate(
            "halving the controller's cycles",
            _halved(config, "controller.cycles_per_tile", "controller.cycles_per_barrier"),
        ),
    ]
    return [each for each in found if each.changes]


def changed_machine(machine: Machine, changes: Changes) -> Machine:
    """Return a machine with other values of some fields.

    Raises ValidationError if they do not suit the machine.
    """
    content = machine.config.model_dump()
    for path, value in changes.items():
        *sections, last = path.split(".")
        place = content
        for section in sections:
            place = place[section]
        place[last] = value
    if machine.config.fabric is not None:
        for domain in DOMAINS:
            del content[domain]["array"]
    return machine.model_copy(update={"config": MachineConfig.model_validate(content)})


def _value(config: MachineConfig, path: str) -> float:
    place: object = config
    for part in path.split("."):
        place = getattr(place, part)
    assert isinstance(place, int | float)
    return place


def _doubled(config: MachineConfig, *paths: str) -> Changes:
    return {path: 2 * _value(config, path) for path in paths}


def _halved(config: MachineConfig, *paths: str) -> Changes:
    """Return whole cycles halved; what takes none stays."""
    return {path: int(_value(config, path)) // 2 for path in paths if _value(config, path)}


def _of_both(config: MachineConfig, *fields: str) -> Changes:
    return _doubled(config, *(f"{domain}.{field}" for domain in DOMAINS for field in fields))


def _lanes(config: MachineConfig) -> Iterator[Candidate]:
    """Yield more columns, each with the weight words that it had; wide ones need buffers, too."""
    buffers = _of_both(config, *DOUBLE_BUFFERS)
    if config.fabric is not None:
        every = _doubled(config, "fabric.columns", "fabric.clusters")
        yield Candidate("doubling the columns of the fabric", every)
        yield Candidate("doubling columns and tile buffers", {**every, **buffers}, parts=2)
        return
    fields = ("array.columns", "array.weight_words")
    for domain in DOMAINS:
        own = _doubled(config, *(f"{domain}.{field}" for field in fields))
        yield Candidate(f"doubling the {domain} lanes", own)
    every = _of_both(config, *fields)
    yield Candidate("doubling the lanes of both arrays", every, parts=2)
    yield Candidate("doubling all lanes and tile buffers", {**every, **buffers}, parts=3)


def _operand_ports(config: MachineConfig) -> Iterator[Candidate]:
    """Yield wider ports from the buffers to the lanes; those of a systolic array never wait."""
    if config.dataflow == "systolic_os":
        return
    if config.fabric is not None:
        fields = {
            "activation ports": "fabric.activation_words_per_row",
            "weight ports": "fabric.weight_words_per_column",
        }
        for name, field in fields.items():
            yield Candidate(f"doubling the {name} of the fabric", _doubled(config, field))
        return
    for domain in DOMAINS:
        for name in ("activation", "weight"):
            own = _doubled(config, f"{domain}.array.{name}_words")
            yield Candidate(f"doubling the {name} port of the {domain} array", own)


def _bus(config: MachineConfig) -> Changes:
    """Return a bus twice as wide, and the quantum that it needs at least."""
    width = 2 * config.bus.bytes_per_cycle
    quantum = max(config.bus.quantum_bytes, ceil(width))
    return {"bus.bytes_per_cycle": width, "bus.quantum_bytes": quantum}


def _buffers(config: MachineConfig) -> Iterator[Candidate]:
    ports = _of_both(config, "buffers.port_bytes_per_cycle")
    yield Candidate("doubling the ports of the resident buffers", ports)
    yield Candidate("doubling the tile buffers", _of_both(config, *DOUBLE_BUFFERS))
    yield Candidate("doubling the resident buffers", _of_both(config, "buffers.resident_bytes"))
