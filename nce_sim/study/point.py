"""One point of a study: all that its record depends on, and nothing else."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import product
from pathlib import Path

import numpy as np
import torch

import nce_sim
from nce_sim.config.campaign import DropoutFault, NoiseFault
from nce_sim.config.salvage import whole
from nce_sim.config.study import (
    AccuracySettings,
    Axes,
    Faults,
    StudyConfig,
    StudyDraft,
    StudyRanking,
    SupplyFault,
)
from nce_sim.config.vary import Changes
from nce_sim.seeding import DRAWS
from nce_sim.study.check import Check, calibrates, describe, variants
from nce_sim.study.resources import Resources, file_identity, machine_identity, traces_of


@dataclass(frozen=True)
class Source:
    """Something that is loaded: by which name or path, what it is called, and what is in it."""

    place: str
    name: str
    identity: str


@dataclass(frozen=True)
class Point:
    """One point: network, machine, split, faults, and what is measured.

    `changes` are the fields in which the machine differs from its file. `accuracy` is None where
    only cost is measured. `inputs` are hashes of images, files and traces that the record depends
    on, by what they are for. A point is small: whoever computes it loads what it names.
    """

    network: Source
    machine: Source | None
    changes: Changes
    ranking: StudyRanking
    granularity: str
    fraction: float
    faults: Faults
    seed: int
    cost: bool
    accuracy: AccuracySettings | None
    data: str | None
    inputs: tuple[tuple[str, str], ...]

    @cached_property
    def identity(self) -> str:
        """A hash of everything that affects the record: equal points have equal records.

        Where files lie plays no part, nor which study asks.
        """
        machine = self.machine
        return identity_of(
            "point",
            (self.network.name, self.network.identity),
            None if machine is None else (machine.name, machine.identity, self.changes),
            ranking_parts(self),
            self.granularity,
            self.fraction,
            [fault.model_dump(mode="json") for fault in self.faults],
            self.seed,
            self.cost,
            None if self.accuracy is None else self.accuracy.model_dump(mode="json"),
            self.inputs,
        )

    def __str__(self) -> str:
        machine = None if self.machine is None else describe(self.machine.name, self.changes)
        parts = (
            self.network.name, machine, self.ranking.label, f"{self.fraction:g} by "
            f"{self.granularity}", self.fault_text, f"seed {self.seed}",
        )  # fmt: skip
        return ", ".join(part for part in parts if part is not None)

    @property
    def input_hashes(self) -> dict[str, str]:
        """Hashes of images, files and traces by what they are for."""
        return dict(self.inputs)

    @property
    def fault_text(self) -> str | None:
        """The faults in words; None if there are none."""
        return " + ".join(map(_fault_text, self.faults)) or None


def ranking_parts(point: Point) -> tuple[object, ...]:
    """Return what a point's ranking depends on beside network, machine and inputs."""
    recipe = point.ranking.model_dump(mode="json", exclude={"file"})
    name = None if point.ranking.file is None else Path(point.ranking.file).name
    return (recipe, name)


def identity_of(*parts: object) -> str:
    """Return a hash of plain data, and of what computes: 32 characters.

    The versions of nce-sim, torch and NumPy and the random generators belong to it.
    """
    versions = (nce_sim.__version__, DRAWS, torch.__version__, np.__version__)
    text = json.dumps((parts, versions), sort_keys=True, allow_nan=False)
    return sha256(text.encode()).hexdigest()[:32]


def _fault_text(fault: object) -> str:
    if isinstance(fault, DropoutFault):
        return f"dropout p = {fault.dropout:g}"
    if isinstance(fault, NoiseFault):
        return f"noise sigma = {fault.gaussian_noise:g}"
    if isinstance(fault, SupplyFault):
        return f"at its supply ({fault.at_supply})"
    content = fault.model_dump(mode="json", exclude_unset=True)  # type: ignore[attr-defined]
    parts = [content["site"], *(_record_text(content[part]) for part in ("process", "effect"))]
    return " ".join(parts)


def _record_text(content: dict[str, object]) -> str:
    """Return a record with its kind first."""
    rest = [f"{name} = {value}" for name, value in content.items() if name != "kind"]
    return " ".join([str(content["kind"]), *rest])


def points_of(
    study: StudyDraft | StudyConfig, resources: Resources | None = None
) -> tuple[Point, ...]:
    """Return all points of a study, in the order of its plan: the grid's, then the further ones.

    The study is checked as a whole first. Several points may be equal: see `Point.identity`.
    With `resources`, networks and machines that are loaded already serve again.

    Raises InputError with all mistakes: those in the file, and everything in it that cannot be
    found, does not fit, or would have no effect.
    """
    resources = resources or Resources()
    return expand(check_study(study, resources), resources)


def expand(study: StudyConfig, resources: Resources) -> tuple[Point, ...]:
    """Return the points of a study that `check_study` has passed."""
    return tuple(point for _, axes in study.parts for point in _points(study, axes, resources))


def check_study(study: StudyDraft | StudyConfig, resources: Resources) -> StudyConfig:
    """Return a study without mistakes; InputError names all of them otherwise."""
    return whole(
        study,
        lambda config, found: Check(config, resources, found).run(),
        lambda config: f"study '{config.name}' cannot be run",
    )


def _points(config: StudyConfig, axes: Axes, resources: Resources) -> Iterator[Point]:
    cost = "cost" in config.measure
    settings = (config.accuracy or AccuracySettings()) if "accuracy" in config.measure else None
    machines: list[tuple[Source | None, Changes]] = [
        _machine(*each, resources) for each in variants(axes)
    ] or [(None, ())]
    fault_sets: tuple[Faults, ...] = axes.faults or ((),)
    fractions = (0.0,) if config.of_rankings else axes.fractions
    traces = {faults: tuple(traces_of(faults)) for faults in fault_sets}
    for name in axes.networks:
        network = resources.network(name)
        source = Source(_absolute(name), network.name, network.identity)
        data = resources.data_of(name)
        for (machine, changes), ranking in product(machines, axes.rankings):
            hashes = _ranking_inputs(ranking, data, resources)
            for granularity, fraction, faults, seed in product(
                axes.granularities, fractions, fault_sets, axes.seeds
            ):
                inputs = (
                    *hashes,
                    *_accuracy_inputs(settings, faults, data, resources),
                    *(("trace", trace) for trace in traces[faults]),
                )
                yield Point(
                    source, machine, changes, ranking, granularity, fraction, faults, seed, cost,
                    settings, data, inputs,
                )  # fmt: skip


def _machine(
    name: str, changes: Changes, resources: Resources
) -> tuple[Source | None, Changes]:  # fmt: skip
    machine = resources.machine(name, changes)
    return Source(_absolute(name), machine.config.name, machine_identity(machine)), changes


def _absolute(name: str) -> str:
    """Return a path from the root, so that it holds in any process; a bundled name stays."""
    path = Path(name)
    return str(path.absolute()) if path.exists() else name


def _ranking_inputs(
    ranking: StudyRanking, data: str | None, resources: Resources
) -> list[tuple[str, str]]:
    if ranking.file is not None:
        return [("ranking file", file_identity(ranking.file))]
    if not ranking.needs_images:
        return []
    assert data is not None
    return [("ranking images", resources.data_identity(data, "training", ranking.images))]


def _accuracy_inputs(
    settings: AccuracySettings | None, faults: Faults, data: str | None, resources: Resources
) -> list[tuple[str, str]]:
    if settings is None:
        return []
    assert data is not None
    count = None if settings.images == "all" else settings.images
    found = [("test images", resources.data_identity(data, "test", count))]
    if calibrates(settings, faults):
        images = settings.calibration_images
        found.append(("calibration images", resources.data_identity(data, "training", images)))
    kind, _, file = settings.outcome.partition("=")
    if kind == "costs":
        found.append(("outcome file", file_identity(file)))
    return found
