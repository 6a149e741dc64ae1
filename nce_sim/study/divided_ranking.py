"""A ranking over many images, divided among workers: the sums of parts of them add up.

The parts and the order in which they are added do not depend on the workers, so that the ranking
is the same to the byte as that of `rank`.
"""

import base64
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from io import BytesIO
from typing import Protocol

import numpy as np
from torch import Tensor

from nce_sim.errors import InputError
from nce_sim.resilience.damage import Damaging
from nce_sim.resilience.ranking import (
    Ranking,
    Sums,
    add_parts,
    check_ranking,
    parts_of,
    ranking_of_sums,
    sums_of_part,
)
from nce_sim.study.parallel import Engine, Progress, run_tasks
from nce_sim.study.shared import Shared
from nce_sim.study.store import Record, Store
from nce_sim.study.worker import versions
from nce_sim.workload.datasets import load_data
from nce_sim.workload.graph import Workload
from nce_sim.workload.images import Images, pixel_bytes
from nce_sim.workload.models import load_model


class Inputs(Protocol):
    """Where a worker finds a network and the images to rank it by; small, hashable, picklable."""

    def load(self) -> tuple[Workload, Images, Tensor]:
        """Return the network, images and labels."""

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class NamedInputs:
    """A network and a part of a data set by the names that `load_model` and `load_data` know.

    `images` is the number of images from the first one on, None for all.
    """

    network: str
    data: str
    part: str = "train"
    images: int | None = None

    def load(self) -> tuple[Workload, Images, Tensor]:
        """Load both. Raises InputError as the two functions do."""
        data = load_data(self.data, self.part)
        if self.images is not None:
            data = data.first(self.images)
        network = load_model(self.network, lambda: data.images.shape[1:])
        return network, data.images, data.labels


@dataclass(frozen=True)
class RankingPart:
    """The sums over one part of the images, as a task for `run_tasks`."""

    identity: str
    inputs: Inputs
    method: str
    fault: Damaging | None
    precision: str
    number: int

    def __str__(self) -> str:
        return f"part {self.number} of the images for ranking by {self.method}"

    def compute(self, _: Shared) -> Record:
        """Return the sums as the text of a NumPy archive, since a record holds plain values."""
        network, images, labels = _loaded(self.inputs)
        part = parts_of(network, len(images))[self.number]
        sums = sums_of_part(network, images, labels, part, self.method, self.fault, self.precision)
        archive = BytesIO()
        named = {f"0{name}": values for name, values in sums.even.items()}
        named |= {f"1{name}": values for name, values in sums.odd.items()}
        np.savez(archive, **named)  # type: ignore[arg-type]
        return {
            "sums": base64.b64encode(archive.getvalue()).decode(),
            "crossed": json.dumps(sums.crossed),
        }


def rank_in_parts(
    inputs: Inputs, store: Store, engine: Engine | None = None, method: str = "lrp", *,
    fault: Damaging | None = None, precision: str = "float32",
    data: str = "given by the caller", progress: Progress | None = None,
) -> Ranking:  # fmt: skip
    """Rank as `rank` does, with the parts of the images as tasks of `engine`'s workers.

    The ranking is kept in the store, and finished parts until it is there, so that the same call
    resumes. Whoever asks for the same ranking meanwhile waits for it. `progress` counts parts.
    Raises InputError as `rank` and `run_tasks` do.
    """
    network, images, labels = _loaded(inputs)
    check_ranking(network, images, labels, method, fault, precision)
    if method == "random":
        raise InputError("ranking by 'random' looks at no image, so that there are no parts")
    whole = _identity(network, images, labels, method, str(fault), precision, data)
    parts = Store(store.folder / "parts" / whole)

    def make() -> Ranking:
        tasks = [
            RankingPart(_hash(whole, number), inputs, method, fault, precision, number)
            for number in range(len(parts_of(network, len(images))))
        ]
        run_tasks(tasks, parts, engine, progress)
        sums = add_parts(_kept_sums(parts, tasks))
        return ranking_of_sums(network, sums, len(images), method, fault, precision, data)

    ranking = store.shared.get(
        "ranking in parts", whole, make, Ranking.to_bytes, lambda kept: Ranking.load(BytesIO(kept))
    )
    shutil.rmtree(parts.folder, ignore_errors=True)
    return ranking


def _kept_sums(parts: Store, tasks: list[RankingPart]) -> Iterator[Sums]:
    """Yield the sums of each part in order; one at a time is in memory."""
    for task in tasks:
        record = parts.load(task.identity)
        assert record is not None
        with np.load(BytesIO(base64.b64decode(str(record["sums"])))) as archive:
            even, odd = (
                {name[1:]: archive[name] for name in archive.files if name[0] == half}
                for half in "01"
            )
        yield Sums(even, odd, json.loads(str(record["crossed"])))


@lru_cache(maxsize=1)
def _loaded(inputs: Inputs) -> tuple[Workload, Images, Tensor]:
    """Load inputs once for all tasks of a process."""
    return inputs.load()


def _identity(network: Workload, images: Images, labels: Tensor, *settings: str) -> str:
    content = sha256()
    for some in pixel_bytes(images):
        content.update(some)
    content.update(labels.contiguous().numpy().data)
    return _hash(network.identity, content.hexdigest(), settings, versions())


def _hash(*parts: object) -> str:
    return sha256(repr(parts).encode()).hexdigest()[:32]
