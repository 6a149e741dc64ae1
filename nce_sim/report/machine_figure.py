"""The simulated machine as a block diagram, in the manner of Fig. 2 of the paper."""

from dataclasses import dataclass, replace
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from nce_sim.config.machine import Machine
from nce_sim.config.machine_schema import (
    ArrayConfig,
    BufferConfig,
    FabricConfig,
    MachineConfig,
    MemoryConfig,
)
from nce_sim.report.style import DOMAIN_COLOURS, SMALL, WIDTH_INCHES, new_figure, styled
from nce_sim.schedule.domains import DOMAINS, PROTECTED

NEUTRAL = "#444444"
SCHEME_NAMES = {
    "none": "not protected",
    "ideal": "ideally protected",
    "tmr": "TMR",
    "dmr_retry": "DMR with retries",
    "temporal_dmr": "temporal DMR",
    "temporal_tmr": "temporal TMR",
    "parity": "parity",
    "residue": "residues",
    "abft": "checksums (ABFT)",
    "secded": "SECDED",
}

WIDTH = 100.0
"""Width of the blocks in the diagram's units; a text of 70 small characters fits."""

MARGIN = 3.5
"""Beside the blocks on either side; the controller's way to the bus runs there."""

TITLE, LINE, PADDING, GAP = 5.4, 2.75, 1.4, 3.6
"""Heights of a block's title, of a line of its text, below the text, and between blocks."""


@dataclass(frozen=True)
class Block:
    """A box of the diagram with a title and lines of text."""

    title: str
    lines: tuple[str, ...]
    colour: str = NEUTRAL
    left: float = 0.0
    bottom: float = 0.0
    width: float = WIDTH
    inside: float = 0.0

    @property
    def height(self) -> float:
        """Room for title and lines, and for blocks inside."""
        return TITLE + LINE * len(self.lines) + PADDING + self.inside

    @property
    def middle(self) -> float:
        """Horizontal centre."""
        return self.left + self.width / 2

    @property
    def top(self) -> float:
        """Upper edge."""
        return self.bottom + self.height


@styled
def figure_machine(machine: Machine) -> Figure:
    """Return the block diagram of a machine with its sizes, rates and schemes."""
    rows = _place(_rows(machine.config))
    config = machine.config
    top = rows[0][0].top
    figure = new_figure(
        0.5 + (top + 1) * WIDTH_INCHES / (WIDTH + 2 * MARGIN + 1),
        f"{config.name}: {config.clock_mhz:g} MHz, {config.number_format}, "
        f"{machine.technology.node_nm:g} nm",
    )
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(-MARGIN, WIDTH + MARGIN)
    axes.set_ylim(-0.5, top + 0.5)
    for row in rows:
        for block in row:
            _draw(axes, block)
    _draw_arrows(axes, rows)
    return figure


def _rows(config: MachineConfig) -> list[list[Block]]:
    """Return the blocks by row from the top: blocks of a row stand side by side."""
    arrays = [_array(config, domain) for domain in DOMAINS]
    regions = [_region(config.memory, domain) for domain in DOMAINS]
    memory = Block(
        "External memory", _memory_lines(config.memory), inside=regions[0].height + PADDING
    )
    rows = [
        [Block("Controller", _controller_lines(config))],
        arrays,
        [_buffers(config.domains[domain].buffers, domain) for domain in DOMAINS],
        [Block("Data bus", _bus_lines(config))],
        [memory, *regions],
    ]
    if config.fabric is not None:
        inside = max(array.height for array in arrays) + PADDING
        rows[1] = [Block("Fabric", _fabric_lines(config.fabric), inside=inside), *arrays]
    return rows


def _place(rows: list[list[Block]]) -> list[list[Block]]:
    """Stack the rows; of three blocks, the last two stand inside the first."""
    bottom = 0.0
    placed = []
    for row in reversed(rows):
        outer, inner = (row[:1], row[1:]) if len(row) == 3 else ([], row)
        inset = PADDING if outer else 0.0
        width = WIDTH if len(inner) == 1 else (WIDTH - 3.0) / 2 - inset
        found = [replace(block, bottom=bottom) for block in outer]
        for number, block in enumerate(inner):
            left = inset + number * (WIDTH - 2 * inset - width)
            found.append(replace(block, left=left, bottom=bottom + inset, width=width))
        placed.append(found)
        bottom = max(block.top for block in found) + GAP
    return placed[::-1]


def _controller_lines(config: MachineConfig) -> tuple[str, ...]:
    controller = config.controller
    stored = {"duplicate": "stored in both regions", "protected_only": "stored once, protected"}
    overflow = "may take" if config.overflow else "take no"
    return (
        f"reads the protection map; {controller.cycles_per_tile} cycles a tile, "
        f"{controller.cycles_per_barrier} a barrier",
        f"{_dataflow(config)}; idle PPEs {overflow} unprotected neurons",
        f"maps {'packed' if config.layout == 'packed' else 'with holes'}; "
        f"weights that both domains use {stored[config.weights]}",
    )


def _dataflow(config: MachineConfig) -> str:
    names = {"broadcast": "broadcast dataflow", "systolic_os": "systolic, output-stationary"}
    return names[config.dataflow]


def _fabric_lines(fabric: FabricConfig) -> tuple[str, ...]:
    when = (
        f"anew between layers in {fabric.switch_cycles} cycles"
        if fabric.fuse_per_layer
        else "once for all layers"
    )
    return (
        f"{fabric.rows} x {fabric.columns} PEs; {fabric.cluster_columns} columns fuse into one "
        f"column of PPEs",
        f"{fabric.clusters} of {fabric.most_clusters} clusters fused, as shown; {when}",
    )


def _array(config: MachineConfig, domain: str) -> Block:
    array, is_protected = config.domains[domain].array, domain == PROTECTED
    return Block(
        "PPE array" if is_protected else "PE array",
        _array_lines(array, config.domains[domain].vector_lanes),
        DOMAIN_COLOURS[domain],
    )


def _array_lines(array: ArrayConfig, vector_lanes: int) -> tuple[str, ...]:
    return (
        f"{array.rows} x {array.columns} = {array.lanes} lanes, {_in_words(array.scheme)}",
        f"{array.macs_per_cycle} MAC/cycle and lane; fill: {array.pipeline_cycles} cycles",
        f"words/cycle: {array.activation_words} inputs, {array.weight_words} weights",
        f"vector unit: {vector_lanes} elements/cycle",
    )


def _buffers(buffers: BufferConfig, domain: str) -> Block:
    lines = (
        f"input 2 x {_size(buffers.input_bytes)}, weight 2 x {_size(buffers.weight_bytes)}",
        f"output 2 x {_size(buffers.output_bytes)}, resident {_size(buffers.resident_bytes)}",
        f"port {buffers.port_bytes_per_cycle:g} B/cycle",
        _with_codec(buffers.scheme, buffers.codec_cycles),
    )
    return Block(f"{domain.capitalize()} local buffers", lines, DOMAIN_COLOURS[domain])


def _bus_lines(config: MachineConfig) -> tuple[str, ...]:
    bus = config.bus
    turns = {"round_robin": "round robin", "priority": "by priority"}[bus.arbitration]
    return (
        f"{bus.bytes_per_cycle:g} B/cycle, shared {turns} in quanta of {_size(bus.quantum_bytes)}",
    )


def _memory_lines(memory: MemoryConfig) -> tuple[str, ...]:
    share = memory.efficiency
    return (
        f"{memory.bytes_per_cycle:g} B/cycle at the peak; of it {share.weights:.0%} for weights, "
        f"{share.maps:.0%} for maps, {share.writes:.0%} for writes",
        f"{memory.latency_cycles} cycles of latency, {memory.outstanding_requests} bursts of "
        f"{memory.burst_bytes} B under way for each port",
        f"rows of {_size(memory.row_bytes)}; a refresh of {memory.refresh_cycles} in "
        f"{memory.refresh_interval_cycles} cycles",
    )


def _region(memory: MemoryConfig, domain: str) -> Block:
    if domain == PROTECTED:
        line = _with_codec(memory.protected_scheme, memory.codec_cycles)
    else:
        line = _in_words("none")
    return Block(f"{domain.capitalize()} region", (line,), DOMAIN_COLOURS[domain])


def _with_codec(scheme: str, codec_cycles: int) -> str:
    cycles = f", codec of {codec_cycles} cycle{'s' * (codec_cycles > 1)}" if codec_cycles else ""
    return f"{_in_words(scheme)}{cycles}"


def _in_words(scheme: str) -> str:
    return SCHEME_NAMES.get(scheme, scheme)


def _size(size_bytes: float) -> str:
    """Return a size in the largest binary unit that leaves a short number."""
    for unit, factor in (("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.4g} {unit}"
    return f"{size_bytes:g} B"


def _draw(axes: Axes, block: Block) -> None:
    """Draw a box with a bold title above its text."""
    axes.add_patch(
        FancyBboxPatch(
            (block.left, block.bottom), block.width, block.height,
            boxstyle="round,pad=0,rounding_size=1.2", edgecolor=block.colour,
            facecolor=(*_light(block.colour), 1.0), linewidth=1.3,
        )
    )  # fmt: skip
    axes.text(
        block.middle, block.top - 1.2, block.title, ha="center", va="top", fontsize=10,
        fontweight="bold", color=block.colour,
    )  # fmt: skip
    text = axes.text(
        block.middle, block.top - TITLE, "\n".join(block.lines), ha="center", va="top",
        fontsize=SMALL, linespacing=1.25,
    )  # fmt: skip
    text.set_in_layout(False)


def _light(colour: str) -> tuple[float, float, float]:
    """Return a pale tint of a colour given as #rrggbb."""
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return (0.92 + 0.08 * red, 0.92 + 0.08 * green, 0.92 + 0.08 * blue)


def _draw_arrows(axes: Axes, rows: list[list[Block]]) -> None:
    """Draw what joins one row to the next, and the controller's own way to the bus."""
    for number, (above, below) in enumerate(pairwise(rows)):
        style = "-|>" if number == 0 else "<|-|>"
        for place in (0.25, 0.75):
            _arrow(axes, place * WIDTH, above[0].bottom, below[0].top, style)
    controller, bus = rows[0][0], rows[3][0]
    ends = [block.bottom + block.height / 2 for block in (controller, bus)]
    axes.add_patch(Rectangle((-2.3, ends[1]), 0, ends[0] - ends[1], edgecolor=NEUTRAL, linewidth=1))
    for height in ends:
        axes.annotate(
            "", (0, height), (-2.3, height),
            arrowprops={"arrowstyle": "-|>", "color": NEUTRAL, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip


def _arrow(axes: Axes, x: float, start: float, end: float, style: str) -> None:
    axes.annotate(
        "", (x, end), (x, start),
        arrowprops={"arrowstyle": style, "color": NEUTRAL, "shrinkA": 0, "shrinkB": 0},
    )  # fmt: skip
