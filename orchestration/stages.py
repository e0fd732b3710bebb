"""Progress of a long command: one line per stage, with its time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console

Say = Callable[[str], None]


@contextmanager
def stage(console: Console, title: str) -> Iterator[Say]:
    """Show a stage while it runs and, when it is done, its time and the last thing it said.

    Parameters
    ----------
    console : rich.console.Console
        Where no terminal is attached, only the finished line is printed.
    title : str
        What the stage does.

    Yields
    ------
    callable
        Takes a short text that says how far the stage is.
    """
    started = monotonic()
    last = ""
    with console.status(title) as status:

        def say(text: str) -> None:
            nonlocal last
            last = text
            status.update(f"{title}: {text}")

        yield say
    console.print(f"{monotonic() - started:7.1f} s  {title}{f': {last}' if last else ''}")
