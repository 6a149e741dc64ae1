"""One block of images under many variants: what the variants share is computed once.

They share the random draws, and all that comes before their first unprotected neuron: a variant's
inference begins at the layer that holds it, from outputs kept from the inference without faults.
"""

import threading
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nce_sim.accuracy.answers import Answers, top1, top1_confidence
from nce_sim.accuracy.checkpoint import Block
from nce_sim.faults.block_draws import BlockDraws, Scratch
from nce_sim.faults.injection import Injector
from nce_sim.workload.execute import Executable, forward, pad_block, pad_places
from nce_sim.workload.layer import INPUT, Layer
from nce_sim.workload.layout import restore_shape, rows_by_position

BLOCK = 16
"""Images in a block at most: what one thread computes at a time, and its maps stay in the cache."""


class Memory(threading.local):
    """Each thread's own memory to work in."""

    def __init__(self) -> None:
        self.scratch = Scratch()


class BlockRunner:
    """Runs one block of images without faults and under every one of `injectors`.

    `images` are padded to `length`. `with_confidence` keeps the answers' softmax as well.
    """

    def __init__(
        self,
        executable: Executable,
        images: Tensor,
        length: int,
        scratch: Scratch,
        injectors: Sequence[Injector],
        with_confidence: bool = False,
    ) -> None:
        self.executable, self.scratch, self.injectors = executable, scratch, injectors
        self.with_confidence = with_confidence
        self.count, self.length = len(images), length
        self.layers = executable.network.layers
        self.starts = [self._start(injector) for injector in injectors]
        with torch.inference_mode():
            self.kept = {INPUT: executable.images(pad_block(images, length))}

    def predict_all(
        self, seed: int, realisations: int, first: int, fault_free: Answers | None
    ) -> Block:
        """Return the block's predictions without faults and under every injector.

        `first` is the place of the block's first image. Without faults they are computed unless
        they are known.
        """
        shape = len(self.injectors), realisations, self.count
        classes = np.empty(shape, np.int16)
        sure = np.empty(shape, np.float32) if self.with_confidence else None
        places = range(first, first + self.count)
        clean = fault_free or self.predict_clean()
        for realisation in range(realisations):
            draws = self.draws(seed, [realisation] * self.count, places)
            for row in range(len(self.injectors)):
                answers = self.predict(row, draws)
                classes[row, realisation] = answers.classes
                if sure is not None:
                    sure[row, realisation] = answers.confidences
        return Block(clean, Answers(classes, sure))

    def draws(self, seed: int, realisations: Sequence[int], places: Sequence[int]) -> BlockDraws:
        """Return the draws for the images at `places`, the last repeated like the padding."""
        each, padded = pad_places(realisations, self.length), pad_places(places, self.length)
        return BlockDraws(self.executable, seed, each, padded, self.scratch)

    def predict_clean(self) -> Answers:
        """Return the answer for every image of the block without faults."""
        with torch.inference_mode():
            return self._answers(self._run_clean(self.layers))

    def predict(self, row: int, draws: BlockDraws) -> Answers:
        """Return the answer for every image of the block under an injector."""
        start, injector = self.starts[row], self.injectors[row]
        layer, rest = self.layers[start], self.layers[start + 1 :]
        with torch.inference_mode():
            if layer.name not in self.kept:
                self._run_clean(self.layers[: max(self.starts) + 1])
            output = self.kept[layer.name]
            if layer.has_neurons:
                output = injector.strike(draws, layer, output, self._memory_like(output))
            if rest:
                known = {**self.kept, layer.name: output}
                inputs = known[rest[0].source]
                output = forward(self.executable, inputs, rest, injector.hook(draws), known)
            return self._answers(output)

    def _start(self, injector: Injector) -> int:
        """Return the place of the first layer with unprotected neurons; the last, if none has."""
        places = (place for place, layer in enumerate(self.layers) if injector.strikes(layer))
        return next(places, len(self.layers) - 1)

    def _run_clean(self, layers: Sequence[Layer]) -> Tensor:
        """Run the first layers without faults; keep what injectors begin from or read later."""
        kept = {INPUT} | {name for start in set(self.starts) for name in self._needed(start)}
        values = dict(self.kept)
        readers = {name: n for n, layer in enumerate(layers) for name in layer.sources}
        for number, layer in enumerate(layers):
            read = [values[name] for name in layer.sources]
            values[layer.name] = self.executable.run_layer(layer, *read)
            for name in set(layer.sources) - kept:
                if readers[name] == number:
                    del values[name]
        self.kept = {name: value for name, value in values.items() if name in kept}
        return values[layers[-1].name]

    def _needed(self, start: int) -> set[str]:
        """Return what is read when the layers from `start` on run, and the output of `start`."""
        before = {INPUT, *(layer.name for layer in self.layers[:start])}
        read = {name for layer in self.layers[start:] for name in layer.sources}
        return (read & before) | {self.layers[start].name}

    def _memory_like(self, output: Tensor) -> Tensor:
        """Return memory in which a kept output can be struck."""
        rows = rows_by_position(output)
        if rows.device.type != "cpu":
            return torch.empty_like(output)
        return restore_shape(self.scratch.take("first output", rows.dtype, *rows.shape), output)

    def _answers(self, output: Tensor) -> Answers:
        """Return what the network's outputs say of the real images."""
        outputs = output[: self.count]
        if not self.with_confidence:
            return Answers(top1(outputs))
        real = outputs.float() * self.executable.step(self.executable.network.output.name)
        return Answers(top1(outputs), top1_confidence(real))
