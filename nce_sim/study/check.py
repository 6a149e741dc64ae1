"""Whether a study can be run as a whole, found out before any of it runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from nce_sim.accuracy.outcomes import outcome_named
from nce_sim.config.campaign import DropoutFault, NoiseFault
from nce_sim.config.loader import Mistake, Place
from nce_sim.config.machine import Machine
from nce_sim.config.salvage import Salvage
from nce_sim.config.study import (
    AccuracySettings,
    Axes,
    Faults,
    StudyConfig,
    StudyFault,
    StudyRanking,
    SupplyFault,
)
from nce_sim.config.vary import Changes, check_field, mistakes_in
from nce_sim.errors import InputError
from nce_sim.faults.mission import Mission, check_fault
from nce_sim.faults.processes import Fault
from nce_sim.faults.ranking_in_loop import IN_LOOP
from nce_sim.machine.engine import simulate
from nce_sim.resilience.ranking import METHODS, Ranking, rank
from nce_sim.resilience.split import Split
from nce_sim.schedule.program import build_program
from nce_sim.schedule.reuse import schedule_key
from nce_sim.study.resources import Resources, fault_to_rank_for, faults_of, traces_of
from nce_sim.workload.execute import PRECISION_OF_FORMAT


def variants(axes: Axes) -> Iterator[tuple[str, Changes]]:
    """Yield every machine of a grid with every combination of its varied fields."""
    fields = [varied.field for varied in axes.vary]
    for machine in axes.machines:
        for values in product(*(varied.values for varied in axes.vary)):
            yield machine, tuple(zip(fields, values, strict=True))


def on_outputs(faults: Sequence[StudyFault]) -> bool:
    """Tell whether this is one of the paper's faults alone, which needs no machine."""
    return len(faults) == 1 and isinstance(faults[0], DropoutFault | NoiseFault)


def calibrates(settings: AccuracySettings, faults: Sequence[StudyFault]) -> bool:
    """Tell whether training images are looked at: for mean activations, int8 or clipping."""
    only_dropout = on_outputs(faults) and isinstance(faults[0], DropoutFault)
    return settings.precision == "int8" or not only_dropout


@dataclass
class Check:
    """Gathers the mistakes of a study; places are those of the record, not of the file."""

    study: StudyConfig
    resources: Resources
    found: Salvage[StudyConfig] | None = None
    mistakes: list[Mistake] = field(default_factory=list)

    def run(self) -> list[Mistake]:
        """Check everything, and return what is wrong."""
        self._whole()
        for place, axes in self.study.parts:
            self._parts_go_together(place, axes)
            networks = self._networks(place, axes)
            self._rankings(place, axes, networks)
            machines = self._machines(place, axes)
            self._faults(place, axes, machines)
            self._runs(place, axes, networks, machines)
        return self.mistakes

    def say(self, place: Place, message: str) -> None:
        """Note a mistake."""
        self.mistakes.append(Mistake(place, message))

    @contextmanager
    def noting(self, place: Place) -> Iterator[None]:
        """Note an InputError as a mistake of a place, and go on."""
        try:
            yield
        except InputError as reason:
            self.say(place, str(reason))

    def lacks(self, place: Place, values: Sequence[object]) -> bool:
        """Tell whether an axis is empty as the file has it, not because its values are wrong."""
        return not values and not (self.found is not None and self.found.lost(place))

    @property
    def accuracy(self) -> AccuracySettings | None:
        """How accuracy is measured, if it is."""
        if "accuracy" not in self.study.measure:
            return None
        return self.study.accuracy or AccuracySettings()

    def _whole(self) -> None:
        study = self.study
        parts = (
            (("grid",), () if study.grid is None else (study.grid,)),
            (("points",), study.points),
        )
        if all(self.lacks(place, values) for place, values in parts):
            self.say((), "gives neither grid nor points: there is nothing to compute")
        for number, what in enumerate(study.measure):
            if what in study.measure[:number]:
                self.say(("measure", number), f"{what} stands there twice")
        if study.of_rankings and len(set(study.measure)) > 1:
            self.say(("measure",), "resilience is looked at alone: make another study of the rest")
        if self.accuracy is None and study.accuracy is not None:
            self.say(("accuracy",), "has no effect: measure does not name accuracy")
        if self.accuracy is not None:
            with self.noting(("accuracy", "outcome")):
                outcome_named(self.accuracy.outcome)
        given = set() if study.accuracy is None else study.accuracy.model_fields_set
        if "calibration_images" in given and not self._calibrates():
            self.say(
                ("accuracy", "calibration_images"),
                "has no effect: only noise, int8 and faults in hardware look at them",
            )

    def _calibrates(self) -> bool:
        """Tell whether any point looks at training images, apart from its ranking."""
        settings = self.accuracy
        return settings is not None and any(
            calibrates(settings, faults) for _, axes in self.study.parts for faults in axes.faults
        )

    def _parts_go_together(self, place: Place, axes: Axes) -> None:
        """Refuse axes that are missing, and those that would have no effect."""
        in_hardware = [number for number, each in enumerate(axes.faults) if not on_outputs(each)]
        weighed = [n for n, each in enumerate(axes.rankings) if each.objective != "neurons"]
        cost = "cost" in self.study.measure
        if self.study.of_rankings:
            for name in ("fractions", "granularities", "faults"):
                if name in axes.model_fields_set:
                    self.say((*place, name), "has no effect: measure names resilience")
        elif self.lacks((*place, "fractions"), axes.fractions):
            self.say((*place, "fractions"), "says which share of the neurons is on PEs: give some")
        if self.lacks((*place, "machines"), axes.machines):
            if cost:
                self.say((*place, "machines"), "cost is measured on a machine: name one")
            for number in in_hardware:
                self.say((*place, "faults", number), "strikes a machine: name one in machines")
            for number in weighed:
                self.say((*place, "rankings", number, "objective"), "needs a machine: name one")
            if axes.vary:
                self.say((*place, "vary"), "changes machines: name one in machines")
        elif axes.machines and not (cost or in_hardware or weighed):
            self.say(
                (*place, "machines"),
                "has no effect: measure does not name cost, and no fault strikes hardware",
            )
        if self.accuracy is None:
            if axes.faults:
                self.say((*place, "faults"), "has no effect: measure does not name accuracy")
            return
        if self.lacks((*place, "faults"), axes.faults):
            self.say((*place, "faults"), "accuracy is measured under faults: give some")
        if in_hardware and self.accuracy.outcome.startswith("confident"):
            for number in in_hardware:
                self.say(
                    (*place, "faults", number),
                    f"outcome {self.accuracy.outcome} goes with one dropout or gaussian_noise: how "
                    f"sure an answer is, is not kept under faults of the hardware",
                )

    def _networks(self, place: Place, axes: Axes) -> list[str]:
        """Load the networks; return those that can be used."""
        usable = []
        for number, name in enumerate(axes.networks):
            there = (*place, "networks", number)
            with self.noting(there):
                data = self.resources.data_of(name)
                settings = self.accuracy
                if settings is not None and data is None:
                    raise InputError(
                        f"network '{name}' names no data set: its accuracy cannot be measured"
                    )
                self.resources.network(name)
                usable.append(name)
                if settings is not None and data is not None:
                    self._images(settings, data)
        return usable

    def _images(self, settings: AccuracySettings, data: str) -> None:
        """Check that a data set holds as many images as are asked for."""
        if settings.images != "all":
            with self.noting(("accuracy", "images")):
                self.resources.test_images(data, settings.images)
        with self.noting(("accuracy", "calibration_images")):
            if self._calibrates():
                self.resources.training_images(data, settings.calibration_images)

    def _rankings(self, place: Place, axes: Axes, networks: list[str]) -> None:
        for number, ranking in enumerate(axes.rankings):
            there = (*place, "rankings", number)
            if ranking.file is None and ranking.method not in (*METHODS, IN_LOOP):
                known = ", ".join((*METHODS, IN_LOOP))
                self.say(
                    (*there, "method"), f"unknown method '{ranking.method}': known are {known}"
                )
                continue
            if ranking.fault is not None:
                with self.noting((*there, "fault")):
                    fault_to_rank_for(ranking, {})
            for name in networks:
                self._ranking_of(there, ranking, name)

    def _ranking_of(self, place: Place, ranking: StudyRanking, network: str) -> None:
        """Check that a network can be ranked in this way."""
        if ranking.file is not None:
            with self.noting((*place, "file")):
                loaded = Ranking.load(Path(ranking.file), self.resources.network(network))
                if ranking.objective != "neurons":
                    loaded.check_unpriced()
            return
        if not ranking.needs_images:
            return
        data = self.resources.data_of(network)
        if data is None:
            self.say(
                (*place, "method"),
                f"network '{network}' names no data set to rank with: take random, or a file",
            )
            return
        with self.noting((*place, "images")):
            self.resources.training_images(data, ranking.images)

    def _machines(self, place: Place, axes: Axes) -> list[tuple[str, Changes]]:
        """Load the machines, varied; return those that can be used."""
        sound = []
        for number, name in enumerate(axes.machines):
            with self.noting((*place, "machines", number)):
                for mistake in mistakes_in(name, ()):
                    raise InputError(mistake.message)
                base = self.resources.machine(name, ()).config
                known = True
                for varied_number, varied in enumerate(axes.vary):
                    try:
                        check_field(base, varied.field)
                    except InputError as reason:
                        self.say((*place, "vary", varied_number, "field"), str(reason))
                        known = False
                sound += [name] * known
        for number, varied in enumerate(axes.vary):
            if varied.field in (other.field for other in axes.vary[:number]):
                self.say((*place, "vary", number, "field"), f"{varied.field} stands there twice")
        usable = []
        for name, changes in variants(axes):
            wrong = list(mistakes_in(name, changes)) if name in sound and changes else []
            self.mistakes += [self._locate(place, axes, changes, each) for each in wrong]
            usable += [(name, changes)] * (name in sound and not wrong)
        return usable

    def _locate(self, place: Place, axes: Axes, changes: Changes, mistake: Mistake) -> Mistake:
        """Return a machine's mistake in the place of the value that makes it, if one does."""
        for number, (name, value) in enumerate(changes):
            if mistake.place == tuple(name.split(".")):
                at = axes.vary[number].values.index(value)
                return Mistake((*place, "vary", number, "values", at), mistake.message)
        together = ", ".join(f"{name} = {value}" for name, value in changes)
        where = ".".join(map(str, mistake.place))
        where = f"{where} " if where else ""
        return Mistake((*place, "vary"), f"with {together}: {where}{mistake.message}")

    def _faults(self, place: Place, axes: Axes, machines: list[tuple[str, Changes]]) -> None:
        """Check every fault on every machine that it may strike."""
        for number, faults in enumerate(axes.faults):
            there = (*place, "faults", number)
            with self.noting(there):
                traces_of(faults)
                if on_outputs(faults) or not machines:
                    faults_of([e for e in faults if not isinstance(e, SupplyFault)], None, {})
                    continue
                for name, changes in machines:
                    machine = self.resources.machine(name, changes)
                    for fault in faults_of(faults, machine, {}):
                        if isinstance(fault, Fault):
                            check_fault(fault, machine.config)
                    self._precision(faults, PRECISION_OF_FORMAT[machine.config.number_format])

    def _precision(self, faults: Sequence[StudyFault], own: str) -> None:
        """Faults in hardware strike words of the machine's number format."""
        settings = self.accuracy
        strikes = any(not isinstance(each, DropoutFault | NoiseFault) for each in faults)
        if settings is not None and settings.precision not in (None, own) and strikes:
            self.say(
                ("accuracy", "precision"),
                f"is {settings.precision}, but faults in hardware strike words of the machine's "
                f"number format: leave it out, or take {own}",
            )

    def _runs(
        self, place: Place, axes: Axes, networks: list[str], machines: list[tuple[str, Changes]]
    ) -> None:
        """Check that every network fits every machine, and that faults find their elements."""
        struck = [(n, each) for n, each in enumerate(axes.faults) if not on_outputs(each)]
        seen = set()
        for network, granularity in product(networks, axes.granularities):
            ranking = rank(self.resources.network(network), None, None, "random")
            splits = [ranking.split(share, granularity) for share in _telling(axes.fractions)]
            for name, changes in machines:
                machine = self.resources.machine(name, changes)
                sizes = network, granularity, schedule_key(machine.config)
                if sizes in seen and not struck:
                    continue
                seen.add(sizes)
                number = axes.machines.index(name)
                at = (*place, "vary") if changes else (*place, "machines", number)
                try:
                    for split in splits:
                        self._run(place, network, machine, split, struck)
                except InputError as reason:
                    self.say(at, f"{network} on {describe(name, changes)}: {reason}")

    def _run(
        self, place: Place, network: str, machine: Machine, split: Split,
        struck: list[tuple[int, Faults]],
    ) -> None:  # fmt: skip
        """Schedule a split on a machine; where faults strike it, simulate it and draw some."""
        workload = self.resources.network(network)
        if not struck:
            build_program(workload.layers, machine.config, split.unprotected)
            return
        run = simulate(workload, machine, split)
        means = {layer.name: 1.0 for layer in workload.neuron_layers}
        for number, faults in struck:
            with self.noting((*place, "faults", number)):
                listed = faults_of(faults, machine, means)
                in_hardware = [each for each in listed if isinstance(each, Fault)]
                mission = Mission(run.schedule, in_hardware)
                for fault in range(len(mission.faults)):
                    mission.strikes(fault, 0, 0)


def describe(machine: str, changes: Changes) -> str:
    """Return a machine's name with its changed values."""
    changed = ", ".join(f"{field} = {value}" for field, value in changes)
    return f"{machine} with {changed}" if changed else machine


def _telling(fractions: Sequence[float]) -> list[float]:
    """Return the shares that put neurons on each array that any of `fractions` puts some on."""
    inner = [fraction for fraction in fractions if 0 < fraction < 1]
    return [min(inner, key=lambda each: abs(each - 0.5))] if inner else sorted(set(fractions))
