"""What the user asks of all groups."""

import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Rounds of jobs in turn; whether to take few images; the Python that has SCALE-Sim."""

    rounds: int = 7
    quick: bool = False
    scale_sim: Path = Path(sys.executable)

    def images(self, wanted: int) -> int:
        """Return how many images to take: an eighth of those wanted if it must be quick."""
        return -(-wanted // 8) if self.quick else wanted
