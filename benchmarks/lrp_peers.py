"""Relevance of every neuron by zennit and by captum, with the rule that equals nce-sim's "lrp".

Both leave biases out (`zero_params="bias"`, `set_bias_to_zero=True`): eq. 2 of Schorn et al. has
none. Each function returns the sum over the images of the relevance of every ReLU's output.
"""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers import load

TINY = 1e-12
"""Stabiliser: far below every denominator but zero."""

Batches = Iterable[tuple[Tensor, Tensor]]


def zennit(module: nn.Module, batches: Batches) -> list[Tensor]:
    """Return relevance by zennit's `ZPlus`; poolings share in proportion to what they average."""
    composites, rules = load("zennit.composites"), load("zennit.rules")
    share = rules.Norm(stabilizer=TINY)
    z_plus = rules.ZPlus(stabilizer=TINY, zero_params="bias")
    composite = composites.LayerMapComposite(
        [
            (nn.ReLU, rules.Pass()),
            (nn.AdaptiveAvgPool2d, share),
            (nn.Conv2d, z_plus),
            (nn.Linear, z_plus),
        ]
    )
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Tensor], output: Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    sums: list[Tensor] = []
    with composite.context(module) as modified:
        handles = [
            part.register_forward_hook(keep) for part in module.modules() if type(part) is nn.ReLU
        ]
        for images, labels in batches:
            logits = modified(images.clone().requires_grad_())
            logits.backward(functional.one_hot(labels, logits.shape[1]).to(logits.dtype))
            sums = _added(sums, [output.grad.sum(0) for output in outputs])
            outputs.clear()
        for handle in handles:
            handle.remove()
    return sums


def captum(module: nn.Module, batches: Batches) -> list[Tensor]:
    """Return relevance by captum's `Alpha1_Beta0_Rule`, normed to 1 at the label's output.

    captum forgets the rules in every call, so that they are given anew; it keeps the relevance of
    a layer's inputs in the layer's rule.
    """
    attr, rules = load("captum.attr"), load("captum.attr._utils.lrp_rules")
    sums: list[Tensor] = []
    for images, labels in batches:
        given = []
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                part.rule = rules.Alpha1_Beta0_Rule(set_bias_to_zero=True)
            elif isinstance(part, nn.MaxPool2d | nn.AdaptiveAvgPool2d | nn.Flatten):
                part.rule = rules.EpsilonRule(TINY)
            if isinstance(part, nn.ReLU) or hasattr(part, "rule"):
                given.append(getattr(part, "rule", None))
        attr.LRP(module).attribute(images.clone().requires_grad_(), target=labels)
        found = [
            next(rule for rule in given[place:] if rule).relevance_input[images.device].sum(0)
            for place, of_relu in enumerate(given)
            if of_relu is None
        ]
        sums = _added(sums, found)
    return sums


def _added(sums: list[Tensor], more: list[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(sums, more, strict=True)] if sums else more
