"""Energy of one inference: activity counts times energy per action, plus leakage over time."""

from collections.abc import Mapping
from dataclasses import dataclass

from nce_sim.config.machine import BufferConfig, Machine
from nce_sim.config.technology import BYTES_BY_FORMAT, Figure, Technology
from nce_sim.cost.activity import Activity, DomainActivity
from nce_sim.cost.area import HALVES, WORD_BITS, Area, buffer_srams, codec_of
from nce_sim.cost.sram import WORD_BYTES
from nce_sim.protection.schemes import MEMORY_SCHEMES

PJ_PER_MW_US = 1e3
"""One milliwatt for one microsecond, in picojoules."""


@dataclass(frozen=True)
class Energy:
    """Energy of one inference by component.

    `low_pj` and `high_pj` take every figure of the technology table at the end of its range.
    """

    by_component_pj: Mapping[str, float]
    low_pj: float
    high_pj: float

    @property
    def total_pj(self) -> float:
        """Sum of the components."""
        return sum(self.by_component_pj.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {pj / 1e6:.1f}" for name, pj in self.by_component_pj.items())
        return (
            f"{self.total_pj / 1e6:.1f} uJ [{self.low_pj / 1e6:.1f}, "
            f"{self.high_pj / 1e6:.1f}]: {parts}"
        )


def energy(machine: Machine, activity: Activity, area: Area) -> Energy:
    """Return the energy of the inference that `activity` counts, on a machine of that area."""
    nominal, low, high = (_components(machine, activity, area, e) for e in ("value", "low", "high"))
    return Energy(nominal, sum(low.values()), sum(high.values()))


def _components(machine: Machine, activity: Activity, area: Area, end: str) -> dict[str, float]:
    technology, config = machine.technology, machine.config

    def figure(of: Figure) -> float:
        return float(getattr(of, end))

    parts: dict[str, float] = {}
    leakage_mw = area.logic_mm2 * figure(technology.logic_leakage_mw_per_mm2)
    for name, domain in config.domains.items():
        done = activity.domains[name]
        parts[f"{name} lanes"] = _lanes_pj(machine, done, end)
        parts[f"{name} buffers"] = _buffers_pj(domain.buffers, technology, done, end)
        parts[f"{name} vector unit"] = done.vector_elements * figure(technology.vector_element_pj)
        leakage_mw += _buffer_leakage_mw(domain.buffers, technology)
    length_mm = config.bus.length_factor * area.side_mm
    parts["bus"] = activity.bus_bytes * length_mm * figure(technology.bus_pj_per_byte_mm)
    parts["external memory"] = activity.memory_bytes * figure(technology.memory_pj_per_byte)
    codec = codec_of(technology, config.memory.protected_scheme)
    if codec is not None:
        parts["external memory"] += activity.memory_words_read * figure(codec.decode_pj)
        parts["external memory"] += activity.memory_words_written * figure(codec.encode_pj)
    parts["controller"] = activity.tiles * figure(technology.controller_tile_pj)
    parts["controller"] += activity.latency_cycles * figure(technology.controller_cycle_pj)
    latency_us = activity.latency_cycles / config.clock_mhz
    parts["leakage"] = leakage_mw * latency_us * PJ_PER_MW_US
    return parts


def _lanes_pj(machine: Machine, done: DomainActivity, end: str) -> float:
    """Multiply-accumulates with their registers, and votes.

    Each multiply-accumulate reads and writes a 32-bit accumulator and latches two operands.
    """
    technology, number_format = machine.technology, machine.config.number_format
    operand_bits = 8 * BYTES_BY_FORMAT[number_format]
    registers = 2 + 2 * operand_bits / 32
    mac_pj = float(getattr(technology.mac[number_format].energy_pj, end))
    register_pj = float(getattr(technology.register_32bit_access_pj, end))
    vote_pj = float(getattr(technology.voter_32bit_pj, end))
    return done.lane_macs * (mac_pj + registers * register_pj) + done.votes * vote_pj


def _buffers_pj(
    buffers: BufferConfig, technology: Technology, done: DomainActivity, end: str
) -> float:
    """Reads and writes of the local buffers, wider words and codecs included."""
    srams = buffer_srams(buffers, technology)
    read = {
        "input": done.input_read_bytes,
        "weight": done.weight_read_bytes,
        "output": done.output_bytes,
        "resident": done.resident_read_bytes,
    }
    written = {
        "input": done.input_written_bytes,
        "weight": done.weight_written_bytes,
        "output": done.output_bytes,
        "resident": done.resident_written_bytes,
    }
    cells = sum(
        read[name] * sram.read_pj_per_byte + written[name] * sram.write_pj_per_byte
        for name, sram in srams.items()
    )
    total = cells * MEMORY_SCHEMES[buffers.scheme].storage_factor(WORD_BITS)
    codec = codec_of(technology, buffers.scheme)
    if codec is not None:
        total += sum(read.values()) / WORD_BYTES * float(getattr(codec.decode_pj, end))
        total += sum(written.values()) / WORD_BYTES * float(getattr(codec.encode_pj, end))
    return total


def _buffer_leakage_mw(buffers: BufferConfig, technology: Technology) -> float:
    srams = buffer_srams(buffers, technology)
    cells = sum(HALVES[name] * sram.leakage_mw for name, sram in srams.items())
    return cells * MEMORY_SCHEMES[buffers.scheme].storage_factor(WORD_BITS)
