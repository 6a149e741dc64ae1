"""The ranking of all neurons of a network, least resilient first, and how it is made and kept."""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Protocol, get_args
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.errors import InputError
from nce_sim.files import write_atomically
from nce_sim.resilience.baselines import SCORES, GradientScores
from nce_sim.resilience.conductance import conductance
from nce_sim.resilience.correlation import correlation_of_scores
from nce_sim.resilience.damage import DamageScores, Damaging
from nce_sim.resilience.relevance import PRECISIONS, RULES, RelevancePropagation
from nce_sim.resilience.rules import Additions, ZPlus
from nce_sim.resilience.split import (
    Alignment,
    Block,
    Split,
    aligned_split,
    check_units,
    neuron_split,
    unit_split,
)
from nce_sim.seeding import generator
from nce_sim.workload.execute import (
    blocks,
    check_device,
    pad_block,
    prepare,
)
from nce_sim.workload.graph import Workload
from nce_sim.workload.images import Images
from nce_sim.workload.layout import fast_layout, from_position, rows_by_position

METHODS = (*RULES, *SCORES, "conductance", "fault-aware", "random")
"""Ways to rank; all but "random" look at images."""

Progress = Callable[[int, int], None]
"""Told (images done, images in all) after every block."""


PART = 4096
"""Images whose sums are one term, however many workers share the terms: as many whole blocks as
fit, an even number of them."""

CACHED = 2**21
"""Outputs of one layer, of all images of a pass, that a processor's last cache can hold."""

LEAST_PASS = 2
"""Images of a pass even where they fit no cache: each pass reads all weights."""

HELD = 2**28
"""Outputs of all layers, of all images of a block, that are held at once."""

FIRST_LOOK = 256
"""Images before it is first looked whether the order has settled."""


@dataclass(frozen=True)
class Origin:
    """What made a ranking. `stability` is the Spearman correlation between the rankings of the
    even and of the odd blocks of images; None where there were fewer than two blocks, one half
    found all neurons alike, or it was not measured. `fault` is the fault that a fault-aware ranking
    knew, or that an exhaustive one injected.
    `objective` is what damage is weighed against: the cost of protecting in energy or latency
    (`nce_sim.study.protection_price`), or "neurons" where each counts alike.
    """

    method: str
    network: str
    network_identity: str
    data: str
    images: int
    seed: int | None
    precision: str
    stability: float | None
    fault: str | None = None
    objective: str = "neurons"


@dataclass(frozen=True)
class Ranking:
    """Mean relevance of every neuron, by layer in the network's order.

    `relevance` maps a layer's name to a float64 array of the layer's shape (C x H x W or
    features). For methods other than "lrp" it holds their score: what matters is the order.
    `lost_relevance` is the share of an image's relevance (1) that never reached a layer,
    averaged over the images; only "lrp" has it. Where a network branches, a layer holds only its
    branch's part of the 1: what is lost is then what does not cross the cut of the graph behind
    the layer, summed over all that crosses it.
    """

    origin: Origin
    relevance: Mapping[str, NDArray[np.float64]]
    lost_relevance: Mapping[str, float]

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return sum(values.size for values in self.relevance.values())

    @cached_property
    def resilience(self) -> Mapping[str, NDArray[np.float64]]:
        """Resilience r = 1 / mean relevance (eq. 3): infinite where there is none."""
        with np.errstate(divide="ignore"):
            return {name: 1.0 / values for name, values in self.relevance.items()}

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """Indices of all neurons, least resilient first.

        A neuron's index counts the layers in order and, within a layer, channel, row, column.
        Of equally resilient neurons the one with the lower index comes first.
        """
        scores = np.concatenate([values.ravel() for values in self.relevance.values()])
        return np.argsort(-scores, kind="stable")

    @cached_property
    def places(self) -> Mapping[str, NDArray[np.int32]]:
        """Place of each neuron in `order`, by layer, in the layer's shape: its inverse.

        The first split by neuron sorts all neurons for this, which takes seconds for VGG-16's 13.5
        million, and keeps 12 bytes a neuron with the order; each further split is a comparison.
        """
        flat = np.empty(self.neurons, np.int32)
        flat[self.order] = np.arange(self.neurons, dtype=np.int32)
        ends = np.cumsum([values.size for values in self.relevance.values()])
        return {
            name: part.reshape(values.shape)
            for (name, values), part in zip(
                self.relevance.items(), np.split(flat, ends[:-1]), strict=True
            )
        }

    def split(
        self,
        unprotected_fraction: float,
        granularity: str = "neuron",
        *,
        block: Block | None = None,
        align: Alignment | None = None,
    ) -> Split:
        """Return the split that leaves the most resilient share of the neurons unprotected.

        `granularity` is one of `nce_sim.resilience.split.GRANULARITIES`; `neuron_split` and
        `unit_split` there say how shares are rounded. `block`, with "block", is (rows, columns) of
        positions, (4, 4) if not given. `align`, with "neuron", rounds to whole waves of an array:
        see `aligned_split`. All splits of one ranking and one kind of unit are nested.

        Raises InputError for a fraction outside [0, 1], an unknown granularity, a wrong block and
        options that do not go together.
        """
        check_units(granularity, block, align)
        if align is not None:
            return aligned_split(self.relevance, self.places, unprotected_fraction, align)
        if granularity == "neuron":
            return neuron_split(self.places, unprotected_fraction)
        return unit_split(self.relevance, unprotected_fraction, granularity, block)

    def check_unpriced(self) -> None:
        """Raise InputError if scores are damage per cost already."""
        if self.origin.objective != "neurons":
            raise InputError(
                f"the ranking is by price of {self.origin.objective} already: give the one that it "
                f"was made from"
            )

    def save(self, path: Path | str) -> None:
        """Write the ranking as a NumPy archive without pickled objects."""
        write_atomically(Path(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return what `save` writes."""
        description = json.dumps({**asdict(self.origin), "lost": dict(self.lost_relevance)})
        archive = io.BytesIO()
        np.savez(archive, origin=np.array(description), **self.relevance)  # type: ignore[arg-type]
        return archive.getvalue()

    @staticmethod
    def load(path: Path | str | io.BytesIO, network: Workload | None = None) -> "Ranking":
        """Read a ranking; with `network`, refuse one that was made for another network."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                description = json.loads(str(archive["origin"]))
                relevance = {name: archive[name] for name in archive.files if name != "origin"}
            lost = description.pop("lost")
            ranking = Ranking(Origin(**description), relevance, lost)
        except (
            OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, BadZipFile,
        ) as reason:  # fmt: skip
            raise InputError(f"{path} cannot be read as a ranking: {reason}") from reason
        if network is not None and ranking.origin.network_identity != network.identity:
            raise InputError(
                f"{path} was made for network '{ranking.origin.network}' with other weights or "
                f"structure than '{network.name}': rank it again"
            )
        return ranking


@dataclass(frozen=True)
class Sums:
    """What was summed over images, layer by layer.

    `even` and `odd` are the scores of the even and of the odd blocks of images, in the layer's
    shape. `crossed` is the relevance that crosses the cut of the graph behind each layer; it is
    empty where that is the layer's own, and for methods that do not share relevance out.
    """

    even: dict[str, NDArray[np.float64]]
    odd: dict[str, NDArray[np.float64]]
    crossed: dict[str, float]

    def copy(self) -> "Sums":
        """Return sums of their own memory."""
        even, odd = (
            {name: values.copy() for name, values in half.items()} for half in (self.even, self.odd)
        )
        return Sums(even, odd, dict(self.crossed))

    def add(self, more: "Sums") -> None:
        """Take further sums in."""
        for mine, theirs in ((self.even, more.even), (self.odd, more.odd)):
            for name, values in theirs.items():
                mine[name] += values
        for name, held in more.crossed.items():
            self.crossed[name] = self.crossed.get(name, 0.0) + held


class BlockScores(Protocol):
    """Scores of every neuron for a block of images, by layer, images x the layer's shape."""

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the scores of one block."""


def rank(
    network: Workload,
    images: Images | None,
    labels: Tensor | None,
    method: str = "lrp",
    *,
    fault: Damaging | None = None,
    seed: int = 0,
    precision: str = "float32",
    device: str = "cpu",
    data: str = "given by the caller",
    progress: Progress | None = None,
    additions: Additions = "positive",
    stop_at: float | None = None,
) -> Ranking:
    """Rank the neurons of `network` by their mean relevance over `images`.

    `method` is one of `METHODS`; "random" takes None for images and labels and draws each
    resilience as |N(0, 1)| from `seed`, and the others need no seed. Signed credit ("lrp-epsilon",
    "lrp-gamma", "conductance") counts by its magnitude in each image. "fault-aware" takes a
    `fault`, Dropout, GaussianNoise or `expected_damage` of a fault of the hardware, and ranks by
    the damage that is expected from it. `additions`, with "lrp", says by what a residual addition
    shares relevance among its branches: by their positive parts, or by what they add ("signed"),
    where credit of both signs arises and counts by its magnitude. `precision` is "float32" or, for
    "lrp", "mixed" or "bf16": see `RelevancePropagation`. Images are streamed in blocks: memory does
    not grow with their number.

    `stop_at` ends the ranking early: as soon as the Spearman correlation between the rankings of
    the even and of the odd blocks is at least that much, after one of the numbers of images that
    `looks` returns. It is then the ranking of so many images, byte for byte; its origin has their
    number.

    Raises InputError for an unknown method and for images or labels that do not fit.
    """
    if method != "random" or fault is not None:
        check_ranking(network, images, labels, method, fault, precision, device, additions)
    if stop_at is not None and (method == "random" or not 0 < stop_at <= 1):
        raise InputError(
            f"stop_at {stop_at} with method '{method}': it must be above 0 and at most 1, the "
            f"correlation of two halves of the images, and a random ranking looks at none"
        )
    if method == "random":
        return _random_ranking(network, seed)
    assert images is not None
    assert labels is not None
    scores = _scores(network, method, fault, precision, device, additions)
    sums, seen = _sum_until(network, scores, images, labels, device, progress, stop_at)
    return ranking_of_sums(network, sums, seen, method, fault, precision, data, additions=additions)


def check_ranking(
    network: Workload, images: Images | None, labels: Tensor | None, method: str,
    fault: Damaging | None = None, precision: str = "float32", device: str = "cpu",
    additions: Additions = "positive",
) -> None:  # fmt: skip
    """Raise InputError unless a network can be ranked so by these images."""
    if method not in METHODS:
        raise InputError(f"unknown ranking method '{method}': known are {', '.join(METHODS)}")
    if (fault is not None) != (method == "fault-aware"):
        raise InputError(
            f"ranking by '{method}' takes no fault: only 'fault-aware' does"
            if fault is not None
            else "ranking by 'fault-aware' needs a fault, such as fault=Dropout(0.5)"
        )
    if additions not in get_args(Additions) or (additions == "signed" and method != "lrp"):
        raise InputError(
            f"additions '{additions}' with method '{method}': lrp knows "
            f"{' and '.join(get_args(Additions))}, the others positive only"
        )
    if images is None or labels is None:
        raise InputError(f"ranking by '{method}' needs images and labels; only 'random' does not")
    network.check_images(images)
    network.check_labels(images, labels)
    known = PRECISIONS if method == "lrp" else ("float32",)
    if precision not in known:
        raise InputError(f"precision '{precision}': {method} knows {', '.join(known)}")
    check_device(device)


def parts_of(network: Workload, images: int) -> list[slice]:
    """Cut images into the parts whose sums are added: a matter of network and number alone."""
    block = ranking_block(network)
    return list(blocks(images, max(2 * block, PART // (2 * block) * (2 * block))))


def sums_of_part(
    network: Workload, images: Images, labels: Tensor, part: slice, method: str,
    fault: Damaging | None = None, precision: str = "float32", device: str = "cpu",
) -> Sums:  # fmt: skip
    """Return the summed scores of one of `parts_of` the images; `rank` describes the rest."""
    check_ranking(network, images, labels, method, fault, precision, device)
    scores = _scores(network, method, fault, precision, device, "positive")
    running = RunningSums(network)
    for _ in running.take(scores, images, labels, part, device):
        pass
    return running.sums()


def ranking_block(network: Workload) -> int:
    """Images in a block of ranking: 64, fewer for networks of very many neurons.

    A property of the network alone, so that no result depends on workers or memory.
    """
    return max(1, min(64, HELD // network.neurons))


def pass_length(network: Workload) -> int:
    """Images that go through the network at once: so few that the maps of a layer stay in a cache.

    A property of the network alone, as `ranking_block` is, which it does not exceed.
    """
    largest = max(prod(layer.out_shape) for layer in network.layers)
    fitting = 1 << max(CACHED // largest, 1).bit_length() - 1
    return min(ranking_block(network), max(fitting, LEAST_PASS))


def add_parts(parts: Iterable[Sums]) -> Sums:
    """Return the sum of the parts, added in their order; the first of them becomes it."""
    remaining = iter(parts)
    total = next(remaining)
    for part in remaining:
        total.add(part)
    return total


def ranking_of_sums(
    network: Workload, sums: Sums, images: int, method: str, fault: Damaging | None = None,
    precision: str = "float32", data: str = "given by the caller",
    additions: Additions = "positive",
) -> Ranking:  # fmt: skip
    """Return the ranking that follows from the scores summed over all `images`."""
    even, odd = sums.even, sums.odd
    relevance: Mapping[str, NDArray[np.float64]] = {
        name: (even[name] + odd[name]) / images for name in even
    }
    if fault is not None:
        relevance = fault.scores(relevance)
    return Ranking(
        Origin(
            method=method if additions == "positive" else f"{method}, {additions} additions",
            network=network.name,
            network_identity=network.identity,
            data=data,
            images=images,
            seed=None,
            precision=precision,
            stability=correlation_of_scores(even, odd) if images > ranking_block(network) else None,
            fault=None if fault is None else str(fault),
        ),
        relevance,
        _lost(sums.crossed, relevance, images)
        if method == "lrp" and additions == "positive"
        else {},
    )


def _lost(
    crossed: Mapping[str, float], relevance: Mapping[str, NDArray[np.float64]], images: int
) -> dict[str, float]:
    """Return the share of each image's relevance that was lost before each layer."""
    return {
        name: 1.0 - (crossed[name] / images if crossed else float(values.sum()))
        for name, values in relevance.items()
    }


def _scores(
    network: Workload, method: str, fault: Damaging | None, precision: str, device: str,
    additions: Additions,
) -> BlockScores:  # fmt: skip
    """Return what scores a block of images; signed credit counts by its magnitude."""
    if additions == "signed":
        rule = ZPlus(additions)
        return _Magnitudes(RelevancePropagation(network, rule, precision, device))
    if method == "lrp":
        return RelevancePropagation(network, RULES[method], precision, device)
    if method in RULES:
        return _Magnitudes(RelevancePropagation(network, RULES[method], precision, device))
    executable = prepare(network, "float32", device)
    if method == "conductance":
        return _Magnitudes(partial(conductance, executable))
    if fault is not None:
        return DamageScores(executable, fault)
    return GradientScores(executable, SCORES[method])


@dataclass(frozen=True)
class _Magnitudes:
    """The magnitudes of signed scores, image by image.

    A neuron that speaks for the label in one image and against it in the next matters in both, so
    that its scores must not cancel.
    """

    signed: BlockScores

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the magnitudes of one block."""
        return {name: values.abs() for name, values in self.signed(images, labels).items()}


def sum_over_blocks(
    network: Workload,
    scores: BlockScores,
    images: Images,
    labels: Tensor,
    device: str,
    progress: Progress | None,
) -> Sums:
    """Return the scores summed over the even and over the odd blocks of images, part by part."""
    return _sum_until(network, scores, images, labels, device, progress, None)[0]


def looks(network: Workload, images: int) -> set[int]:
    """Return after how many images it is looked whether the order has settled.

    The first look is after 256, or the whole pairs of blocks below that, and each further one after
    twice as many: a matter of network and number alone. The last image needs no look.
    """
    pair = 2 * ranking_block(network)
    first = max(pair, FIRST_LOOK // pair * pair)
    return {
        first << doubling for doubling in range(images.bit_length()) if first << doubling < images
    }


def _sum_until(
    network: Workload,
    scores: BlockScores,
    images: Images,
    labels: Tensor,
    device: str,
    progress: Progress | None,
    stop_at: float | None,
) -> tuple[Sums, int]:
    """Return the summed scores, and of how many images they are.

    These are all, or those after which the two halves first agree to `stop_at`.
    """
    places = set() if stop_at is None else looks(network, len(images))
    done: Sums | None = None
    for part in parts_of(network, len(images)):
        running = RunningSums(network)
        for seen in running.take(scores, images, labels, part, device):
            if progress is not None:
                progress(seen, len(images))
            if stop_at is None or seen not in places:
                continue
            so_far = running.sums() if done is None else add_parts((done.copy(), running.sums()))
            agreement = correlation_of_scores(so_far.even, so_far.odd)
            if agreement is not None and agreement >= stop_at:
                return so_far, seen
        done = running.sums() if done is None else add_parts((done, running.sums()))
    assert done is not None
    return done, len(images)


class RunningSums:
    """The scores of one part, summed block by block."""

    def __init__(self, network: Workload) -> None:
        self._network = network
        self._crossed: dict[str, float] = {}
        self._halves: tuple[dict[str, NDArray[np.float64]], ...] = tuple(
            {layer.name: np.zeros(layer.outputs) for layer in network.neuron_layers}
            for _ in range(2)
        )

    def take(
        self, scores: BlockScores, images: Images, labels: Tensor, part: slice, device: str
    ) -> Iterator[int]:
        """Add the images of a part, block by block; yield how many were seen, from the first on."""
        length = ranking_block(self._network)
        for number, place in enumerate(blocks(part.stop - part.start, length)):
            block = slice(part.start + place.start, part.start + place.stop)
            padded = fast_layout(pad_block(images[block], length).to(device))
            targets = pad_block(labels[block], length).to(device)
            counted, half = block.stop - block.start, self._halves[number % 2]
            if isinstance(scores, RelevancePropagation):
                self._propagate(scores, padded, targets, counted, half)
            else:
                for name, values in scores(padded, targets).items():
                    half[name] += _total(values[:counted])
            yield block.stop

    def _propagate(
        self, scores: RelevancePropagation, images: Tensor, labels: Tensor, counted: int,
        half: dict[str, NDArray[np.float64]],
    ) -> None:  # fmt: skip
        """Add the relevance of the first `counted` images of a block to a half."""

        def take(first: int, layer: str, relevance: Tensor, crossing: Tensor | None) -> None:
            wanted = slice(counted - first)
            half[layer] += _total(relevance[wanted])
            if crossing is not None:
                crossed = float(crossing[wanted].sum())
                self._crossed[layer] = self._crossed.get(layer, 0.0) + crossed

        scores.propagate(images, labels, counted, pass_length(self._network), take)

    def sums(self) -> Sums:
        """Return the sums so far, in the layers' shapes; they may share memory with later ones."""
        shapes = {layer.name: layer.out_shape for layer in self._network.neuron_layers}
        even, odd = (
            {name: from_position(values, shapes[name]) for name, values in half.items()}
            for half in self._halves
        )
        return Sums(even, odd, dict(self._crossed))


def _total(scores: Tensor) -> NDArray[np.float32]:
    """Return the sum over images in float32, whatever the type, in the order of positions.

    Image by image reads the maps in their order in memory; torch's own sum does not.
    """
    rows = rows_by_position(scores)
    total = torch.zeros_like(rows[0], dtype=torch.float32)
    for row in rows:
        total.add_(row)
    return total.cpu().numpy()


def _random_ranking(network: Workload, seed: int) -> Ranking:
    """Draw each neuron's resilience as the absolute value of a unit normal sample."""
    random = generator(seed, "random ranking")
    relevance = {
        layer.name: 1.0 / np.abs(random.standard_normal(layer.out_shape))
        for layer in network.neuron_layers
    }
    origin = Origin(
        "random", network.name, network.identity, "none", 0, seed, "float64", None
    )  # fmt: skip
    return Ranking(origin, relevance, {})
