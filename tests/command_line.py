"""The command line within this process."""

import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import NamedTuple

from nce_sim.cli.main import main


class Done(NamedTuple):
    """Exit status, and what was printed."""

    status: int
    out: str
    err: str


def nce_sim(monkeypatch, *arguments) -> Done:
    monkeypatch.setattr(sys, "argv", ["nce-sim", *map(str, arguments)])
    out, err = StringIO(), StringIO()
    status = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as leaving:
            status = leaving.code or 0
    return Done(status, out.getvalue(), err.getvalue())
