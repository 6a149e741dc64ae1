"""Inference with faults in every neuron of All-CNN-C, against inference without.

Every neuron is struck independently, by dropout with p = 0.1 or by Gaussian noise. A faulty pass of
nce-sim is `predict_variants` with one variant less the clean pass that it includes. "plain" is the
module itself in float32 and torch's default memory format, batch 64; a peer is set against a plain
pass over the peer's own images.
"""

from collections.abc import Callable

import nce_sim as nce
from benchmarks.cases import Case, trained
from benchmarks.fault_peers import PEERS, faulty_pass
from benchmarks.options import Options
from benchmarks.table import Row
from benchmarks.timing import Job, alternate
from nce_sim.accuracy.evaluate import Variant, predict_variants
from nce_sim.workload.execute import has_fast_bfloat16

PACKAGES = ("mrfi", "pytorchfi")

P = 0.1
FAULTS = ("dropout", "noise")
PRECISIONS = ("float32", "bfloat16")

OF_CLEAN = "of its own clean throughput"
OF_PLAIN = "of plain float32 throughput"


def measure(options: Options) -> list[Row]:
    """Time clean and faulty passes, and those of peers, in turns."""
    case = trained(options.images(512))
    makers: dict[str, Callable[[], Job]] = {
        "plain": lambda: case.plain(channels_last=False),
        "plain channels_last": case.plain,
    }
    variants = {"clean": [], **_faults(case)}
    for precision in PRECISIONS:
        for name, struck in variants.items():
            makers[f"nce-sim {name} {precision}"] = lambda s=struck, p=precision: (
                lambda: predict_variants(case.network, case.images, s, precision=p)
            )
    few = {name: case.first(options.images(peer.images)) for name, peer in PEERS.items()}
    for name, some in few.items():
        makers[name] = lambda n=name, s=some: faulty_pass(n, s, P)
        makers[f"plain beside {name}"] = lambda s=some: s.plain(channels_last=False)
    times = alternate(makers, options.rounds)

    note = f"{len(case.images)} images"
    rows = [times.absolute("plain", note=note)]
    for precision in PRECISIONS:
        clean = f"nce-sim clean {precision}"
        slow = precision == "bfloat16" and not has_fast_bfloat16()
        rows.append(times.speed(clean, "plain", OF_PLAIN, "no AMX here" if slow else ""))
        for fault in FAULTS:
            struck = f"nce-sim {fault} {precision}"
            alone = times.less(struck, clean)
            rows.append(alone.speed(struck, clean, OF_CLEAN))
            rows.append(alone.speed(struck, "plain", OF_PLAIN))
    rows.insert(1, times.speed("plain channels_last", "plain", OF_PLAIN))
    for name, peer in PEERS.items():
        note = f"dropout, {len(few[name].images)} images; {peer.note}"
        rows.append(times.speed(name, f"plain beside {name}", OF_PLAIN, note))
    return rows


def _faults(case: Case) -> dict[str, list[Variant]]:
    """Return one variant of each fault, with all neurons unprotected."""
    everything = nce.rank(case.network, None, None, "random").split(1.0)
    noise = nce.GaussianNoise(1.0, nce.mean_activation(case.network, case.images[:64]))
    return {
        "dropout": [Variant(everything, nce.Dropout(P))],
        "noise": [Variant(everything, noise)],
    }
