"""What people see: tables and bars on standard output, progress on standard error."""

import shutil
import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_PAGE = 112  # the most columns of a sentence
_BAR = 40  # characters of the longest bar
_EIGHTHS = " ▏▎▍▌▋▊▉"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,)) -> None:
    """Prints a table below a blank line. Columns are set to the right, as numbers are, those in `left` to the left."""
    lines = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print()
    for line in lines:
        cells = [
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def say(text: str) -> None:
    """Prints sentences below a blank line, no wider than the terminal."""
    width = min(shutil.get_terminal_size((_PAGE, 24)).columns, _PAGE)
    print()
    print(textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False))


def bar(value: float, longest: float) -> str:
    """A bar in proportion to the longest of its kind."""
    eighths = round(8 * _BAR * min(value / longest, 1.0)) if longest > 0 else 0
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


@contextmanager
def progress(what: str) -> Iterator[Callable[[float], None]]:
    """A progress bar on standard error while the block runs, if that is a terminal; it leaves nothing behind.

    Gives the function to call with the share that is done, from 0 to 1.
    """
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    error = Console(stderr=True)
    with Progress(*columns, console=error, transient=True, disable=not error.is_terminal) as shown:
        task = shown.add_task(what, total=1.0)

        def tell(share: float) -> None:
            shown.update(task, completed=share)

        yield tell
