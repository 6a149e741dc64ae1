"""A space as axes and points: which point each choice of values is."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod

from nce_sim.config.machine import Machine
from nce_sim.config.salvage import Draft
from nce_sim.config.space import SpaceConfig, listed
from nce_sim.config.study import Value
from nce_sim.config.vary import Changes, changed_machine
from nce_sim.errors import InputError
from nce_sim.study.check import on_outputs
from nce_sim.study.point import Point, points_of
from nce_sim.study.ppe_ratio import ratio_changes
from nce_sim.study.resources import Resources, machine_identity
from nce_sim.study.space_check import check_space, refusal_of

Choice = tuple[int, ...]
"""The number of the chosen value on each axis."""

RANKING = 2
"""The axis of rankings: the third."""


@dataclass(frozen=True)
class Axis:
    """One thing that is chosen: its name in tables, and its values."""

    name: str
    values: tuple[Value, ...]

    @property
    def is_ordered(self) -> bool:
        """Whether its values are numbers that rise or fall, so that near ones are alike."""
        numbers = [v for v in self.values if isinstance(v, int | float) and not isinstance(v, bool)]
        up = sorted(numbers)
        return len(numbers) == len(self.values) and numbers in (up, up[::-1])


@dataclass(frozen=True)
class Place:
    """What a choice stands for: a point, or the reason why there is no such machine."""

    point: Point | None
    refused: str | None


@dataclass(frozen=True)
class Space:
    """Everything that may be chosen; made by `open_space`.

    The axes are fraction, granularity, ranking, ppe_ratio if it is searched, then fields of the
    machine. `splits` are the points on the machine as its file has it, one for each ranking.
    """

    config: SpaceConfig
    axes: tuple[Axis, ...]
    splits: tuple[Point, ...]
    _places: dict[Choice, Place] = field(default_factory=dict, repr=False, compare=False)

    @property
    def size(self) -> int:
        """The number of choices."""
        return prod(len(axis.values) for axis in self.axes)

    def choices(self) -> Iterator[Choice]:
        """Yield all choices, the last axis running fastest."""
        return product(*(range(len(axis.values)) for axis in self.axes))

    def choice_at(self, number: int) -> Choice:
        """Return a choice by its number in the order of `choices`."""
        digits: list[int] = []
        for axis in reversed(self.axes):
            number, digit = divmod(number, len(axis.values))
            digits.append(digit)
        return tuple(reversed(digits))

    def values(self, choice: Choice) -> dict[str, Value]:
        """Return the chosen values by axis."""
        return {axis.name: axis.values[at] for axis, at in zip(self.axes, choice, strict=True)}

    def place(self, choice: Choice) -> Place:
        """Return the point of a choice, or why the machine is refused."""
        if choice not in self._places:
            try:
                self._places[choice] = Place(self._point(choice), None)
            except InputError as reason:
                self._places[choice] = Place(None, str(reason))
        return self._places[choice]

    def key(self, choice: Choice) -> object:
        """Return what is equal for choices that give the same point."""
        point = self.place(choice).point
        return choice if point is None else point.identity

    def accuracy_key(self, choice: Choice) -> object:
        """Return what is equal for choices that share their measurement of accuracy.

        The paper's faults strike a network on any machine alike, unless its ranking weighs cost.
        """
        split = self.splits[choice[RANKING]]
        if on_outputs(split.faults) and split.ranking.objective == "neurons":
            return choice[: RANKING + 1]
        return self.key(choice)

    def _point(self, choice: Choice) -> Point:
        """Return a point; InputError if no machine has these values together."""
        values = self.values(choice)
        split = self.splits[choice[RANKING]]
        machine, changes = self._machine(values)
        assert split.machine is not None
        return replace(
            split,
            machine=replace(split.machine, identity=machine_identity(machine)),
            changes=changes,
            granularity=str(values["granularity"]),
            fraction=float(values["fraction"] or 0),
        )

    def _machine(self, values: dict[str, Value]) -> tuple[Machine, Changes]:
        search, name = self.config.search, self.config.machine
        changes: Changes = tuple((each.field, values[each.field]) for each in search.machine)
        refused = refusal_of(name, changes)
        if refused is not None:
            raise InputError(refused)
        machine = changed_machine(name, changes)
        if search.ppe_ratio is None:
            return machine, changes
        ratio = float(values["ppe_ratio"] or 0)
        changes += ratio_changes(machine, search.ppe_ratio.keep, ratio)
        return changed_machine(name, changes), changes


def open_space(draft: Draft[SpaceConfig] | SpaceConfig) -> Space:
    """Return a space that was checked as a whole.

    Raises InputError with all mistakes: those in the file, and everything in it that cannot be
    found, does not fit, or would have no effect.
    """
    resources = Resources()
    config = check_space(draft, resources)
    search = config.search
    axes = [
        Axis("fraction", listed(search.fraction)),
        Axis("granularity", search.granularity),
        Axis("ranking", tuple(ranking.label for ranking in search.rankings)),
    ]
    if search.ppe_ratio is not None:
        axes.append(Axis("ppe_ratio", listed(search.ppe_ratio.values)))
    axes += [Axis(varied.field, varied.values) for varied in search.machine]
    return Space(config, tuple(axes), _splits(config, resources))


def _splits(config: SpaceConfig, resources: Resources) -> tuple[Point, ...]:
    """Return one point for each ranking, on the machine as its file has it."""
    study = config.on_its_machine()
    assert study.grid is not None
    grid = study.grid.model_copy(
        update={
            "granularities": study.grid.granularities[:1],
            "fractions": study.grid.fractions[:1],
        }
    )
    return points_of(study.model_copy(update={"grid": grid}), resources)
