"""nce-sim: how reliable, fast and frugal is a neural network engine?

    import nce_sim as nce
    network = nce.load_model("allcnn-fashion")
    test = nce.load_data("fashion-mnist", "test")
    train = nce.load_data("fashion-mnist", "ranking")
    ranking = nce.rank(network, train.images, train.labels, method="lrp")
    split = ranking.split(unprotected_fraction=0.4)
    run = nce.simulate(network, nce.load_machine("nce-28nm"), split)
    result = nce.evaluate(network, test.images, test.labels, split, faults=nce.Dropout(0.5))

Names are loaded on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nce_sim.accuracy.accuracy_result import AccuracyResult
    from nce_sim.accuracy.evaluate import evaluate, mean_activation
    from nce_sim.accuracy.exhaustive import ExhaustiveDamage, exhaustive_damage
    from nce_sim.accuracy.inject import InjectionResult, inject
    from nce_sim.accuracy.latency import latencies
    from nce_sim.accuracy.measured_safety import SafetyEffort, assess_safety
    from nce_sim.config.array_scheme import ArrayScheme
    from nce_sim.config.machine import Machine, load_machine
    from nce_sim.config.voltage import OperatingPoint, VoltageTable, load_voltage
    from nce_sim.errors import InputError
    from nce_sim.faults.effects import BitFlip, Gaussian, RandomValue, StuckAt, Zero
    from nce_sim.faults.lane_damage import expected_damage
    from nce_sim.faults.models import Dropout, GaussianNoise
    from nce_sim.faults.processes import Elements, Fault, Intermittent, Permanent, Single, Transient
    from nce_sim.faults.ranking_in_loop import rank_in_loop
    from nce_sim.faults.sites import Site
    from nce_sim.machine.engine import Run, simulate
    from nce_sim.protection.coverage import Coverage, coverage
    from nce_sim.resilience.correlation import layer_correlations, rank_correlation
    from nce_sim.resilience.ranking import Ranking, rank
    from nce_sim.resilience.split import Alignment, Split
    from nce_sim.safety.assessment import Safety, SafetyInputs
    from nce_sim.study.protection_price import price
    from nce_sim.study.protection_share import ProtectionShare, protection_share
    from nce_sim.workload.calibration import Calibration, calibrate
    from nce_sim.workload.datasets import Dataset, load_data
    from nce_sim.workload.graph import Workload
    from nce_sim.workload.models import load_model

__version__ = "0.1.0"

_HOMES = {
    "AccuracyResult": "nce_sim.accuracy.accuracy_result",
    "Alignment": "nce_sim.resilience.split",
    "ArrayScheme": "nce_sim.config.array_scheme",
    "BitFlip": "nce_sim.faults.effects",
    "Calibration": "nce_sim.workload.calibration",
    "Coverage": "nce_sim.protection.coverage",
    "Dataset": "nce_sim.workload.datasets",
    "Dropout": "nce_sim.faults.models",
    "Elements": "nce_sim.faults.processes",
    "ExhaustiveDamage": "nce_sim.accuracy.exhaustive",
    "Fault": "nce_sim.faults.processes",
    "Gaussian": "nce_sim.faults.effects",
    "GaussianNoise": "nce_sim.faults.models",
    "InjectionResult": "nce_sim.accuracy.inject",
    "InputError": "nce_sim.errors",
    "Intermittent": "nce_sim.faults.processes",
    "Machine": "nce_sim.config.machine",
    "OperatingPoint": "nce_sim.config.voltage",
    "Permanent": "nce_sim.faults.processes",
    "ProtectionShare": "nce_sim.study.protection_share",
    "RandomValue": "nce_sim.faults.effects",
    "Ranking": "nce_sim.resilience.ranking",
    "Run": "nce_sim.machine.engine",
    "Safety": "nce_sim.safety.assessment",
    "SafetyEffort": "nce_sim.accuracy.measured_safety",
    "SafetyInputs": "nce_sim.safety.assessment",
    "Single": "nce_sim.faults.processes",
    "Site": "nce_sim.faults.sites",
    "Split": "nce_sim.resilience.split",
    "StuckAt": "nce_sim.faults.effects",
    "Transient": "nce_sim.faults.processes",
    "VoltageTable": "nce_sim.config.voltage",
    "Workload": "nce_sim.workload.graph",
    "Zero": "nce_sim.faults.effects",
    "assess_safety": "nce_sim.accuracy.measured_safety",
    "calibrate": "nce_sim.workload.calibration",
    "coverage": "nce_sim.protection.coverage",
    "evaluate": "nce_sim.accuracy.evaluate",
    "exhaustive_damage": "nce_sim.accuracy.exhaustive",
    "expected_damage": "nce_sim.faults.lane_damage",
    "inject": "nce_sim.accuracy.inject",
    "latencies": "nce_sim.accuracy.latency",
    "layer_correlations": "nce_sim.resilience.correlation",
    "load_data": "nce_sim.workload.datasets",
    "load_machine": "nce_sim.config.machine",
    "load_model": "nce_sim.workload.models",
    "load_voltage": "nce_sim.config.voltage",
    "mean_activation": "nce_sim.accuracy.evaluate",
    "price": "nce_sim.study.protection_price",
    "protection_share": "nce_sim.study.protection_share",
    "rank": "nce_sim.resilience.ranking",
    "rank_correlation": "nce_sim.resilience.correlation",
    "rank_in_loop": "nce_sim.faults.ranking_in_loop",
    "simulate": "nce_sim.machine.engine",
}

__all__ = [
    "AccuracyResult", "Alignment", "ArrayScheme", "BitFlip", "Calibration", "Coverage", "Dataset",
    "Dropout", "Elements", "ExhaustiveDamage", "Fault", "Gaussian", "GaussianNoise",
    "InjectionResult", "InputError", "Intermittent", "Machine", "OperatingPoint", "Permanent",
    "ProtectionShare", "RandomValue", "Ranking", "Run", "Safety", "SafetyEffort", "SafetyInputs",
    "Single", "Site", "Split", "StuckAt", "Transient", "VoltageTable", "Workload", "Zero",
    "assess_safety", "calibrate", "coverage", "evaluate", "exhaustive_damage", "expected_damage",
    "inject", "latencies", "layer_correlations", "load_data", "load_machine", "load_model",
    "load_voltage", "mean_activation", "price", "protection_share", "rank", "rank_correlation",
    "rank_in_loop", "simulate",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nce_sim' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
