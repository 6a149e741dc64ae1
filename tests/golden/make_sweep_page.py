"""Store the page of a made-up sweep, without figures, style and scripts: its words and tables."""

import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

from small_sweep import DESCRIPTION, made_up_rows

from nce_sim.report.sweep_report import write_sweep

PAGE = Path(__file__).parent / "sweep_page.html"


def words_of_page(folder: Path) -> str:
    """Write the sweep's folder and return what its page says."""
    write_sweep(made_up_rows(), DESCRIPTION, folder)
    page = (folder / "index.html").read_text()
    page = re.sub(r"<svg.*?</svg>", "<svg/>", page, flags=re.DOTALL)
    return re.sub(r"<(style|script)>.*?</\1>", r"<\1/>", page, flags=re.DOTALL)


if __name__ == "__main__":
    with TemporaryDirectory() as place:
        PAGE.write_text(words_of_page(Path(place)))
