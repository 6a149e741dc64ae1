"""What is said of one simulated split: plain data, and rows of tables for terminal and page."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from nce_sim.machine.engine import Run
from nce_sim.machine.probe import CAUSES
from nce_sim.report.wording import percent
from nce_sim.resilience.split import Split
from nce_sim.schedule.domains import DOMAINS
from nce_sim.study.bottleneck import Bottleneck
from nce_sim.study.protection_share import ProtectionShare


@dataclass(frozen=True)
class RunReport:
    """One run of a network's split; `bottleneck` and what is protected if they were asked for.

    `objective` is what the ranking of the split weighs damage against.
    """

    network: str
    split: Split
    run: Run
    bottleneck: Bottleneck | None = None
    objective: str = "neurons"
    protection: ProtectionShare | None = None

    @property
    def title(self) -> str:
        """Network, machine and split in a few words."""
        share = percent(self.split.unprotected_fraction, 0)
        return f"{self.network} on {self.run.machine.config.name}, {share} of the neurons on PEs"


class Row(NamedTuple):
    """A line of a table: its name and its cells as text."""

    name: str
    cells: tuple[str, ...]


class Table(NamedTuple):
    """A table: its title, the headings of names and cells, and its lines."""

    title: str
    headings: tuple[str, ...]
    rows: list[Row]


def summary(report: RunReport) -> dict[str, Any]:
    """Return plain data that JSON can hold, units in the names."""
    split, bottleneck, protection = report.split, report.bottleneck, report.protection
    found: dict[str, Any] = {
        "network": report.network,
        "granularity": split.granularity,
        "asked_fraction": split.asked_fraction,
        "unprotected_fraction": split.unprotected_fraction,
        **report.run.summary(),
    }
    if protection is not None:
        found["objective"] = report.objective
        found["protected"] = asdict(protection)
    if bottleneck is not None:
        found["bottleneck"] = {
            "largest": str(bottleneck),
            "gains": [asdict(gain) for gain in bottleneck.gains],
            "refused": list(bottleneck.refused),
        }
    return found


def timeline_csv(run: Run) -> str:
    """Return the timeline as CSV, one span a line, times in cycles."""
    lines = ["resource,what,layer,tile,start_cycle,end_cycle"]
    lines += [
        f"{span.resource},{span.what},{span.layer},{span.tile},{span.start_cycle},{span.end_cycle}"
        for span in run.timeline
    ]
    return "\n".join(lines) + "\n"


def headline(report: RunReport) -> list[str]:
    """Return split, latency, throughput, energy and area, and the bottleneck, a sentence each."""
    run = report.run
    images = run.program.batch
    batch = "" if images == 1 else f" for a batch of {images} images"
    low, high = (pj / 1e6 / images for pj in (run.energy.low_pj, run.energy.high_pj))
    sentences = [
        f"{report.split}; {run.mac_share_unprotected:.2%} of the MACs",
        f"latency {run.latency_cycles:,} cycles = {run.latency_us:,.1f} us{batch} at "
        f"{run.machine.config.clock_mhz:g} MHz; {run.images_per_second:,.1f} images/s",
        f"energy per image {run.energy_per_image_pj / 1e6:,.1f} uJ [{low:,.1f}, {high:,.1f}]; "
        f"area {run.area.total_mm2:.2f} mm2 [{run.area.low_mm2:.2f}, {run.area.high_mm2:.2f}]",
    ]
    sentences += [
        f"the {domain} domain's supply: {point}; its faults are injected by nce-sim inject"
        for domain, point in run.machine.operating_points().items()
    ]
    if report.protection is not None:
        sentences.append(f"objective: {report.objective}; {report.protection}")
    if report.bottleneck is not None:
        sentences.append(f"bottleneck: {report.bottleneck}")
    return sentences


def tables(report: RunReport) -> list[Table]:
    """Return where the cycles went, what moved, what it cost, and what the bottleneck is."""
    run = report.run
    arrays = [heading for domain in DOMAINS for heading in (f"{domain}\ncycles", "share")]
    found = [
        Table("Cycles of each array by cause", ("cause", *arrays), cause_rows(run)),
        Table("Data", ("what", "KiB an image"), data_rows(run)),
        Table("Cost", ("component", "energy\nuJ an image", "area\nmm2"), cost_rows(run)),
    ]
    if report.bottleneck is not None:
        gains = gain_rows(report.bottleneck)
        title = "What more of a resource gains"
        found.append(Table(title, ("change", "latency\ncycles", "gain"), gains))
    return found


def cause_rows(run: Run) -> list[Row]:
    """Return each array's cycles and share by cause; those that never happen are left out."""
    rows = []
    for cause in CAUSES:
        cycles = [run.cycles_by_cause[domain][cause] for domain in DOMAINS]
        if any(cycles):
            rows.append(Row(cause, _with_shares(cycles, run.latency_cycles)))
    rows.append(Row("total", _with_shares([run.latency_cycles] * 2, run.latency_cycles)))
    useful = [("", percent(run.utilisation(domain))) for domain in DOMAINS]
    rows.append(Row("useful lane-cycles", (*useful[0], *useful[1])))
    return rows


def _with_shares(cycles: list[int], whole: int) -> tuple[str, ...]:
    return tuple(text for each in cycles for text in (f"{each:,}", percent(each / whole)))


def data_rows(run: Run) -> list[Row]:
    """Return what moved in KiB an image, and what else the machine did."""
    counts = run.counts
    moved = {
        "over the bus": counts.bus_bytes,
        "external memory": counts.memory_bytes,
        "crossings between the domains": counts.crossing_bytes,
        "spilled outputs": counts.spilled_bytes,
        "protection map": counts.map_bytes,
    }
    rows = [Row(name, (f"{size / 1024 / run.program.batch:,.1f}",)) for name, size in moved.items()]
    busy = run.bus.busy_cycles / run.latency_cycles
    rows.append(Row("bus busy (% of the time)", (f"{100 * busy:.1f}",)))
    overflow = sum(domain.overflow_neurons for domain in counts.domains.values())
    repeated = sum(domain.repeated_waves for domain in counts.domains.values())
    for name, count in (
        ("unprotected neurons on PPEs", overflow),
        ("waves repeated after a mismatch", repeated),
        ("changes of the fusing", counts.switches),
    ):
        if count:
            rows.append(Row(name, (f"{count:,}",)))
    return rows


def cost_rows(run: Run) -> list[Row]:
    """Return energy of an image and area by component, then totals and their ranges."""
    images = run.program.batch
    energies, areas = run.energy.by_component_pj, run.area.by_component_mm2
    rows = [
        Row(
            name,
            (
                f"{energies[name] / 1e6 / images:,.2f}" if name in energies else "",
                f"{areas[name]:.4f}" if name in areas else "",
            ),
        )
        for name in dict.fromkeys([*energies, *areas])
    ]
    total = f"{run.energy_per_image_pj / 1e6:,.2f}", f"{run.area.total_mm2:.4f}"
    low = f"{run.energy.low_pj / 1e6 / images:,.1f}", f"{run.area.low_mm2:.2f}"
    high = f"{run.energy.high_pj / 1e6 / images:,.1f}", f"{run.area.high_mm2:.2f}"
    return [*rows, Row("total", total), Row("range, from", low), Row("range, to", high)]


def gain_rows(bottleneck: Bottleneck) -> list[Row]:
    """Return every change and what it gains, the largest first."""
    rows = [
        Row(each.what, (f"{each.latency_cycles:,}", percent(each.gain)))
        for each in bottleneck.gains
    ]
    return [*rows, *(Row(what, ("impossible", "")) for what in bottleneck.refused)]
