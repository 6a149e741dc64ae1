"""A small sweep that is made up: its rows, and what was asked."""

from nce_sim.report.sweep_report import SweepDescription

FREE = 0.9
FAULTS = {"dropout p = 0.3": 0.1, "dropout p = 0.5": 0.4}
METHODS = {"lrp": 0.2, "random": 1.0}
FRACTIONS = (0.0, 0.25, 0.5, 1.0)

DESCRIPTION = SweepDescription(
    title="Made up: <rankings> & splits",
    lead="What two rankings keep and cost.",
    making=(("nce-sim", "0.0"), ("Seed", "0")),
    configuration="networks: [tiny]\nrankings: [lrp, random]\n</script><b>not bold</b>\n",
)


def made_up_rows() -> list[dict]:
    return [
        _row(method, fraction, fault)
        for fault in FAULTS
        for method in METHODS
        for fraction in FRACTIONS
    ]


def _row(method: str, fraction: float, fault: str) -> dict:
    lost = FAULTS[fault] * (fraction if fraction in (0, 1) else METHODS[method] * fraction)
    accuracy, wide = FREE - lost, 0.02 * (fraction > 0) + 0.005
    energy = 4.0 - 1.5 * fraction + 0.1 * (method == "random") * (0 < fraction < 1)
    return {
        "network": "tiny", "machine": "nce-small", "method": method, "granularity": "neuron",
        "fraction": fraction, "fault": fault, "seed": 0, "unprotected_neurons_share": fraction,
        "accuracy": accuracy, "accuracy_low": accuracy - wide, "accuracy_high": accuracy + wide,
        "confidence": 0.95, "inferences": 1500, "fault_free": FREE, "half_width_reached": True,
        "latency_us": 1200.0 - 300.0 * fraction, "energy_uj": energy,
        "energy_low_uj": 0.8 * energy, "energy_high_uj": 1.7 * energy,
        "area_mm2": 1.25, "area_low_mm2": 1.0, "area_high_mm2": 1.75, "identity": "0" * 32,
    }  # fmt: skip
