"""Does the best engine depend on the technology table that one believes?

The question is an architect's: which scheme, which share of PPE lanes and which split, if faults on
PEs (the paper's dropout) may cost so many points of accuracy? What the network answers and how many
cycles it takes depend on no table, so both are found once; each table then prices all answers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from nce_sim.accuracy.evaluate import Variant, default_precision, predict_variants
from nce_sim.accuracy.statistics import Difference, paired_difference
from nce_sim.config.figures import figures_of, taken_at, with_figure_at
from nce_sim.config.machine import Machine
from nce_sim.config.technology import End, Technology
from nce_sim.cost.actions import Action, actions_of, spent_pj
from nce_sim.cost.activity import Activity, total
from nce_sim.cost.area import area, area_alone
from nce_sim.errors import InputError
from nce_sim.faults.models import Dropout
from nce_sim.machine.engine import simulate
from nce_sim.resilience.ranking import Ranking
from nce_sim.schedule.domains import PROTECTED, UNPROTECTED
from nce_sim.study.designs import check_base
from nce_sim.workload.graph import Workload
from nce_sim.workload.images import Images

SCHEMES = ("tmr", "dmr_retry", "temporal_tmr", "temporal_dmr")
"""Those that outvote or notice every single fault of a lane."""

RATIOS = 5
"""Shares of PPE columns that are tried, evenly spaced."""

OUTER: tuple[End, ...] = ("low", "high")
"""Both ends of a figure's range."""

Swept = Mapping[tuple[str, End], Sequence[float]]
"""Energies of all answers with one figure at one end."""

PJ_PER_UJ = 1e6
NS_PER_US = 1000
HOT_K = 398.0
"""125 degrees Celsius, the upper end of automotive grade 1 (AEC-Q100)."""


@dataclass(frozen=True)
class Loss:
    """What dropout on PEs costs at one fraction: points of accuracy, paired with no faults."""

    fraction: float
    lost: Difference

    def within(self, most: float) -> bool:
        """Tell whether no more is lost, as measured."""
        return self.lost.value <= most


def measure_losses(
    network: Workload, images: Images, labels: Tensor, ranking: Ranking,
    fractions: Sequence[float], dropout: Dropout, *, realisations: int = 1, seed: int = 0,
    device: str = "cpu",
) -> tuple[Loss, ...]:  # fmt: skip
    """Return the loss of splits by neuron, all under the same draws; nothing is lost at 0."""
    variants = [Variant(ranking.split(each), dropout) for each in fractions]
    found = predict_variants(
        network, images, variants, seed=seed, realisations=realisations,
        precision=default_precision() if device == "cpu" else "float32", device=device,
    )  # fmt: skip
    truth = labels.numpy()
    clean = found.clean == truth
    losses = [Loss(0.0, Difference(0.0, 0.0, 0.0, 0.95))]
    for fraction, classes in zip(fractions, found.faulty, strict=True):
        faulty = classes == truth
        only_clean, only_faulty = int((clean & ~faulty).sum()), int((faulty & ~clean).sum())
        losses.append(Loss(fraction, paired_difference(only_clean, only_faulty, faulty.size)))
    return tuple(losses)


Engine = tuple[str, int, int]
"""A scheme, columns of PPEs and columns of PEs."""


@dataclass(frozen=True)
class Answer:
    """One engine with one split: what it did in an inference, to be priced by any table."""

    scheme: str
    ppe_columns: int
    pe_columns: int
    fraction: float
    machine: Machine
    activity: Activity

    @property
    def engine(self) -> Engine:
        """What the answer is built of, whatever the split."""
        return self.scheme, self.ppe_columns, self.pe_columns

    @property
    def name(self) -> str:
        """The answer in words."""
        return (
            f"{self.scheme}, {self.ppe_columns} + {self.pe_columns} columns, "
            f"{self.fraction:.0%} on PEs"
        )


@dataclass(frozen=True)
class Table:
    """A technology under its name; `temperature_k` of the silicon if it is not the table's own."""

    name: str
    technology: Technology
    temperature_k: float | None = None


def tables_of(technologies: Mapping[str, Technology], own: str) -> tuple[Table, ...]:
    """Return the tables to compare: each as it is, and the corners of the machine's own.

    The corners are all figures at the low or high end, and a hot chip, if the table allows it.
    """
    mine = technologies[own]
    found = [Table(name, technology) for name, technology in technologies.items()]
    found += [Table(f"{own} {end}", taken_at(mine, end)) for end in OUTER]
    if mine.leakage.lowest_k <= HOT_K <= mine.leakage.highest_k:
        found.append(Table(f"{own} at {HOT_K:g} K", mine, HOT_K))
    return tuple(found)


def check_table(base: Machine, name: str, technology: Technology) -> None:
    """Raise InputError unless a table has the figures that a machine needs."""
    config = base.config
    cells = {domain.buffers.cell_type for domain in config.domains.values()} - {None}
    lacking = [
        *([config.number_format] if config.number_format not in technology.mac else []),
        *([config.memory.kind] if config.memory.kind not in technology.memories else []),
        *(each for each in cells if each not in technology.sram.leakage_by_cell_type),
    ]
    if lacking:
        raise InputError(
            f"technology '{name}' has no figures for {', '.join(map(str, lacking))}, which "
            f"machine '{config.name}' needs"
        )


def clock_limit_mhz(technology: Technology) -> float:
    """Return the clock that the slowest SRAM bank of a table allows."""
    return NS_PER_US / max(row.cycle_ns for row in technology.sram.rows)


def placed_in(machine: Machine, table: Table) -> Machine:
    """Return the machine in another technology, slowed down to what its SRAM allows."""
    clock_mhz = min(machine.config.clock_mhz, clock_limit_mhz(table.technology))
    changes = {"clock_mhz": clock_mhz, "temperature_k": table.temperature_k}
    config = machine.config.model_copy(update=changes)
    return machine.model_copy(update={"config": config, "technology": table.technology})


def price_uj(answer: Answer, table: Table) -> float:
    """Return the energy of an inference under a table."""
    return _spent_uj(answer, _actions(answer.machine, table))


def prices_uj(answers: Sequence[Answer], table: Table) -> list[float]:
    """Return the energy with each answer; splits on one engine share its actions."""
    actions: dict[Engine, tuple[Action, ...]] = {}
    for answer in answers:
        if answer.engine not in actions:
            actions[answer.engine] = _actions(answer.machine, table)
    return [_spent_uj(answer, actions[answer.engine]) for answer in answers]


def _actions(machine: Machine, table: Table) -> tuple[Action, ...]:
    """Return what the machine can do in another technology, with the energy of each."""
    placed = placed_in(machine, table)
    return actions_of(placed, area_alone(placed))


def _spent_uj(answer: Answer, actions: Sequence[Action]) -> float:
    return spent_pj(actions, answer.activity) / PJ_PER_UJ


@dataclass(frozen=True)
class Corner:
    """Figures of a table at ends of their ranges with which another answer is cheapest.

    `saves` is the share of the usual answer's energy there that it saves.
    """

    ends: Mapping[str, End]
    answer: Answer
    saves: float


@dataclass(frozen=True)
class TechnologyChoice:
    """All answers within the loss that is allowed, priced by all tables.

    `energies_uj[table][answer]`, both by their place. `flips` are single figures of the first table
    that change its answer at an end of their range; `corner` has each of the `figures_tried` at the
    end that most favours another answer, the one that then saves most; None if none saves anything.
    """

    dropout: Dropout
    most_lost: float
    losses: tuple[Loss, ...]
    tables: tuple[Table, ...]
    answers: tuple[Answer, ...]
    energies_uj: tuple[tuple[float, ...], ...]
    flips: tuple[Corner, ...]
    corner: Corner | None
    figures_tried: int

    def best(self, table: int) -> int:
        """Return the place of the answer that a table finds cheapest."""
        return _cheapest(self.energies_uj[table])

    @cached_property
    def chosen(self) -> tuple[int, ...]:
        """The places of the answers that some table finds cheapest."""
        return tuple(dict.fromkeys(self.best(table) for table in range(len(self.tables))))

    def regret(self, chosen_with: int, built_in: int) -> float:
        """Return which share more the choice of one table costs than the best under another."""
        energies = self.energies_uj[built_in]
        return energies[self.best(chosen_with)] / energies[self.best(built_in)] - 1

    @property
    def largest_regret(self) -> tuple[float, int, int]:
        """The largest of these shares, and the tables of choice and of building."""
        places = range(len(self.tables))
        return max((self.regret(one, other), one, other) for one in places for other in places)

    def slowed(self, base: Machine) -> list[tuple[Table, float]]:
        """Return the tables whose SRAM is too slow for the machine's clock, and their limits."""
        limits = [(table, clock_limit_mhz(table.technology)) for table in self.tables]
        return [each for each in limits if each[1] < base.config.clock_mhz]


def _cheapest(energies: Sequence[float]) -> int:
    return min(range(len(energies)), key=lambda answer: energies[answer])


def study_technology(
    network: Workload,
    base: Machine,
    ranking: Ranking,
    losses: tuple[Loss, ...],
    tables: tuple[Table, ...],
    dropout: Dropout,
    *,
    most_lost: float = 0.01,
    advance: Callable[[int], None] = lambda _: None,
) -> TechnologyChoice:
    """Price all answers by all tables, then look for figures that change the first one's answer."""
    check_base(base)
    if not tables:
        raise InputError("name at least one technology table")
    fractions = [loss.fraction for loss in losses if loss.within(most_lost)]
    answers = tuple(_answers(network, base, ranking, fractions, advance))
    energies = tuple(tuple(prices_uj(answers, table)) for table in tables)
    own = tables[0]
    figures = _figures_in_use(answers, own)
    swept = {
        (figure, end): prices_uj(answers, _at_ends(own, {figure: end}))
        for figure in figures
        for end in OUTER
    }
    usual = _cheapest(energies[0])
    return TechnologyChoice(
        dropout, most_lost, losses, tables, answers, energies,
        tuple(_flips(answers, swept, usual)), _corner(answers, own, swept, usual), len(figures),
    )  # fmt: skip


def answers_count(losses: tuple[Loss, ...], most_lost: float) -> int:
    """Return how many answers there are to simulate, at most."""
    return RATIOS * len(SCHEMES) * sum(loss.within(most_lost) for loss in losses)


def _answers(
    network: Workload, base: Machine, ranking: Ranking, fractions: Sequence[float],
    advance: Callable[[int], None],
) -> Iterator[Answer]:  # fmt: skip
    """Simulate all schemes and shares of PPE columns, as many columns in all as the base has."""
    for fraction in fractions:
        split = ranking.split(fraction)
        for scheme in SCHEMES:
            for machine in _family(base, scheme):
                run = simulate(network, machine, split)
                arrays = machine.config.arrays
                activity = total(run.energy.activity_by_layer.values())
                columns = (arrays[PROTECTED].columns, arrays[UNPROTECTED].columns)
                yield Answer(scheme, *columns, fraction, machine, activity)
                advance(1)


def _family(base: Machine, scheme: str) -> list[Machine]:
    """Return the machines of equal lanes whose PPEs have a scheme."""
    every = sum(array.columns for array in base.config.arrays.values())
    places = [(number + 1) / (RATIOS + 1) for number in range(RATIOS)]
    counts = dict.fromkeys(min(max(1, round(each * every)), every - 1) for each in places)
    return [_shared_out(base, scheme, ppe, every - ppe) for ppe in counts]


def _shared_out(base: Machine, scheme: str, ppe: int, pe: int) -> Machine:
    changed = {}
    for name, columns in ((PROTECTED, ppe), (UNPROTECTED, pe)):
        domain = base.config.domains[name]
        words = max(1, domain.array.weight_words * columns // domain.array.columns)
        update: dict[str, object] = {"columns": columns, "weight_words": words}
        if name == PROTECTED:
            update["scheme"] = scheme
        array = domain.array.model_copy(update=update)
        changed[name] = domain.model_copy(update={"array": array})
    return base.model_copy(update={"config": base.config.model_copy(update=changed)})


def _figures_in_use(answers: Sequence[Answer], table: Table) -> list[str]:
    """Return the figures that have a part in the energy of some answer."""
    used: set[str] = set()
    for answer in {each.scheme: each for each in answers}.values():
        machine = placed_in(answer.machine, table)
        chip = area(machine)
        for action in actions_of(machine, chip):
            used.update(action.figures)
        for part in chip.parts:  # a larger chip has a longer bus, and leaks more
            used.update(part.figures)
    return [name for name in figures_of(table.technology) if name in used]


def _at_ends(table: Table, ends: Mapping[str, End]) -> Table:
    """Return a table with some figures at ends of their ranges."""
    technology = table.technology
    for figure, end in ends.items():
        technology = with_figure_at(technology, figure, end)
    return replace(table, technology=technology)


def _flips(answers: Sequence[Answer], swept: Swept, usual: int) -> Iterator[Corner]:
    """Yield single figures that change which answer is cheapest."""
    for (figure, end), energies in swept.items():
        best = _cheapest(energies)
        if best != usual:
            saves = 1 - energies[best] / energies[usual]
            yield Corner({figure: end}, answers[best], saves)


def _corner(answers: Sequence[Answer], own: Table, swept: Swept, usual: int) -> Corner | None:
    """Return the corner of the ranges in which another answer saves most; None if none does.

    Energy is nearly linear in each figure, so that each is taken at the end at which it alone moves
    the difference most towards the other answer.
    """
    found = []
    for place, answer in enumerate(answers):
        if place == usual:
            continue
        ends: dict[str, End] = {}
        for figure in dict.fromkeys(figure for figure, _ in swept):
            behind = {end: swept[figure, end][place] - swept[figure, end][usual] for end in OUTER}
            ends[figure] = min(OUTER, key=lambda end: behind[end])
        table = _at_ends(own, ends)
        saves = 1 - price_uj(answer, table) / price_uj(answers[usual], table)
        found.append(Corner(ends, answer, saves))
    best = max(found, key=lambda corner: corner.saves, default=None)
    return best if best is not None and best.saves > 0 else None
