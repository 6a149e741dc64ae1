"""How fast the simulator is, and how its dense cycles compare with SCALE-Sim's.

    python benchmarks/simulator.py                                  # time and memory of one split
    python benchmarks/simulator.py --peer /path/to/python           # and SCALE-Sim 3 beside it

The first part measures one split of VGG-16 (13.6 million neurons), from the mask to the energy, the
windows chosen: best of five on one core, and the memory above the loaded ranking. The second runs
All-CNN-C on a 32x32 output-stationary array in both simulators and compares each layer's compute
cycles; the peer is an interpreter whose environment holds `scalesim` (which wants NumPy below 2.4).
"""

import argparse
import csv
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

import nce_sim as nce
from nce_sim.resilience.split import Split
from nce_sim.workload.layer import Kind, Layer

MIB = 2**20

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, help="interpreter of an environment with scalesim")
    parser.add_argument("--fraction", type=float, default=0.4)
    options = parser.parse_args()
    measure_split(options.fraction)
    cycles, seconds = dense_cycles("allcnn-fashion")
    print(f"\nAll-CNN-C dense on os-32x32: {sum(cycles.values()):,} cycles in {seconds:.2f} s")
    if options.peer is not None:
        compare(cycles, options.peer)


def measure_split(fraction: float) -> None:
    """Time one split of VGG-16 and print the memory above the loaded ranking."""
    network, machine = nce.load_model("vgg16"), nce.load_machine("nce-28nm")
    ranking = nce.rank(network, None, None, method="random")
    _ = ranking.places
    before = _resident_bytes()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        split = ranking.split(fraction)
        run = nce.simulate(network, machine, split)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(run)
    print(
        f"one split of VGG-16 at {fraction:.0%}, mask to energy: best of five {min(seconds):.3f} s "
        f"(median {sorted(seconds)[2]:.3f} s), at most {(peak - before) / MIB:.0f} MiB above the "
        f"loaded ranking"
    )


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def dense_cycles(model: str) -> tuple[dict[str, int], float]:
    """Return the compute cycles by layer with all neurons on one array, and the time it took."""
    network, machine = nce.load_model(model), nce.load_machine("os-32x32")
    start = time.perf_counter()
    masks = {layer.name: np.ones(layer.out_shape, bool) for layer in network.neuron_layers}
    run = nce.simulate(network, machine, Split(1.0, "neuron", masks))
    seconds = time.perf_counter() - start
    return {
        name: by_domain["unprotected"] for name, by_domain in run.compute_cycles_by_layer.items()
    }, seconds


def compare(ours: dict[str, int], peer: Path) -> None:
    """Run the convolutions in SCALE-Sim and print both counts by layer."""
    network = nce.load_model("allcnn-fashion")
    layers = [layer for layer in network.layers if layer.kind is Kind.CONV2D]
    with tempfile.TemporaryDirectory() as folder:
        theirs, seconds = _run_peer(layers, peer, Path(folder))
    print(f"SCALE-Sim: {sum(theirs):,} cycles in {seconds:.1f} s")
    print(f"{'layer':10s} {'nce-sim':>10s} {'SCALE-Sim':>10s}")
    for layer, cycles in zip(layers, theirs, strict=True):
        print(f"{layer.name:10s} {ours[layer.name]:10,d} {cycles:10,d}")


def _run_peer(layers: list[Layer], peer: Path, folder: Path) -> tuple[list[int], float]:
    (folder / "scale.cfg").write_text(CONFIG)
    rows = ["layer, height, width, kernel height, kernel width, channels, filters, stride,"]
    for layer in layers:
        channels = layer.in_shape[0]
        size = [  # with the padding that is used; the peer rounds the rest of a stride up
            (layer.out_shape[1 + axis] - 1) * layer.stride[axis] + layer.kernel[axis]
            for axis in range(2)
        ]
        rows.append(
            f"{layer.name}, {size[0]}, {size[1]}, {layer.kernel[0]}, {layer.kernel[1]}, "
            f"{channels}, {layer.channels}, {layer.stride[0]},"
        )
    (folder / "topology.csv").write_text("\n".join(rows) + "\n")
    start = time.perf_counter()
    subprocess.run(
        [peer, "-m", "scalesim.scale", "-t", "topology.csv", "-l", "topology.csv",
         "-c", "scale.cfg", "-p", "out", "-s", "N"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    report = next(Path(folder, "out").rglob("COMPUTE_REPORT.csv"))
    with report.open() as file:
        table = list(csv.DictReader(file, skipinitialspace=True))
    return [int(float(row["Total Cycles"])) for row in table], seconds


if __name__ == "__main__":
    main()
