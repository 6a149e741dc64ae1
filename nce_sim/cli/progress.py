"""Progress of long work on the terminal; nothing where the output is no terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Advance = Callable[[int], None]
Stage = Callable[[str, int], Advance]


@contextmanager
def stages(console: Console) -> Iterator[Stage]:
    """Show one bar a stage, with the time it still needs.

    Yields the function that begins a stage: told its name and number of steps, it returns the
    function that is told how many steps are done.
    """
    columns = (
        TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def begin(name: str, steps: int) -> Advance:
            task = progress.add_task(name, total=steps)
            return lambda done: progress.update(task, completed=done)

        yield begin
