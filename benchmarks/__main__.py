"""Measure nce-sim and its peers, and write what was found as tables.

    python -m benchmarks                              # everything: about an hour on two cores
    python -m benchmarks lrp faults --rounds 9        # some groups
    python -m benchmarks --quick --rounds 1           # few images: does all of it work?

Each group writes GROUP.json into the folder of results, and all groups' files there become
results.md, so that groups may be measured one by one. A peer that is missing or fails has a row
that says why.
"""

import argparse
import datetime
import importlib
import os
import platform
from pathlib import Path

from benchmarks.options import Options
from benchmarks.peers import version
from benchmarks.table import Result

GROUPS = {
    "lrp": ("lrp", "ranking by LRP"),
    "faults": ("faults", "inference with faults in every neuron"),
    "machine": ("machine", "simulation of the machine"),
    "memory": ("memory", "memory of ranking by LRP"),
    "sweep": ("sweep", "points of a sweep"),
    "start": ("start", "start of the command line"),
    "run": ("main_job", "`nce-sim run`, the default study"),
}
"""Groups by name: their module, which is imported when it is measured, and their title."""

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.list:
        for name, (_, title) in GROUPS.items():
            print(f"{name:8s} {title}")
        return
    options = Options(arguments.rounds, arguments.quick, arguments.scale_sim)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.groups or GROUPS:
        result = measured(name, options)
        (arguments.out / f"{name}.json").write_text(result.to_json())
        print(result.to_markdown(), flush=True)
    write_table(arguments.out)
    print(f"the tables are in {arguments.out / 'results.md'}")


def measured(name: str, options: Options) -> Result:
    """Return what one group finds, and what it was measured with and on."""
    place, title = GROUPS[name]
    module = importlib.import_module(f"benchmarks.{place}")
    settings = environment(options)
    settings |= {package: version(package) for package in module.PACKAGES}
    return Result(name, title, settings, module.measure(options))


def environment(options: Options) -> dict[str, str]:
    """Return what the figures depend on; `busy` is the load by others when a group begins."""
    import torch

    amx = "with" if torch.cpu._is_amx_tile_supported() else "without"
    return {
        "rounds": f"{options.rounds}" + (", few images" if options.quick else ""),
        "date": f"{datetime.date.today()}",
        "processor": f"{_processor()}, {amx} AMX",
        "cores": f"{len(os.sched_getaffinity(0))}",
        "threads": f"{torch.get_num_threads()}",
        "busy": f"{os.getloadavg()[0]:.1f} processes",
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "nce-sim": version("nce-sim"),
    }


def write_table(folder: Path) -> None:
    """Write all results of a folder as one page."""
    files = [folder / f"{name}.json" for name in GROUPS]
    found = [Result.read(file) for file in files if file.is_file()]
    text = "# What nce-sim costs, beside its peers\n\nMade by `python -m benchmarks`.\n\n"
    (folder / "results.md").write_text(text + "\n".join(each.to_markdown() for each in found))


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    known = Options()
    parser.add_argument(
        "groups", nargs="*", type=_group, metavar="GROUP", help=f"{', '.join(GROUPS)}; all if none"
    )
    parser.add_argument(
        "--rounds", type=_positive, default=known.rounds, help="[default: %(default)s]"
    )
    parser.add_argument("--quick", action="store_true", help="few images and points")
    parser.add_argument(
        "--scale-sim", type=Path, default=known.scale_sim, metavar="PYTHON",
        help="a Python that has scalesim, which wants NumPy below 2.4 [default: this one]",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results")
    parser.add_argument("--list", action="store_true", help="say what there is to measure")
    return parser


def _group(text: str) -> str:
    if text not in GROUPS:
        raise argparse.ArgumentTypeError(f"{text} is none of {', '.join(GROUPS)}")
    return text


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give 1 or more")
    return int(text)


if __name__ == "__main__":
    main()
