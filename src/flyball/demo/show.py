"""What the demonstration shows: stages with progress bars on a terminal, plain lines elsewhere; one outcome each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table


class Stage:
    """One stage while it runs."""

    def __init__(self, progress: Progress | None, task: TaskID | None, console: Console) -> None:
        self._progress, self._task, self._console = progress, task, console
        self._outcome = ""

    def at(self, done: float, total: float, note: str = "") -> None:
        """How far it is; shown where there is a bar."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total, note=note)

    def tell(self, line: str) -> None:
        """Something that happened meanwhile, on a line of its own."""
        self._console.print(f"    {line}", highlight=False, markup=False, soft_wrap=True)

    def outcome(self, line: str) -> None:
        """What came of it; shown when the stage ends."""
        self._outcome = line

    @property
    def result(self) -> str:
        return self._outcome


class Show:
    """Prints to `console`. A context manager: bars are cleared when it is left."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._progress: Progress | None = None
        if self.console.is_terminal:
            columns = (
                TextColumn("  {task.description}"),
                BarColumn(bar_width=30),
                TextColumn("{task.percentage:>3.0f} % {task.fields[note]}"),
                TimeElapsedColumn(),
            )
            self._progress = Progress(*columns, console=self.console, transient=True)

    def __enter__(self) -> Show:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Show a bar while the block runs, and its outcome after it; nothing of one that raises."""
        began = time.monotonic()
        task = None
        if self._progress is not None:
            task = self._progress.add_task(name, total=None, note="")
        stage = Stage(self._progress, task, self.console)
        try:
            yield stage
        finally:
            if self._progress is not None and task is not None:
                self._progress.remove_task(task)
        line = f"  {name:<22} {stage.result}  ({time.monotonic() - began:.1f} s)"
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def line(self, text: str = "") -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        table = Table("what", "figure", title=title, title_justify="left", header_style="bold")
        for what, figure in rows:
            table.add_row(what, figure)
        self.console.print(table)
