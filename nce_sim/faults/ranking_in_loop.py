"""The fault-aware ranking with the faults in the loop.

The expansion behind `nce_sim.resilience.damage` is taken around the network without faults. Where
many neurons fail at once it is off: what one more failure costs depends on those that are there
already. Here the unprotected set grows step by step from nothing, and before each step the damage
is averaged over passes in which the neurons that are unprotected by then fail. Each step takes the
neurons that it finds least damaging, so that all splits of the ranking are nested.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.faults.block_draws import BlockDraws
from nce_sim.faults.injection import Injector
from nce_sim.faults.models import FaultModel, check_whole
from nce_sim.resilience.damage import Sensitivity, objective_of
from nce_sim.resilience.ranking import Progress, Ranking, rank, ranking_block, sum_over_blocks
from nce_sim.resilience.split import Split
from nce_sim.workload.execute import (
    Executable,
    blocks,
    forward,
    pad_places,
    prepare,
)
from nce_sim.workload.graph import Workload
from nce_sim.workload.images import Images
from nce_sim.workload.layer import Layer

IN_LOOP = "fault-in-loop"
"""The name of this method."""

FIRST_REALISATION = 1 << 32
"""Draws of the passes lie beyond those of any evaluation: a ranking that has met the very faults
under which it is judged is fitted to them.
"""

STEPS = 9
"""Passes with faults, where the caller asks for no other number: one for each tenth."""


def rank_in_loop(
    network: Workload,
    images: Images,
    labels: Tensor,
    fault: FaultModel,
    *,
    steps: int = STEPS,
    seed: int = 0,
    device: str = "cpu",
    data: str = "given by the caller",
    progress: Progress | None = None,
) -> Ranking:
    """Rank the neurons of `network` by the damage of `fault` while others fail too.

    The first pass over the images is that of the fault-aware ranking. `steps` further ones follow,
    in which 1, 2 ... of `steps` + 1 equal parts of the neurons are unprotected; every image meets
    new faults in every pass, drawn from `seed`. A neuron's score is the damage found in the pass
    before its step, moved by a constant for each step so that those of earlier steps come below.

    Raises InputError for images or labels that do not fit, and for fewer than one step.
    """
    check_whole(steps, "steps", 1)
    done = 0

    def advance(images_done: int, _: int) -> None:
        if progress is not None:
            progress(done + images_done, (steps + 1) * len(images))

    start = rank(
        network, images, labels, "fault-aware", fault=fault, device=device, data=data,
        progress=advance,
    )  # fmt: skip
    executable = prepare(network, "float32", device)
    growing = _Growing(start.relevance)
    for step in range(1, steps + 1):
        split = growing.grow(step / (steps + 1))
        done = step * len(images)
        draws = _draws(executable, seed, step, len(images))
        scores = StruckDamageScores(executable, fault, split, draws)
        sums = sum_over_blocks(network, scores, images, labels, device, advance)
        means = {name: (sums.even[name] + sums.odd[name]) / len(images) for name in sums.even}
        growing.scores = fault.scores(means)
    growing.grow(1.0)
    origin = replace(start.origin, method=IN_LOOP, seed=seed, stability=None)
    return Ranking(origin, growing.found, {})


def _draws(executable: Executable, seed: int, step: int, images: int) -> Iterator[BlockDraws]:
    """Yield the random numbers of each block of images; a step is a realisation of its own."""
    length = ranking_block(executable.network)
    for block in blocks(images, length):
        places = pad_places(range(block.start, block.stop), length)
        yield BlockDraws(executable, seed, FIRST_REALISATION + step, places)


class _Growing:
    """The unprotected set, and the scores of the neurons that have joined it.

    `scores` are the damages by which the next neurons are chosen, least damage first.
    """

    def __init__(self, scores: Mapping[str, NDArray[np.float64]]) -> None:
        self.scores = scores
        self.found = {name: np.zeros(values.shape) for name, values in scores.items()}
        self._joined = {name: np.zeros(values.shape, bool) for name, values in scores.items()}
        self._level = 0.0

    def grow(self, fraction: float) -> Split:
        """Let the least damaging neurons join until so large a share of all is unprotected.

        Returns the split. Of equally damaging ones the last in the network joins first, as in
        every ranking.
        """
        score, found, joined = (
            np.concatenate([values.ravel() for values in arrays.values()])
            for arrays in (self.scores, self.found, self._joined)
        )
        free = np.flatnonzero(~joined)
        count = int(fraction * len(score) + 0.5) - int(joined.sum())
        joining = free[np.argsort(-score[free], kind="stable")[::-1]][:count]
        if count:
            found[joining] = self._level + (score[joining] - score[joining[0]])
            self._level = float(np.nextafter(found[joining[-1]], np.inf))
            joined[joining] = True
        self.found, self._joined = self._by_layer(found), self._by_layer(joined)
        return Split(fraction, "neuron", self._joined)

    def _by_layer(self, flat: NDArray[Any]) -> dict[str, NDArray[Any]]:
        ends = np.cumsum([values.size for values in self.scores.values()])[:-1]
        parts = np.split(flat, ends)
        return {
            name: part.reshape(values.shape)
            for (name, values), part in zip(self.scores.items(), parts, strict=True)
        }


class StruckDamageScores:
    """The damage expected of every neuron's fault while the neurons of `split` fail too.

    Called once for each block of images in order, as `draws` has them.
    """

    def __init__(
        self, executable: Executable, fault: FaultModel, split: Split, draws: Iterator[BlockDraws]
    ) -> None:
        self.executable, self.fault = executable, fault
        self.injector = Injector(executable, split, fault)
        self.draws = draws

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return each neuron layer's damages, images x the layer's shape, float32."""
        hook = self.injector.hook(next(self.draws))
        read: dict[str, Tensor] = {}
        before: dict[str, Tensor] = {}
        after: dict[str, Tensor] = {}

        def strike(layer: Layer, inputs: Tensor, output: Tensor) -> Tensor:
            with torch.no_grad():
                struck = hook(layer, inputs, output.clone())
                lost = (struck == 0) & (output != 0)
                change = struck - output
            read[layer.name], before[layer.name] = inputs.detach(), output.detach()
            # A lost output passes no gradient on; one with noise passes all of it.
            after[layer.name] = torch.where(lost, 0.0, output + change)
            return after[layer.name]

        with torch.enable_grad():
            outputs = forward(self.executable, images.detach().requires_grad_(), hook=strike)
            objective = objective_of(self.fault.objective, outputs.flatten(1), labels)
        slopes = torch.autograd.grad(objective.sum(), list(after.values()))
        found = objective.detach()
        with torch.no_grad():
            return {
                layer.name: self.fault.damage(
                    Sensitivity(layer, read[layer.name], before[layer.name], slope, found)
                )
                for layer, slope in zip(self.executable.network.neuron_layers, slopes, strict=True)
            }
