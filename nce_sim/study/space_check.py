"""Whether a space can be searched, found out before any of it is tried.

A combination of values that no machine can have is no mistake: it is a point that is refused. A
value that no machine of the space can have with any values of the other fields is one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, product

from nce_sim.config.loader import Mistake, Place
from nce_sim.config.salvage import Draft, Salvage, whole
from nce_sim.config.space import SpaceConfig, listed
from nce_sim.config.vary import Changes, check_field, mistakes_in
from nce_sim.errors import InputError
from nce_sim.study.check import Check
from nce_sim.study.ppe_ratio import RATIO_FIELDS, ratio_changes
from nce_sim.study.resources import Resources

MOST_TRIED = 500
"""Combinations that are tried before a value is taken to fit one of the rest."""

PLACES: dict[Place, Place] = {
    ("grid", "networks", 0): ("network",),
    ("grid", "machines", 0): ("machine",),
    ("grid", "machines"): ("machine",),
    ("grid", "rankings"): ("search", "rankings"),
    ("grid", "granularities"): ("search", "granularity"),
    ("grid", "fractions"): ("search", "fraction"),
    ("grid", "faults", 0): ("fault",),
    ("grid", "faults"): ("fault",),
    ("grid",): (),
}
"""Where parts of the study on the space's own machine stand in the space."""


def check_space(draft: Draft[SpaceConfig] | SpaceConfig, resources: Resources) -> SpaceConfig:
    """Return a space without mistakes; InputError names all of them otherwise."""
    return whole(
        draft,
        lambda config, found: _Check(config, resources, found).run(),
        lambda config: f"space '{config.name}' cannot be searched",
    )


@dataclass
class _Check:
    """Gathers the mistakes of a space; places are those of the record, not of the file."""

    space: SpaceConfig
    resources: Resources
    found: Salvage[SpaceConfig] | None = None
    mistakes: list[Mistake] = field(default_factory=list)

    def run(self) -> list[Mistake]:
        self._needless()
        self._repeated()
        self.mistakes += self._of_its_study()
        if not any(each.place == ("machine",) for each in self.mistakes):
            self._machine_fields()
            self._ratio()
        return [each for each in self.mistakes if not self._told(each.place)]

    def say(self, place: Place, message: str) -> None:
        self.mistakes.append(Mistake(place, message))

    def _told(self, place: Place) -> bool:
        """Tell whether something at this place was taken out: the file's mistake says why."""
        return self.found is not None and self.found.lost(place)

    def _needless(self) -> None:
        """Refuse what would have no effect."""
        space = self.space
        if space.measures_accuracy:
            return
        for name in ("fault", "accuracy"):
            if getattr(space, name) is not None:
                self.say(
                    (name,), "has no effect: neither objective nor constraints name lost_points"
                )

    def _repeated(self) -> None:
        """Refuse values that stand twice on an axis."""
        search = self.space.search
        axes: list[tuple[Place, Sequence[object]]] = [
            (("search", "fraction"), listed(search.fraction)),
            (("search", "granularity"), search.granularity),
            (("search", "rankings"), search.rankings),
            *(
                (("search", "machine", number, "values"), varied.values)
                for number, varied in enumerate(search.machine)
            ),
        ]
        if search.ppe_ratio is not None:
            axes.append((("search", "ppe_ratio", "values"), listed(search.ppe_ratio.values)))
        for place, values in axes:
            for number, value in enumerate(values):
                if value in values[:number]:
                    self.say((*place, number), f"{value} stands there twice")

    def _of_its_study(self) -> Iterator[Mistake]:
        """Yield what is wrong with the splits and faults on the machine as its file has it."""
        for each in Check(self.space.on_its_machine(), self.resources).run():
            yield Mistake(_place_in_space(each.place), each.message)

    def _machine_fields(self) -> None:
        """Check paths and values of the machine's fields."""
        base = self.resources.machine(self.space.machine, ()).config
        varied = self.space.search.machine
        known = []
        for number, each in enumerate(varied):
            there = ("search", "machine", number, "field")
            try:
                check_field(base, each.field)
            except InputError as reason:
                self.say(there, str(reason))
                continue
            if each.field in (other.field for other in varied[:number]):
                self.say(there, f"{each.field} stands there twice")
            elif self.space.search.ppe_ratio is not None and each.field in RATIO_FIELDS:
                self.say(there, f"{each.field} is set by ppe_ratio: leave one of them out")
            else:
                known.append(number)
        for number in known:
            for place, value in enumerate(varied[number].values):
                self._value(number, place, (varied[number].field, value), known)

    def _value(self, axis: int, place: int, change: tuple[str, object], known: list[int]) -> None:
        """Note a value that no machine of the space can have."""
        alone = refusal_of(self.space.machine, (change,))
        if alone is None:
            return
        fields = [self.space.search.machine[number] for number in known if number != axis]
        combinations = product(*([(each.field, v) for v in each.values] for each in fields))
        tried = list(islice(combinations, MOST_TRIED + 1))
        if len(tried) > MOST_TRIED or any(
            refusal_of(self.space.machine, (change, *others)) is None for others in tried
        ):
            return
        self.say(("search", "machine", axis, "values", place), alone)

    def _ratio(self) -> None:
        """Check that the machine has columns to exchange."""
        ratio = self.space.search.ppe_ratio
        if ratio is None:
            return
        try:
            ratio_changes(self.resources.machine(self.space.machine, ()), ratio.keep, 0.5)
        except InputError as reason:
            self.say(("search", "ppe_ratio"), str(reason))


def refusal_of(machine: str, changes: Changes) -> str | None:
    """Say why a machine cannot have these values together; None if it can."""
    found = [
        each.message
        if each.message.startswith(".".join(map(str, each.place)))
        else f"{'.'.join(map(str, each.place))} {each.message}"
        for each in mistakes_in(machine, changes)
    ]
    return "; ".join(found) or None


def _place_in_space(place: Place) -> Place:
    """Return where a place of the study stands in the space."""
    for length in range(len(place), 0, -1):
        if place[:length] in PLACES:
            return (*PLACES[place[:length]], *place[length:])
    return place
