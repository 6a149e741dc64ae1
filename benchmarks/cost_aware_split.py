"""What a split by damage per cost saves over one by damage alone, at equal accuracy.

    python benchmarks/cost_aware_split.py [--ranked 2000] [--images 500] [--folder cost-aware]

Both splits have the same fault-aware scores, images and random faults. For each machine the script
says what the cheapest split that loses at most 1, 2 and 5 points of accuracy takes: protection
energy (that of the run less that of everything unprotected) and latency. Between neighbouring
fractions loss and cost are interpolated linearly; the loss is made to rise with the fraction.
Intervals are 95 % by bootstrap over images, the same images for both splits. `--folder` keeps
rankings and predictions, and a second run uses them. Writes docs/figures/cost_aware_split.png.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import nce_sim as nce
from nce_sim.accuracy.evaluate import Variant, predict_variants
from nce_sim.faults.models import FaultModel
from nce_sim.report.style import add_grid, new_figure, png_bytes, styled
from nce_sim.seeding import generator
from nce_sim.study.protection_share import end_of
from nce_sim.workload.graph import Workload

MACHINES = ("nce-28nm", "nce-int8", "nce-near-threshold")
FRACTIONS = {
    "neurons": (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9),
    "energy": (0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7),
    "latency": (0.3, 0.4, 0.45, 0.5),
}
LOSSES = (0.01, 0.02, 0.05)
RESAMPLES = 2000
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "cost_aware_split.png"
LOOKS = {
    "neurons": ("#6f6f6f", "o", "by neuron"),
    "energy": ("#007a5a", "P", "by energy"),
    "latency": ("#0072b2", "s", "by latency"),
}

Key = tuple[str, str, float]
"""Machine, objective and unprotected fraction of a split."""


@dataclass(frozen=True)
class Curve:
    """Splits of one ranking on one machine, from everything protected on.

    `protection_uj` and `latency_us` are by split, `loss` is resamples x splits: row 0 are the
    images themselves. Losses are shares of 1 and rise with the fraction.
    """

    protection_uj: NDArray[np.float64]
    latency_us: NDArray[np.float64]
    loss: NDArray[np.float64]

    def cost(self, objective: str) -> NDArray[np.float64]:
        """Return what the objective weighs, by split."""
        return self.protection_uj if objective == "energy" else self.latency_us

    def least(self, cost: NDArray[np.float64], loss: float) -> NDArray[np.float64]:
        """Return the least cost of a split that loses at most `loss`, for each resample.

        A curve that ends below this loss gives the least of its own splits.
        """
        found = np.where(self.loss <= loss, cost, np.inf).min(axis=1)
        for row, losses in enumerate(self.loss):
            after = int(np.searchsorted(losses, loss, side="right"))
            if after < len(losses):
                found[row] = min(
                    found[row],
                    np.interp(loss, losses[[after - 1, after]], cost[[after - 1, after]]),
                )
        return found


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--ranked", type=int, default=2000)
    options.add_argument("--images", type=int, default=500)
    options.add_argument("--folder", type=Path, default=Path("cost-aware"))
    arguments = options.parse_args()
    arguments.folder.mkdir(exist_ok=True)
    network = nce.load_model("allcnn-fashion")
    train = nce.load_data("fashion-mnist", "ranking").first(arguments.ranked)
    test = nce.load_data("fashion-mnist", "test").first(arguments.images)
    machines = {name: nce.load_machine(name) for name in MACHINES}
    means = nce.mean_activation(network, train.images)
    found = {}
    for fault in (nce.Dropout(0.5), nce.GaussianNoise(3.0, means)):
        kept = arguments.folder / f"{fault.name}-{arguments.ranked}.npz"
        ranking = _ranking(kept, network, train, fault)
        splits = _splits(network, machines, ranking)
        lost = _losses(arguments.folder, network, test, splits, fault)
        found[str(fault)] = _curves(network, machines, splits, lost)
    print(f"{arguments.ranked} training images, {arguments.images} test images")
    for fault_name, curves in found.items():
        _print(fault_name, curves)
    FIGURE.write_bytes(png_bytes(_figure(found)))
    print(f"{FIGURE} is the figure")


def _ranking(path: Path, network: Workload, train: nce.Dataset, fault: FaultModel) -> nce.Ranking:
    """Return the fault-aware ranking, a kept one if there is one."""
    if not path.exists():
        nce.rank(network, train.images, train.labels, "fault-aware", fault=fault).save(path)
    return nce.Ranking.load(path, network)


def _splits(
    network: Workload, machines: Mapping[str, nce.Machine], ranking: nce.Ranking
) -> dict[Key, nce.Split]:
    """Return the splits by machine, objective and fraction; those by neuron have no machine."""
    found = {("", "neurons", each): ranking.split(each) for each in FRACTIONS["neurons"]}
    for name, machine in machines.items():
        for objective in ("energy", "latency"):
            priced = nce.price(ranking, network, machine, objective)
            for fraction in FRACTIONS[objective]:
                found[name, objective, fraction] = priced.split(fraction)
    return found


def _losses(
    folder: Path, network: Workload, test: nce.Dataset, splits: Mapping[Key, nce.Split],
    fault: FaultModel,
) -> dict[Key, NDArray[np.float64]]:  # fmt: skip
    """Return each split's loss of accuracy for the images and for all resamples of them."""
    kept = folder / f"{fault.name}-{len(test)}-images.npz"
    if not kept.exists():
        predictions = predict_variants(
            network, test.images, [Variant(split, fault) for split in splits.values()],
            resume_from=folder / f"{fault.name}.resume",
        )  # fmt: skip
        np.savez(kept, clean=predictions.clean, faulty=predictions.faulty[:, 0])
    labels = test.labels.numpy()
    with np.load(kept) as archive:
        lost = (archive["clean"] == labels).astype(float) - (archive["faulty"] == labels)
    count = len(labels)
    drawn = generator(0, "bootstrap over images").multinomial(
        count, np.full(count, 1 / count), RESAMPLES
    )
    weights = np.vstack([np.ones(count), drawn]) / count
    return dict(zip(splits, lost @ weights.T, strict=True))


def _curves(
    network: Workload, machines: Mapping[str, nce.Machine], splits: Mapping[Key, nce.Split],
    lost: Mapping[Key, NDArray[np.float64]],
) -> dict[tuple[str, str], Curve]:  # fmt: skip
    """Return the curves by machine and objective."""
    some = next(iter(splits.values()))
    found = {}
    for name, machine in machines.items():
        bare = nce.simulate(network, machine, end_of(some, True)).energy.total_pj
        for objective, fractions in FRACTIONS.items():
            owner = "" if objective == "neurons" else name
            keys = [(owner, objective, fraction) for fraction in fractions]
            runs = [
                nce.simulate(network, machine, split)
                for split in (end_of(some, False), *(splits[key] for key in keys))
            ]
            losses = np.column_stack([np.zeros(1 + RESAMPLES), *(lost[key] for key in keys)])
            found[name, objective] = Curve(
                np.array([run.energy.total_pj - bare for run in runs]) / 1e6,
                np.array([run.latency_us for run in runs]),
                np.maximum.accumulate(losses, axis=1),
            )
    return found


def _print(fault: str, curves: Mapping[tuple[str, str], Curve]) -> None:
    print(f"\n{fault}: by neuron, by price, ratio")
    print("machine            lost  protection energy, uJ            latency, us")
    for machine in MACHINES:
        for loss in LOSSES:
            cells = [
                _cell(curves[machine, "neurons"], curves[machine, objective], objective, loss)
                for objective in ("energy", "latency")
            ]
            print(f"{machine:18} {100 * loss:3.0f}  ", "   ".join(cells))


def _cell(plain: Curve, priced: Curve, objective: str, loss: float) -> str:
    if plain.loss[0, -1] < loss:
        return "the curve by neuron ends before"
    by_neuron, by_price = (each.least(each.cost(objective), loss) for each in (plain, priced))
    ratio = by_price / by_neuron
    low, high = np.quantile(ratio[1:], (0.025, 0.975))
    return f"{by_neuron[0]:6.0f} {by_price[0]:6.0f} {ratio[0]:5.2f} [{low:.2f}, {high:.2f}]"


@styled
def _figure(found: Mapping[str, Mapping[tuple[str, str], Curve]]) -> Figure:
    """Draw loss against protection energy and against latency, a column each, a row a fault."""
    machine = MACHINES[0]
    figure = new_figure(5.6, f"The same damage scores by neuron and by price, on {machine}")
    grid = figure.subplots(2, 2, sharey="row", sharex="col")
    for row, (fault, curves) in zip(grid, found.items(), strict=True):
        for axes, objective in zip(row, ("energy", "latency"), strict=True):
            for which in ("neurons", objective):
                curve = curves[machine, which]
                colour, marker, label = LOOKS[which]
                axes.plot(
                    curve.cost(objective), 100 * curve.loss[0], color=colour, marker=marker,
                    label=label,
                )  # fmt: skip
            axes.set_title(fault)
            axes.set_ylim(-0.5, 10)
            add_grid(axes)
        row[0].set_ylabel("Points of accuracy lost")
    grid[1, 0].set_xlabel("Protection energy (uJ)")
    grid[1, 1].set_xlabel("Latency (us)")
    lines = {}
    for axes in grid[0]:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            lines[label] = handle
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines))
    return figure


if __name__ == "__main__":
    main()
