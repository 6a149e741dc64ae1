"""Write `small_run.json` anew: python tests/golden/make.py

The run that it holds is the same on every machine: nothing in it is random. Look at the
difference before keeping a new one, and say in the commit what changed it.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from hardware import Chain, conv, flatten, linear, max_pool, split_of  # noqa: E402

from nce_sim.config.machine import load_machine  # noqa: E402
from nce_sim.machine.engine import Run, simulate  # noqa: E402

FILE = HERE / "small_run.json"


def small_run() -> Run:
    """Return the run of a small network with a fixed split on nce-small."""
    layers = (
        conv("conv1", inputs=(3, 20, 20), channels=160),
        conv("conv2", "conv1", inputs=(160, 20, 20), channels=48, groups=4),
        max_pool("pool1", "conv2", (48, 20, 20)),
        conv("conv3", "pool1", inputs=(48, 10, 10), channels=96, stride=(2, 2)),
        flatten("flat", "conv3", (96, 5, 5)),
        linear("fc1", "flat", 2400, 50),
    )
    masks = {
        layer.name: (np.arange(layer.outputs) * 7 % 10 < 4).reshape(layer.out_shape)
        for layer in layers
        if layer.has_neurons
    }
    masks["conv2"][:12] = True
    masks["conv3"][:, 2:] = False
    return simulate(Chain(layers), load_machine("nce-small"), split_of(masks))


def summary(run: Run) -> dict[str, object]:
    """Return what the golden file holds of a run."""
    counts = asdict(run.counts)
    domains = counts.pop("domains")
    return {
        "latency_cycles": run.latency_cycles,
        "cycles_by_cause": run.cycles_by_cause,
        "compute_cycles_by_layer": run.compute_cycles_by_layer,
        "counts": counts,
        "counts_by_domain": domains,
        "bus_bytes_by_purpose": run.bus.bytes_by_purpose,
        "bus_busy_cycles": run.bus.busy_cycles,
        "spans": len(run.timeline),
        "energy_pj": rounded(run.energy.by_component_pj),
        "energy_range_pj": rounded({"low": run.energy.low_pj, "high": run.energy.high_pj}),
        "area_mm2": rounded(run.area.by_component_mm2),
    }


def rounded(values: dict[str, float]) -> dict[str, float]:
    """Keep nine significant digits."""
    return {name: float(f"{value:.9g}") for name, value in values.items()}


def text() -> str:
    """Return the golden file."""
    return json.dumps(summary(small_run()), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
    print(f"wrote {FILE}")
