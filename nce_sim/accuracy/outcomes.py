"""What a wrong answer costs: an outcome turns answers into harm between 0 and 1.

The accuracy is one minus the mean harm where every wrong answer has harm 1. Other harms go through
the same sampling, intervals and comparisons.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nce_sim.accuracy.answers import NOT_FINITE, Answers
from nce_sim.errors import InputError


class Outcome(Protocol):
    """Judges units of `unit` consecutive images of the test set.

    `name` says in words what is harmful; it tells outcomes apart.
    """

    @property
    def name(self) -> str:
        """What is harmful, in words."""
        ...

    @property
    def unit(self) -> int:
        """Consecutive images that are judged together."""
        ...

    @property
    def needs_confidence(self) -> bool:
        """Whether `harm` reads the answers' confidences."""
        ...

    def harm(self, answers: Answers, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return each unit's harm, from 0 to 1; answers and labels are units x unit images.

        The worst harm replaces what is returned for a unit all of whose outputs hold NaN or
        infinity.
        """
        ...


@dataclass(frozen=True)
class TopOneWrong:
    """Harm 1 for every answer that is not the label."""

    name: str = "top-1 wrong"
    unit: int = 1
    needs_confidence: bool = False

    def harm(self, answers: Answers, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return 1 for wrong answers."""
        return (answers.classes != labels).astype(float).max(axis=1)


@dataclass(frozen=True)
class PersistentErrors:
    """Harm 1 where all of `unit` consecutive images are answered wrongly.

    The test set is cut into runs of so many images, beginning with its first; what is left over
    at its end is not used.
    """

    unit: int
    needs_confidence: bool = False

    def __post_init__(self) -> None:
        if self.unit < 1:
            raise InputError(f"errors persist over at least 1 image, not {self.unit}")

    @property
    def name(self) -> str:
        """What is harmful, in words."""
        return f"wrong on {self.unit} consecutive images"

    def harm(self, answers: Answers, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return 1 for runs that are wrong throughout."""
        return (answers.classes != labels).all(axis=1).astype(float)


@dataclass(frozen=True)
class ConfidentErrors:
    """Harm 1 for a wrong answer whose softmax is at least `threshold`."""

    threshold: float
    unit: int = 1
    needs_confidence: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise InputError(f"a softmax threshold lies from 0 to 1, not {self.threshold}")

    @property
    def name(self) -> str:
        """What is harmful, in words."""
        return f"wrong with confidence of at least {self.threshold:g}"

    def harm(self, answers: Answers, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return 1 for wrong answers that look sure."""
        assert answers.confidences is not None
        sure = answers.confidences >= np.float32(self.threshold)
        return ((answers.classes != labels) & sure).astype(float).max(axis=1)


@dataclass(frozen=True, eq=False)
class ConfusionCosts:
    """Harm `costs[label, answer]`: a classes x classes matrix from 0 to 1."""

    costs: NDArray[np.float64] = field(repr=False)
    name: str = "confusion costs"
    unit: int = 1
    needs_confidence: bool = False

    def __post_init__(self) -> None:
        shape = np.shape(self.costs)
        if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 2:
            raise InputError(f"{self.name}: costs are a classes x classes matrix, not {shape}")
        if not ((self.costs >= 0) & (self.costs <= 1)).all():
            raise InputError(f"{self.name}: every cost must be from 0 to 1")

    @staticmethod
    def from_csv(path: Path) -> "ConfusionCosts":
        """Read a matrix of numbers with commas: rows are labels, columns are answers."""
        try:
            costs = np.loadtxt(path, delimiter=",", ndmin=2)
        except (OSError, ValueError) as reason:
            raise InputError(f"{path}: cannot be read as a matrix of costs ({reason})") from reason
        return ConfusionCosts(costs, f"confusion costs of {path.name}")

    def harm(self, answers: Answers, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return each answer's cost."""
        largest = max(int(labels.max()), int(answers.classes.max()))
        if largest >= len(self.costs):
            raise InputError(
                f"{self.name}: the matrix has {len(self.costs)} classes, and class {largest} came"
            )
        return self.costs[labels, answers.classes].max(axis=1)


TOP1 = TopOneWrong()
TOP1_NAME = "top-1"
KINDS = "top-1, costs=FILE.csv, confident=THRESHOLD, persistent=IMAGES or package.module:factory"


def judged(outcome: Outcome, answers: Answers, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the harm of every unit of the images, in order; images beyond the last are left out.

    `answers` and `labels` are flat, and begin with a unit. Raises InputError if the outcome
    returns anything but one number from 0 to 1 for each unit.
    """
    units = len(labels) // outcome.unit
    if units < 1:
        raise InputError(f"'{outcome.name}' needs at least {outcome.unit} images")
    used, shape = units * outcome.unit, (units, outcome.unit)
    sure = answers.confidences
    shaped = Answers(
        answers.classes[:used].reshape(shape), None if sure is None else sure[:used].reshape(shape)
    )
    harm = np.array(outcome.harm(shaped, labels[:used].reshape(shape)), float)
    if harm.shape != (units,):
        raise InputError(f"'{outcome.name}' must return {units} numbers, not shape {harm.shape}")
    harm[(shaped.classes == NOT_FINITE).all(axis=1)] = 1
    if not ((harm >= 0) & (harm <= 1)).all():
        raise InputError(f"'{outcome.name}' must return harms from 0 to 1")
    return harm


def outcome_named(text: str) -> Outcome:
    """Return the outcome of a text like those in `KINDS`; raises InputError for others."""
    kind, _, value = text.partition("=")
    if text == TOP1_NAME:
        return TOP1
    if kind == "costs" and value:
        return ConfusionCosts.from_csv(Path(value))
    try:
        if kind == "confident":
            return ConfidentErrors(float(value))
        if kind == "persistent":
            return PersistentErrors(int(value))
    except ValueError as reason:
        raise InputError(f"outcome '{text}': '{value}' is not a number") from reason
    if ":" in text:
        return _imported(text)
    raise InputError(f"unknown outcome '{text}': known are {KINDS}")


def _imported(text: str) -> Outcome:
    module, _, factory = text.partition(":")
    try:
        made: Outcome = getattr(import_module(module), factory)()
    except (ImportError, AttributeError, TypeError, ValueError) as reason:
        raise InputError(f"outcome '{text}' cannot be made: {reason}") from reason
    check_outcome(made)
    return made


def check_outcome(outcome: Outcome) -> None:
    """Raise InputError for an object that lacks what an outcome needs."""
    wanted: Sequence[tuple[str, type]] = (
        ("name", str), ("unit", int), ("needs_confidence", bool),
    )  # fmt: skip
    fits = all(isinstance(getattr(outcome, name, None), kind) for name, kind in wanted)
    if not fits or not callable(getattr(outcome, "harm", None)) or outcome.unit < 1:
        raise InputError(
            f"{outcome!r} is no outcome: it needs a name (text), unit (1 or more images), "
            f"needs_confidence (true or false) and a method harm(answers, labels)"
        )
