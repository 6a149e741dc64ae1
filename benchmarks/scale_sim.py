"""SCALE-Sim 3 on a dense output-stationary 32 x 32 array, in a Python of its own."""

import csv
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import INSTALL
from benchmarks.timing import Missing
from nce_sim.workload.layer import Layer

CONFIG = """[general]
run_name = dense
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
[architecture_presets]
ArrayHeight = 32
ArrayWidth = 32
IfmapSramSzkB = 8192
FilterSramSzkB = 8192
OfmapSramSzkB = 8192
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Dataflow = os
ReadRequestBuffer = 512
WriteRequestBuffer = 512
[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterCustomLayout = False
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
SparseRep = ellpack_block
OptimizedMapping = false
BlockSize = 4
RandomNumberGeneratorSeed = 40
"""

RUN = """
import runpy, sys
sys.argv = ["scale", "-t", "topology.csv", "-l", "topology.csv", "-c", "scale.cfg", "-p", "out",
            "-s", "N"]
runpy.run_module("scalesim.scale", run_name="__main__")
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@dataclass(frozen=True)
class PeerRun:
    """Compute cycles by layer, seconds of the whole process, and the most memory that it held."""

    cycles: list[int]
    seconds: float
    peak_mib: float


def run_scale_sim(layers: Sequence[Layer], python: Path) -> PeerRun:
    """Run convolutions, without their activations, in SCALE-Sim.

    Raises Missing if `python` has no scalesim, RuntimeError if it fails.
    """
    there = subprocess.run([python, "-c", "import scalesim"], capture_output=True, check=False)
    if there.returncode:
        raise Missing(f"{python} has no scalesim: {INSTALL['scalesim']}, or name a Python that has")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "scale.cfg").write_text(CONFIG)
        (folder / "topology.csv").write_text(_topology(layers))
        start = time.perf_counter()
        done = subprocess.run(
            [python, "-c", RUN], cwd=folder, capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
        report = next((folder / "out").rglob("COMPUTE_REPORT.csv"))
        with report.open() as file:
            table = list(csv.DictReader(file, skipinitialspace=True))
    peak = int(done.stdout.split("VmHWM:")[-1].split()[0]) / 1024
    return PeerRun([int(float(row["Total Cycles"])) for row in table], seconds, peak)


def _topology(layers: Sequence[Layer]) -> str:
    """Describe layers with the padding that is used; SCALE-Sim rounds the rest of a stride up."""
    rows = ["layer, height, width, kernel height, kernel width, channels, filters, stride,"]
    for layer in layers:
        height, width = (
            (layer.out_shape[1 + axis] - 1) * layer.stride[axis] + layer.kernel[axis]
            for axis in range(2)
        )
        rows.append(
            f"{layer.name}, {height}, {width}, {layer.kernel[0]}, {layer.kernel[1]}, "
            f"{layer.in_shape[0]}, {layer.channels}, {layer.stride[0]},"
        )
    return "\n".join(rows) + "\n"
