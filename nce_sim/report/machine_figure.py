"""The simulated machine as a block diagram, in the manner of Fig. 2 of the paper."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from nce_sim.config.machine import ArrayConfig, BufferConfig, Machine
from nce_sim.report.style import DOMAIN_COLOURS, SMALL, new_figure, styled
from nce_sim.schedule.domains import DOMAINS, PROTECTED

NEUTRAL = "#444444"
SCHEME_NAMES = {
    "none": "not protected",
    "ideal": "ideally protected",
    "tmr": "TMR",
    "temporal_tmr": "temporal TMR",
    "parity": "parity",
    "secded": "SECDED",
}


@dataclass(frozen=True)
class Block:
    """A box of the diagram, in its units: the whole is 100 wide and 88 high."""

    left: float
    bottom: float
    width: float
    height: float
    title: str
    text: str
    colour: str = NEUTRAL

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
    """Return the block diagram of a machine with its sizes and schemes."""
    config = machine.config
    figure = new_figure(
        5.4,
        f"{config.name}: {config.clock_mhz:g} MHz, {config.number_format}, "
        f"{machine.technology.node_nm:g} nm",
    )
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(-3.5, 103.5)
    axes.set_ylim(-0.5, 88.5)
    controller, bus = _controller(machine), _bus(machine)
    memory = Block(0, 0, 100, 21, *_memory_text(machine))
    for block in (controller, bus, memory):
        _draw(axes, block)
    for number, domain in enumerate(DOMAINS):
        left = 51.5 * number
        array, buffers, region = _domain_blocks(machine, domain, left)
        for block in (array, buffers, region):
            _draw(axes, block)
        _arrow(axes, array.middle, controller.bottom, array.top, "-|>")
        _arrow(axes, array.middle, array.bottom, buffers.top, "<|-|>")
        _arrow(axes, buffers.middle, buffers.bottom, bus.top, "<|-|>")
        _arrow(axes, region.middle, bus.bottom, memory.top, "<|-|>")
    _control_path(axes, controller, bus)
    return figure


def _controller(machine: Machine) -> Block:
    config = machine.config.controller
    text = (
        f"reads the protection map, one bit a neuron; {config.cycles_per_tile} cycles a tile, "
        f"{config.cycles_per_barrier} a barrier"
    )
    return Block(0, 78, 100, 10, "Controller", text)


def _bus(machine: Machine) -> Block:
    config = machine.config.bus
    text = (
        f"{config.bytes_per_cycle:g} B/cycle, shared round robin in quanta of "
        f"{_size(config.quantum_bytes)}"
    )
    return Block(0, 25.5, 100, 10, "Data bus", text)


def _memory_text(machine: Machine) -> tuple[str, str]:
    config = machine.config.memory
    text = (
        f"{config.bytes_per_cycle:g} B/cycle, {config.latency_cycles} cycles of latency, "
        f"bursts of {config.burst_bytes} B"
    )
    return "External memory", text


def _domain_blocks(machine: Machine, domain: str, left: float) -> tuple[Block, Block, Block]:
    """Return a domain's array, its local buffers and its region of the external memory."""
    config, colour = machine.config.domains[domain], DOMAIN_COLOURS[domain]
    element = "PPE" if domain == PROTECTED else "PE"
    scheme = machine.config.memory.protected_scheme if domain == PROTECTED else "none"
    return (
        Block(
            left, 59.5, 48.5, 15, f"{element} array",
            _array_text(config.array, config.vector_lanes), colour,
        ),
        Block(
            left, 39, 48.5, 17, f"{domain.capitalize()} local buffers",
            _buffer_text(config.buffers), colour,
        ),
        Block(
            left + (1.5 if domain == PROTECTED else 0), 1.5, 47, 8.5,
            f"{domain.capitalize()} region", _in_words(scheme), colour,
        ),
    )  # fmt: skip


def _array_text(array: ArrayConfig, vector_lanes: int) -> str:
    return (
        f"{array.rows} x {array.columns} = {array.lanes} lanes, {_in_words(array.scheme)}\n"
        f"{array.macs_per_cycle} MAC/cycle and lane\n"
        f"vector unit: {vector_lanes} elements/cycle"
    )


def _buffer_text(buffers: BufferConfig) -> str:
    return (
        f"input 2 x {_size(buffers.input_bytes)}, weight 2 x {_size(buffers.weight_bytes)}\n"
        f"output 2 x {_size(buffers.output_bytes)}, resident {_size(buffers.resident_bytes)}\n"
        f"port {buffers.port_bytes_per_cycle:g} B/cycle\n"
        f"{_in_words(buffers.scheme)}"
    )


def _in_words(scheme: str) -> str:
    return SCHEME_NAMES.get(scheme, scheme)


def _size(size_bytes: float) -> str:
    """Return a size in the largest binary unit that leaves a short number."""
    for unit, factor in (("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:g} {unit}"
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
    axes.text(
        block.middle, block.top - 5.4, block.text, ha="center", va="top", fontsize=SMALL,
        linespacing=1.25,
    )  # fmt: skip


def _light(colour: str) -> tuple[float, float, float]:
    """Return a pale tint of a colour given as #rrggbb."""
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return (0.92 + 0.08 * red, 0.92 + 0.08 * green, 0.92 + 0.08 * blue)


def _arrow(axes: Axes, x: float, start: float, end: float, style: str) -> None:
    axes.annotate(
        "", (x, end), (x, start),
        arrowprops={"arrowstyle": style, "color": NEUTRAL, "shrinkA": 0, "shrinkB": 0},
    )  # fmt: skip


def _control_path(axes: Axes, controller: Block, bus: Block) -> None:
    """Draw the controller's own way to the bus, along the left edge."""
    top, bottom = controller.bottom + controller.height / 2, bus.bottom + bus.height / 2
    axes.add_patch(Rectangle((-2.3, bottom), 0, top - bottom, edgecolor=NEUTRAL, linewidth=1))
    for height in (top, bottom):
        axes.annotate(
            "", (0, height), (-2.3, height),
            arrowprops={"arrowstyle": "-|>", "color": NEUTRAL, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
