"""Compare what protection costs with Safe-NEureka, a design that set none of our figures.

    python benchmarks/protection_ratios.py

Safe-NEureka (Tedeschi et al., arXiv:2602.04803, GF 12 nm) couples pairs of lanes (DMR) at run time,
with ECC at its memory interface and three controllers: area +15 %, throughput on dense 3x3
convolutions -5 % in performance mode and -48 % in redundancy mode, energy efficiency -11 % and
-53 %. Ours is `nce-fused` in int8 with pairs (`dmr_retry`), against the same lanes and memories
without protection. docs/silicon.md explains the gaps.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

import nce_sim as nce
from nce_sim.machine.engine import Run
from nce_sim.resilience.split import Split
from nce_sim.workload.layer import INPUT, Kind, Layer

CONTROLLER_COPIES = 3
"""Assumed: the simulator's controller has no protection, so two more are added to its area."""

DENSE_3X3 = Layer(
    "conv", Kind.CONV2D, INPUT, (64, 32, 32), (1984, 32, 32), (3, 3), padding=(1, 1),
    has_neurons=True, bias=True,
)  # fmt: skip
"""A dense 3x3 convolution whose channels fill 64, 62 and 31 columns alike."""

LOCAL_BYTES_PER_CYCLE = 1024
"""Of a memory that never limits: Safe-NEureka reads the local memory of its cluster."""

PUBLISHED = {"area": 0.15, "performance": -0.05, "redundancy": -0.48}
PUBLISHED_EFFICIENCY = {"performance": -0.11, "redundancy": -0.53}


class OneLayer:
    """A network of one layer."""

    layers = (DENSE_3X3,)


def main() -> None:
    fused, plain = fused_machine("secded"), plain_machine()
    print_area(fused, plain)
    local = with_local_memory(fused), with_local_memory(plain)
    print_modes("dense 3x3, local memory", OneLayer(), *local)
    print_modes("All-CNN-C", nce.load_model("allcnn-fashion"), fused, plain)


def fused_machine(memory_scheme: str) -> nce.Machine:
    """Return `nce-fused` in int8, with columns that fuse in pairs; ports and buffers are halved."""
    content = nce.load_machine("nce-fused").model_dump()
    config = content["config"]
    config["number_format"] = "int8"
    config["fabric"] |= {"scheme": "dmr_retry", "clusters": 1}
    config["bus"]["quantum_bytes"] //= 2
    config["memory"]["protected_scheme"] = memory_scheme
    for domain in ("protected", "unprotected"):
        del config[domain]["array"]
        buffers = config[domain]["buffers"]
        for size in ("input_bytes", "weight_bytes", "output_bytes", "resident_bytes"):
            buffers[size] //= 2
        buffers |= {"port_bytes_per_cycle": 16, "scheme": memory_scheme}
        buffers["codec_cycles"] = int(memory_scheme != "none")
    config["memory"]["codec_cycles"] = int(memory_scheme != "none")
    return nce.Machine.model_validate(content)


def plain_machine() -> nce.Machine:
    """Return the same lanes and memories without protection: all columns are PEs.

    One row of one of them is named protected, since there must be such an array; it does nothing.
    """
    content = fused_machine("none").model_dump()
    config = content["config"]
    fabric = config.pop("fabric")
    array = config["unprotected"]["array"]
    columns = fabric["columns"]
    array |= {"columns": columns, "weight_words": columns * fabric["weight_words_per_column"]}
    single = {"rows": 1, "columns": 1, "activation_words": 1, "weight_words": 1}
    config["protected"]["array"] = {**array, **single, "scheme": "ideal"}
    return nce.Machine.model_validate(content)


def with_local_memory(machine: nce.Machine) -> nce.Machine:
    """Return the machine with a memory and a bus that never limit."""
    content = machine.model_dump()
    config = content["config"]
    if config["fabric"] is not None:
        del config["protected"]["array"], config["unprotected"]["array"]
    config["bus"] |= {
        "bytes_per_cycle": LOCAL_BYTES_PER_CYCLE, "quantum_bytes": LOCAL_BYTES_PER_CYCLE,
    }  # fmt: skip
    config["memory"] |= {"bytes_per_cycle": LOCAL_BYTES_PER_CYCLE, "latency_cycles": 0}
    return nce.Machine.model_validate(content)


def print_area(fused: nce.Machine, plain: nce.Machine) -> None:
    """Print the area that each protection adds, as shares of the plain machine's."""
    before = area_mm2(plain)
    whole, logic = sum(before.values()), sum(without_memories(before).values())
    coupled, coded = area_mm2(fused_machine("none")), area_mm2(fused)
    controllers = (CONTROLLER_COPIES - 1) * coded["controller"]
    steps = {
        "fusing (comparators)": (sum(coupled.values()) - whole, _logic(coupled) - logic),
        "ECC": (sum(coded.values()) - sum(coupled.values()), _logic(coded) - _logic(coupled)),
        "TMR controller (assumed)": (controllers, controllers),
    }
    print(f"plain machine: {whole:.2f} mm2, {logic:.2f} mm2 of it logic")
    print(f"{'area added':26s} {'of all':>8s} {'of logic':>8s}")
    for name, (of_all, of_logic) in steps.items():
        print(f"{name:26s} {of_all / whole:+8.1%} {of_logic / logic:+8.1%}")
    sums = [sum(column) for column in zip(*steps.values(), strict=True)]
    print(f"{'sum':26s} {sums[0] / whole:+8.1%} {sums[1] / logic:+8.1%}", end="")
    print(f"   published {PUBLISHED['area']:+.0%}")


def area_mm2(machine: nce.Machine) -> Mapping[str, float]:
    """Return a machine's area by component."""
    return run_mode(OneLayer(), machine, 1.0).area.by_component_mm2


def without_memories(parts: Mapping[str, float]) -> dict[str, float]:
    """Leave the buffers out: Safe-NEureka's memory belongs to the cluster around it."""
    return {name: part for name, part in parts.items() if "buffers" not in name}


def _logic(parts: Mapping[str, float]) -> float:
    return sum(without_memories(parts).values())


def print_modes(name: str, network: Any, fused: nce.Machine, plain: nce.Machine) -> None:
    """Print throughput and energy efficiency in both modes against the plain machine."""
    base = run_mode(network, plain, 1.0)
    print(f"\n{name}: plain {base.latency_cycles:,} cycles, {base.energy.total_pj / 1e6:.0f} uJ")
    for mode, unprotected_fraction in (("performance", 1.0), ("redundancy", 0.0)):
        run = run_mode(network, fused, unprotected_fraction)
        throughput = base.latency_cycles / run.latency_cycles - 1
        compute = compute_cycles(base) / compute_cycles(run) - 1
        efficiency = base.energy.total_pj / run.energy.total_pj - 1
        on_chip = chip_pj(base) / chip_pj(run) - 1
        print(
            f"{mode:12s} throughput {throughput:+6.1%} (lanes alone {compute:+6.1%}), "
            f"published {PUBLISHED[mode]:+.0%}; efficiency {efficiency:+6.1%} "
            f"(chip {on_chip:+6.1%}), published {PUBLISHED_EFFICIENCY[mode]:+.0%}"
        )


def run_mode(network: Any, machine: nce.Machine, unprotected_fraction: float) -> Run:
    """Simulate with all neurons on PEs, or with none."""
    on_pes = unprotected_fraction == 1.0
    masks = {
        layer.name: np.full(layer.out_shape, on_pes)
        for layer in network.layers
        if layer.has_neurons
    }
    return nce.simulate(network, machine, Split(unprotected_fraction, "layer", masks))


def compute_cycles(run: Run) -> int:
    """Return the cycles in which either array computes; in these modes only one does."""
    return sum(sum(by_array.values()) for by_array in run.compute_cycles_by_layer.values())


def chip_pj(run: Run) -> float:
    """Return the energy without the external memory."""
    parts = run.energy.by_component_pj.items()
    return sum(pj for name, pj in parts if name != "external memory")


if __name__ == "__main__":
    main()
