"""What one point of a study is: ranking, split, machine and faults, as one flat record.

A record is a function of its point alone, whatever computed it and whatever was computed before.
What several points need (rankings, mean activations, runs, accuracies of alike splits) is computed
once: `Shared` keeps it for all workers, and each process keeps what it has loaded.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

from nce_sim.accuracy.accuracy_result import AccuracyResult
from nce_sim.accuracy.answers import Answers
from nce_sim.accuracy.draws import Draws
from nce_sim.accuracy.evaluate import evaluate, fault_free_answers, mean_activation
from nce_sim.accuracy.outcomes import TOP1_NAME, Outcome, outcome_named
from nce_sim.accuracy.statistics import Estimate, Proportion
from nce_sim.config.machine import Machine
from nce_sim.config.vary import changed_machine
from nce_sim.errors import InputError
from nce_sim.faults.models import FaultModel
from nce_sim.faults.ranking_in_loop import IN_LOOP, rank_in_loop
from nce_sim.machine.engine import Run, simulate
from nce_sim.resilience.ranking import Ranking, rank
from nce_sim.resilience.split import Split
from nce_sim.study.check import calibrates, on_outputs
from nce_sim.study.point import Point, Source, identity_of, ranking_parts
from nce_sim.study.protection_price import price
from nce_sim.study.resources import (
    Resources,
    data_record,
    fault_to_rank_for,
    faults_of,
    file_identity,
    machine_identity,
)
from nce_sim.study.store import Record, Shared
from nce_sim.workload.calibration import Calibration, calibrate
from nce_sim.workload.datasets import Dataset
from nce_sim.workload.graph import Workload


@dataclass(frozen=True)
class PointTask:
    """A point as work for `nce_sim.study.parallel`."""

    point: Point

    @property
    def identity(self) -> str:
        """The name of its record in a store."""
        return self.point.identity

    def compute(self, shared: Shared) -> Record:
        """Return the point's record."""
        return measure_point(self.point, shared)

    def __str__(self) -> str:
        return str(self.point)


class ChangedError(InputError):
    """A file is not what it was when the points were made."""


def measure_point(point: Point, shared: Shared) -> Record:
    """Return the record of a point: what was asked, and what was measured.

    Raises ChangedError if a file changed since the point was made, and InputError if the network
    does not fit the machine or a fault cannot strike it; checked studies have no such points.
    """
    return _Measurement(point, shared).record()


def draws_of(point: Point, record: Record, shared: Shared) -> Draws:
    """Return what was drawn for a point's accuracy; it is drawn again where it was not kept."""
    return shared.get(
        "draws", str(record["draws"]), lambda: _Measurement(point, shared).draws(), Draws.to_bytes,
        Draws.of,
    )  # fmt: skip


def ranking_of(point: Point, shared: Shared) -> Ranking:
    """Return the ranking of a point. Raises InputError if a file changed since it was made."""
    return _Measurement(point, shared).ranking()


class _Measurement:
    """One point on its way from names to figures."""

    def __init__(self, point: Point, shared: Shared) -> None:
        self.point, self.shared = point, shared
        self.network = _network(point.network)
        self.machine = None if point.machine is None else _machine(point.machine, point.changes)

    def record(self) -> Record:
        """Return the whole record."""
        point = self.point
        ranking = self.ranking()
        split = ranking.split(point.fraction, point.granularity)
        found: Record = {
            "network": self.network.name,
            "machine": None if point.machine is None else point.machine.name,
            "method": ranking.origin.method,
            "ranking": point.ranking.label,
            "granularity": point.granularity,
            "fraction": point.fraction,
            "fault": point.fault_text,
            "seed": point.seed,
            **dict(point.changes),
            "unprotected_neurons_share": split.unprotected_fraction,
            "unprotected_macs_share": macs_share(self.network, split),
        }
        if point.accuracy is not None:
            found |= self.accuracy(split)
        if point.cost:
            found |= cost_columns(self.run(split))
        return {**found, "identity": point.identity}

    def run(self, split: Split) -> Run:
        """Simulate the split, or take the run that this process has still at hand."""
        point, machine = self.point, self.machine
        assert machine is not None
        assert point.machine is not None
        of_split = point.network.identity, point.granularity, split.identity
        return _RUNS.get(
            of_split, point.machine.identity,
            lambda like: simulate(self.network, machine, split, like=like),
        )  # fmt: skip

    def ranking(self) -> Ranking:
        """Make the ranking, or take the one that another point made."""
        point = self.point
        recipe = point.ranking
        seeded = recipe.file is None and recipe.method in ("random", IN_LOOP)
        machine = point.machine if recipe.objective != "neurons" else None
        key = identity_of(
            "ranking", (point.network.name, point.network.identity), ranking_parts(point),
            point.input_hashes.get("ranking images"), point.input_hashes.get("ranking file"),
            point.seed if seeded else None, None if machine is None else machine.identity,
        )  # fmt: skip
        return self.shared.get("rankings", key, self._make_ranking, Ranking.to_bytes, _ranking_of)

    def _make_ranking(self) -> Ranking:
        recipe = self.point.ranking
        found = self._plain_ranking()
        if recipe.objective == "neurons":
            return found
        assert self.machine is not None
        return price(found, self.network, self.machine, recipe.objective)

    def _plain_ranking(self) -> Ranking:
        point, recipe = self.point, self.point.ranking
        if recipe.file is not None:
            if file_identity(recipe.file) != point.input_hashes["ranking file"]:
                raise _changed(recipe.file)
            return Ranking.load(Path(recipe.file), self.network)
        if recipe.method == "random":
            return rank(self.network, None, None, "random", seed=point.seed)
        shown = self.images("ranking images", recipe.images)
        fault = self._known_fault(shown)
        described = f"{shown.name}/{shown.part}, first {len(shown)}"
        if recipe.method == IN_LOOP:
            assert fault is not None
            return rank_in_loop(
                self.network, shown.images, shown.labels, fault, seed=point.seed, data=described
            )
        return rank(
            self.network, shown.images, shown.labels, recipe.method, fault=fault, data=described
        )

    def _known_fault(self, shown: Dataset) -> FaultModel | None:
        """Return the fault that the ranking is told of; noise is measured on the same images."""
        if self.point.ranking.fault is None:
            return None
        noise = self.point.ranking.fault.startswith("noise")
        means = mean_activation(self.network, shown.images) if noise else {}
        return fault_to_rank_for(self.point.ranking, means)

    def images(self, purpose: str, count: int | None) -> Dataset:
        """Return the test or training images that the point names."""
        assert self.point.data is not None
        return _images(self.point.data, purpose, count, self.point.input_hashes[purpose])

    def accuracy(self, split: Split) -> Record:
        """Measure accuracy, or take what another point with the same faulty network found."""
        point, settings = self.point, self.point.accuracy
        assert settings is not None
        no_fault = on_outputs(point.faults) and split.unprotected_neurons == 0
        machine = None if on_outputs(point.faults) else point.machine
        images = [each for each in point.inputs if not each[0].startswith("ranking")]
        key = identity_of(
            "accuracy", point.network.identity, images, split.identity,
            "none" if no_fault else [each.model_dump(mode="json") for each in point.faults],
            settings.model_dump(mode="json"), point.seed,
            None if machine is None else (machine.identity, point.granularity),
        )  # fmt: skip
        found = self.shared.get(
            "accuracies", key, lambda: self._measure_accuracy(split, key), _to_json, _from_json
        )
        return {**found, "draws": key} if compares_in_pairs(point) else found

    def draws(self) -> Draws:
        """Draw again what the accuracy rests on."""
        split = self.ranking().split(self.point.fraction, self.point.granularity)
        return self._evaluated(split).draws

    def _measure_accuracy(self, split: Split, key: str) -> Record:
        settings = self.point.accuracy
        assert settings is not None
        result = self._evaluated(split)
        found = accuracy_columns(result)
        if compares_in_pairs(self.point):
            self.shared.get("draws", key, lambda: result.draws, Draws.to_bytes, Draws.of)
        if settings.outcome != TOP1_NAME:
            found |= {"outcome": result.outcome, **_rate("score", result.harm.complement)}
            found["fault_free_score"] = 1 - result.fault_free_harm
        return found

    def _evaluated(self, split: Split) -> AccuracyResult:
        """Return the accuracy under the point's faults."""
        point, settings = self.point, self.point.accuracy
        assert settings is not None
        count = None if settings.images == "all" else settings.images
        test = self.images("test images", count)
        calibration = None
        means: Mapping[str, float] = {}
        if calibrates(settings, point.faults):
            means, calibration = self._seen_in_training(settings.calibration_images)
        faults = faults_of(point.faults, self.machine, means)
        outcome = outcome_named(settings.outcome)
        asked = partial(
            evaluate, self.network, test.images, test.labels, split,
            half_width=settings.half_width, realisations=settings.realisations or 1,
            seed=point.seed, confidence=settings.confidence, calibration=calibration,
            outcome=outcome,
        )  # fmt: skip
        if on_outputs(point.faults):
            fault_free = self._fault_free(test, calibration, outcome)
            return asked(faults[0], precision=settings.precision, fault_free=fault_free)
        paper = not any(hasattr(fault, "site") for fault in faults)
        precision = settings.precision or ("float32" if paper else None)
        return asked(faults, schedule=self.run(split).schedule, precision=precision)

    def _fault_free(
        self, test: Dataset, calibration: Calibration | None, outcome: Outcome
    ) -> Answers:
        """Return the answers without faults, which all points of a network share."""
        assert self.point.accuracy is not None
        precision = self.point.accuracy.precision or "float32"
        scales = calibration if precision == "int8" else None
        key = identity_of(
            "fault-free answers", self.point.network.identity,
            self.point.input_hashes["test images"], precision,
            None if scales is None else self.point.input_hashes["calibration images"],
            outcome.needs_confidence,
        )  # fmt: skip

        def answer() -> Answers:
            return fault_free_answers(
                self.network, test.images, precision=precision, calibration=scales,
                with_confidence=outcome.needs_confidence,
            )  # fmt: skip

        return self.shared.get("fault-free answers", key, answer, Answers.to_bytes, Answers.of)

    def _seen_in_training(self, count: int) -> tuple[Mapping[str, float], Calibration]:
        """Return mean activations and the calibration."""
        key = identity_of(
            "calibration", self.point.network.identity,
            self.point.input_hashes["calibration images"],
        )  # fmt: skip

        def measure() -> tuple[Mapping[str, float], Calibration]:
            train = self.images("calibration images", count)
            return mean_activation(self.network, train.images), calibrate(
                self.network, train.images
            )

        return self.shared.get(
            "calibrations", key, measure, _calibration_to_json, _calibration_from_json
        )


def compares_in_pairs(point: Point) -> bool:
    """Tell whether each draw of a point's accuracy has faults of its own, to be paired by draws.

    Under faults of the hardware that strike a fixed number of times, images may share them.
    """
    assert point.accuracy is not None
    return on_outputs(point.faults) or point.accuracy.half_width is not None


def macs_share(network: Workload, split: Split) -> float:
    """Return the share of the multiply-accumulates that the split leaves unprotected."""
    unprotected = sum(
        layer.reduction_length * int(split.unprotected[layer.name].sum())
        for layer in network.neuron_layers
    )
    total = sum(layer.reduction_length * layer.neurons for layer in network.neuron_layers)
    return unprotected / total


def cost_columns(run: Run) -> Record:
    """Return latency, energy, power and area of a run, with the ends of their ranges."""
    return {
        "latency_us": run.latency_us,
        "latency_cycles": run.latency_cycles,
        "energy_uj": run.energy.total_pj / 1e6,
        "energy_low_uj": run.energy.low_pj / 1e6,
        "energy_high_uj": run.energy.high_pj / 1e6,
        "power_w": run.power_mw / 1e3,
        "area_mm2": run.area.total_mm2,
        "area_low_mm2": run.area.low_mm2,
        "area_high_mm2": run.area.high_mm2,
    }


def accuracy_columns(result: AccuracyResult) -> Record:
    """Return rates with the ends of their intervals."""
    return {
        **_rate("accuracy", result.correct),
        "confidence": result.correct.confidence,
        "inferences": result.correct.trials,
        **_rate("fault_free", result.fault_free),
        **_rate("sdc", result.sdc),
        **_rate("critical_sdc", result.critical_sdc),
        **(_rate("due", result.due) if result.due is not None else {}),
        "half_width_reached": result.half_width_reached,
        "precision": result.precision,
    }


def _rate(name: str, rate: Proportion | Estimate) -> Record:
    return {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}


class _Runs:
    """The last runs of this process: they are large, and cheap to make again."""

    MOST = 4

    def __init__(self) -> None:
        self._kept: dict[tuple[tuple[str, ...], str], Run] = {}

    def get(
        self, of_split: tuple[str, ...], machine: str, make: Callable[[Run | None], Run]
    ) -> Run:
        """Return a run that is at hand, or make it; `make` is told of one on another machine."""
        alike = [run for (split, _), run in self._kept.items() if split == of_split]
        run = self._kept.pop((of_split, machine), None) or make(alike[-1] if alike else None)
        self._kept[of_split, machine] = run
        while len(self._kept) > self.MOST:
            del self._kept[next(iter(self._kept))]
        return run


_RUNS = _Runs()


@lru_cache(maxsize=4)
def _network(source: Source) -> Workload:
    network = Resources().network(source.place)
    if network.identity != source.identity:
        raise _changed(source.place)
    return network


@lru_cache(maxsize=256)
def _machine(source: Source, changes: tuple[tuple[str, Any], ...]) -> Machine:
    machine = changed_machine(source.place, changes)
    if machine_identity(machine) != source.identity:
        raise _changed(source.place)
    return machine


@lru_cache(maxsize=4)
def _images(data: str, purpose: str, count: int | None, identity: str) -> Dataset:
    resources = Resources()
    if purpose == "test images":
        found = resources.test_images(data, count)
        known = resources.data_identity(data, "test", count)
    else:
        assert count is not None
        found = resources.training_images(data, count)
        known = resources.data_identity(data, "training", count)
    if known != identity:
        raise _changed(f"data set {data_record(data).name}")
    return found


def _changed(what: str) -> ChangedError:
    return ChangedError(f"{what} changed since the study was planned: start it again")


def _ranking_of(content: bytes) -> Ranking:
    return Ranking.load(BytesIO(content))


def _to_json(record: Record) -> bytes:
    return json.dumps(record).encode()


def _from_json(content: bytes) -> Record:
    record: Record = json.loads(content)
    return record


def _calibration_to_json(seen: tuple[Mapping[str, float], Calibration]) -> bytes:
    return json.dumps([dict(seen[0]), asdict(seen[1])]).encode()


def _calibration_from_json(content: bytes) -> tuple[Mapping[str, float], Calibration]:
    means, calibration = json.loads(content)
    return means, Calibration(**calibration)
