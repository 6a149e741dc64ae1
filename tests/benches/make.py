"""Write `counts.json` anew: python tests/benches/make.py

Look at the difference before keeping a new one, and say in the commit what changed it.
"""

import json

from benches import BENCHES, HERE

FILE = HERE / "counts.json"


def text() -> str:
    """Return the file of stored counts."""
    return json.dumps({name: run() for name, run in BENCHES.items()}, indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
    print(f"wrote {FILE}")
