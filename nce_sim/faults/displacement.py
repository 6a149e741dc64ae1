"""By how much a fault of a lane displaces a neuron's output, whatever the word says: exactly.

A fault strikes the stored output, a word of the machine's number format, or the 32-bit sum behind
it, which is then scaled, rectified and stored. Whole layers are displaced at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nce_sim.errors import InputError
from nce_sim.faults.effects import ALL, BitFlip, Change, Effect, RandomValue, StuckAt, Zero
from nce_sim.faults.views import BYTE_BITS, BYTES
from nce_sim.resilience.damage import Sensitivity
from nce_sim.seeding import generator
from nce_sim.workload.execute import Executable, linear_part
from nce_sim.workload.layer import Layer
from nce_sim.workload.quantised import SumsFirst, saturate, window_sums

RANDOM_WORDS = 64
"""Words that stand for all that a random value can be; the same ones for every neuron."""

WORD_TYPES = {
    "fp32": (torch.float32, torch.int32), "fp16": (torch.float16, torch.int16),
    "bf16": (torch.bfloat16, torch.int16), "int8": (torch.int8, torch.int8),
}  # fmt: skip
"""The torch types of each number format: of its values, and of their bits."""


def changes_of(effect: Effect, width: int) -> Change:
    """Return the equally likely changes that an effect makes of words of `width` bits.

    A random value is represented by `RANDOM_WORDS` words, drawn once.

    Raises InputError for an effect that a word of this width does not allow, for noise, and for
    several bits that need not be adjacent.
    """
    random = generator(0, "words of expected damage")
    if isinstance(effect, RandomValue):
        return effect.draw(random, RANDOM_WORDS, width)
    if isinstance(effect, Zero):
        return effect.draw(random, 1, width)
    if isinstance(effect, BitFlip):
        if effect.count > 1 and not effect.adjacent:
            raise InputError(
                f"expected damage of {effect.count} bits anywhere in a word is not known: take "
                f"adjacent ones, or a single bit"
            )
        effect.draw(random, 1, width)  # refuses bits that the word does not have
        places = range(width - effect.count + 1) if effect.bit is None else [effect.bit]
        each = [BitFlip(effect.count, place).draw(random, 1, width) for place in places]
        return Change.join(each)
    if isinstance(effect, StuckAt):
        effect.draw(random, 1, width)
        places = range(width) if effect.bit is None else [effect.bit]
        values = (0, 1) if effect.value is None else (effect.value,)
        return Change.join(
            [StuckAt(value, place).draw(random, 1, width) for place in places for value in values]
        )
    raise InputError(
        "expected damage is known for what happens to words, not for the effect 'gaussian': "
        "rank with GaussianNoise"
    )


@dataclass(frozen=True)
class LayerWords:
    """The words of one layer's neurons that faults strike, for a block of images.

    `bits` are integers, images x the layer's shape; a neuron's struck word begins at its `shift`.
    Of a layer that closes a residual block they are its sums, or these as stored: `addition` then
    adds `branches`, words in steps of their own, to what is stored.
    """

    executable: Executable
    layer: Layer
    bits: Tensor
    shift: Tensor | None
    are_sums: bool
    range: tuple[float, float] | None = None
    addition: Layer | None = None
    branches: tuple[Tensor, ...] = ()

    @staticmethod
    def of(executable: Executable, seen: Sensitivity) -> "LayerWords":
        """Return words without bits, of a layer as the machine computes it."""
        stepped, name = executable.in_steps, seen.layer.name
        steps = {each.name: each for each in stepped.network.layers}
        empty = torch.empty(0)
        addition = steps.get(executable.network.finished_by.get(name, ""))
        if addition is None:
            return LayerWords(stepped, steps[name], empty, None, are_sums=False)
        branches = tuple(
            stored_words(stepped, branch / stepped.step(source))
            for source, branch in zip(addition.others, seen.branches, strict=True)
        )
        return LayerWords(stepped, steps[name], empty, None, False, None, addition, branches)

    @staticmethod
    def outputs(executable: Executable, seen: Sensitivity) -> "LayerWords":
        """Return the stored outputs.

        What int8 reads out as 32 bits is struck in one of its four bytes, the neuron's number
        modulo 4, as in fault injection.
        """
        words = LayerWords.of(executable, seen)
        layer, stepped = words.layer, words.executable
        values = seen.output / stepped.step(layer.name)
        if words.addition is not None:
            values = stepped.finish_sums(layer, sums_of(stepped, layer, seen.inputs)).float()
        if stepped.is_read_out(layer):
            places = torch.arange(layer.outputs, dtype=torch.int32, device=values.device)
            shift = (places % BYTES * BYTE_BITS).view(layer.out_shape)
            return replace(words, bits=values.view(torch.int32), shift=shift)
        kind, whole = WORD_TYPES[stepped.format.name]
        return replace(words, bits=stored_words(stepped, values).to(kind).view(whole))

    @staticmethod
    def sums(
        executable: Executable, seen: Sensitivity, held_in: tuple[float, float] | None = None
    ) -> "LayerWords":
        """Return the sums that lanes hand on; `held_in` is the range of lanes that clip."""
        words = LayerWords.of(executable, seen)
        sums = sums_of(words.executable, words.layer, seen.inputs)
        is_whole = executable.format.sum_dtype is np.int32
        bits = sums.to(torch.int32) if is_whole else sums.float().view(torch.int32)
        return replace(words, bits=bits, are_sums=True, range=held_in)

    def values(self, bits: Tensor) -> Tensor:
        """Return the outputs, in the network's units, that words end in; overwrites them."""
        if self.addition is None:
            return self._stored(bits, self.executable.step(self.layer.name))
        step = self.executable.step(self.layer.name)
        words = self._stored(bits, step).div_(step).to(self.executable.dtype)
        added = self.executable.run_layer(self.addition, words, *self.branches)
        return _scaled(added.float(), self.executable.step(self.addition.name))

    def _stored(self, bits: Tensor, step: float) -> Tensor:
        """Return what is stored where lanes end in words, in the network's units."""
        form = self.executable.format
        if not self.are_sums:
            kind, _ = WORD_TYPES[form.name]
            kind = kind if self.shift is None else torch.float32
            return _scaled(bits.view(kind).float(), step)
        sums = bits if form.sum_dtype is np.int32 else bits.view(torch.float32)
        outputs = _scaled(self.executable.finish_sums(self.layer, sums).float(), step)
        if self.range is None:
            return outputs
        low, high = self.range
        return outputs.nan_to_num_(nan=high).clamp_(low, high)

    def displaced(self, changes: Change) -> Iterator[Tensor]:
        """Yield the displacements of all outputs by each change; not finite where the value is."""
        before = self.values(self.bits.clone(memory_format=torch.preserve_format))
        for row in range(len(changes)):
            masks = (int(each[row]) for each in (changes.keep, changes.set, changes.flip))
            yield self.values(self._struck(*masks)).sub_(before)

    def _struck(self, keep: int, ones: int, flip: int) -> Tensor:
        """Return the words after the change: ((before & keep) | ones) ^ flip."""
        if keep == ALL and ones == 0:
            return self.bits.bitwise_xor(self._mask(flip))
        kept = self.bits.bitwise_and(~self._mask(~keep))
        return kept.bitwise_or_(self._mask(ones)).bitwise_xor_(self._mask(flip))

    def _mask(self, bits: int) -> Tensor:
        """Return bits of the struck word as a mask of the words' type."""
        if self.shift is not None:
            return (self.shift * 0 + (bits & 0xFF)).bitwise_left_shift(self.shift)
        width = 8 * self.bits.element_size()
        low = bits & (2**width - 1)
        signed = low - 2**width if low >= 2 ** (width - 1) else low
        return torch.tensor(signed, dtype=self.bits.dtype, device=self.bits.device)


def stored_words(executable: Executable, values: Tensor) -> Tensor:
    """Return what is stored of values in units of their step."""
    if executable.format.sum_dtype is np.int32:
        return saturate(values.float())
    kind, _ = WORD_TYPES[executable.format.name]
    return values.to(kind).to(executable.dtype)


def _scaled(values: Tensor, step: float) -> Tensor:
    return values if step == 1 else values.mul_(step)


def sums_of(executable: Executable, layer: Layer, inputs: Tensor) -> Tensor:
    """Return a layer's sums as its lanes end with them; `inputs` are those of float32.

    int8 sums are in steps of its inputs and weights.
    """
    if isinstance(executable, SumsFirst):
        step = executable.step(layer.source)
        is_whole = executable.format.sum_dtype is np.int32
        return executable.sums(layer, saturate(inputs / step) if is_whole else inputs)
    held = executable.parameters.get(layer.name)
    if held is None:
        return window_sums(layer, inputs)
    bias = None if held.bias is None else held.bias.float()
    return linear_part(layer, held.weight.float(), bias, inputs)
