"""What the names in a study stand for: networks, machines, data and files, each loaded once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from pydantic import TypeAdapter

from nce_sim.accuracy.inject import AnyFault
from nce_sim.config.campaign import HardwareFault, Supply, TransientProcess
from nce_sim.config.machine import Machine
from nce_sim.config.study import StudyFault, StudyRanking, SupplyFault
from nce_sim.config.vary import Changes, changed_machine
from nce_sim.errors import InputError
from nce_sim.faults.models import Dropout, FaultModel, GaussianNoise
from nce_sim.faults.rates import load_trace
from nce_sim.study.campaign import fault_of, supply_faults
from nce_sim.workload.data_config import DataRecord, find_data, ranking_part
from nce_sim.workload.datasets import Dataset, load_data
from nce_sim.workload.graph import Workload
from nce_sim.workload.images import pixel_bytes
from nce_sim.workload.models import data_of, load_model


@dataclass(frozen=True)
class Resources:
    """Loads what is asked for, and keeps it.

    All methods raise InputError for what cannot be found or used.
    """

    _networks: dict[str, Workload] = field(default_factory=dict)
    _machines: dict[tuple[str, Changes], Machine] = field(default_factory=dict)
    _data: dict[tuple[str, str], Dataset] = field(default_factory=dict)
    _hashes: dict[tuple[str, str, int | None], str] = field(default_factory=dict)

    def network(self, name: str) -> Workload:
        """Return a network by bundled name or path."""
        if name not in self._networks:
            self._networks[name] = load_model(name)
        return self._networks[name]

    def data_of(self, network: str) -> str | None:
        """Return what describes a network's data, as JSON, if it has any."""
        given = data_of(network)
        return None if given is None else find_data(given).model_dump_json()

    def machine(self, name: str, changes: Changes) -> Machine:
        """Return a machine with some values changed."""
        if (name, changes) not in self._machines:
            self._machines[name, changes] = changed_machine(name, changes)
        return self._machines[name, changes]

    def test_images(self, data: str, count: int | None) -> Dataset:
        """Return the first test images; all if `count` is None."""
        whole = self._part(data, "test")
        return whole if count is None else whole.first(count)

    def training_images(self, data: str, count: int) -> Dataset:
        """Return the first training images."""
        return self._part(data, ranking_part(data_record(data), count)).first(count)

    def data_identity(self, data: str, part: str, count: int | None) -> str:
        """Return a hash of the first images of "test" or "training", with their labels."""
        key = data, part, count
        if key not in self._hashes:
            if part == "test":
                chosen = self.test_images(data, count)
            else:
                assert count is not None
                chosen = self.training_images(data, count)
            pixels = sha256()
            for some in pixel_bytes(chosen.images):
                pixels.update(some)
            pixels.update(chosen.labels.numpy().tobytes())
            self._hashes[key] = pixels.hexdigest()[:32]
        return self._hashes[key]

    def _part(self, data: str, part: str) -> Dataset:
        if (data, part) not in self._data:
            self._data[data, part] = load_data(data_record(data), part)
        return self._data[data, part]


_RECORDS: TypeAdapter[DataRecord] = TypeAdapter(DataRecord)


def data_record(data: str) -> DataRecord:
    """Return the record that `Resources.data_of` wrote as JSON."""
    return _RECORDS.validate_json(data)


def machine_identity(machine: Machine) -> str:
    """Return a hash of a machine's whole configuration and of its tables."""
    return sha256(machine.model_dump_json().encode()).hexdigest()[:32]


def file_identity(path: str) -> str:
    """Return a hash of a file; InputError if it cannot be read."""
    try:
        return sha256(Path(path).read_bytes()).hexdigest()[:32]
    except OSError as reason:
        raise InputError(f"cannot read {path}: {reason.strerror or reason}") from reason


def traces_of(faults: Sequence[StudyFault]) -> list[str]:
    """Return what the traces of rates hold that faults follow."""
    return [
        repr(load_trace(fault.process.trace))
        for fault in faults
        if isinstance(fault, HardwareFault)
        and isinstance(fault.process, TransientProcess)
        and fault.process.trace is not None
    ]


def faults_of(
    faults: Sequence[StudyFault], machine: Machine | None, means: Mapping[str, float]
) -> list[AnyFault]:
    """Return the faults that a study names; `means` are the mean activations, if noise needs them.

    Raises InputError for what does not go together, and for faults of a supply that the machine
    does not have.
    """
    found: list[AnyFault] = []
    for fault in faults:
        if isinstance(fault, SupplyFault):
            assert machine is not None
            found += supply_faults(Supply(figure=fault.at_supply), machine)[0]
        else:
            found.append(fault_of(fault, lambda: means))
    return found


def fault_to_rank_for(ranking: StudyRanking, means: Mapping[str, float]) -> FaultModel:
    """Return the fault that a ranking knows; `means` are the mean activations, for noise.

    Raises InputError for a level that is no number, or not allowed.
    """
    assert ranking.fault is not None
    kind, _, level = ranking.fault.partition("=")
    try:
        value = float(level)
    except ValueError as reason:
        raise InputError(f"{ranking.fault} has no number after the =") from reason
    return Dropout(value) if kind == "dropout" else GaussianNoise(value, means)
