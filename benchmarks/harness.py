"""What every benchmark needs: bars, measured child processes, and peers in environments of their own.

A measured piece of work is a script that does it once and prints a JSON object as its last line; it runs in a process
of its own, so that its peak memory is its own. Pieces that are compared run in turns, and medians are compared.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from flyball.kernel.memory import keeping

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".bench"
PEERS = Path(__file__).resolve().parent / "peers"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A figure and what it must reach. `bar` or `goal` None: none was set. `at_most`: smaller is better."""

    name: str
    figure: float
    bar: float | None
    goal: float | None = None
    at_most: bool = False

    @property
    def state(self) -> str:
        """`met` or `missed`; `shown` where there is no bar."""
        if self.bar is None:
            return "shown"
        return "met" if (self.figure <= self.bar if self.at_most else self.figure >= self.bar) else "missed"

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        bar, goal = ("-" if limit is None else f"{sign}{limit:g}" for limit in (self.bar, self.goal))
        return f"bar {self.name} {self.figure:.4g} {bar} {goal} {self.state}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """A script under `benchmarks/` with its arguments. `peer`: the environment it runs in; empty: ours. `keeping`: with
    the settings of memory that the ingest process has."""

    name: str
    script: str
    arguments: Sequence[str] = ()
    peer: str = ""
    keeping: bool = False

    def command(self) -> list[str]:
        python = sys.executable if not self.peer else str(environment(self.peer))
        return [python, str(ROOT / "benchmarks" / self.script), *self.arguments]


def environment(peer: str) -> Path:
    """The interpreter of a peer's environment, which is made at the first call from `peers/NAME.txt`.

    A first line `# interpreter: PATH` names the Python that it is made with; without one it is ours.
    """
    requirements = PEERS / f"{peer}.txt"
    folder = CACHE / "envs" / peer
    python, stamp = folder / "bin" / "python", folder / "made.txt"
    if not stamp.exists() or stamp.read_text() != requirements.read_text():
        say(f"making the environment of {peer}")
        base = _interpreter(requirements.read_text())
        subprocess.run([base, "-m", "venv", "--clear", folder], check=True, env=_plain())
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True, env=_plain())
        stamp.write_text(requirements.read_text())
    return python


def _interpreter(requirements: str) -> str:
    first = requirements.partition("\n")[0]
    path = first.removeprefix("# interpreter: ") if first.startswith("# interpreter: ") else sys.executable
    if not os.path.exists(path):
        raise SystemExit(f"there is no {path}, which the peer needs: {first}")
    return path


def run(work: Work) -> dict[str, Any]:
    """Do a piece of work once; what it printed last."""
    environment = keeping(_plain()) if work.keeping else _plain()
    done = subprocess.run(work.command(), cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{work.name} failed with status {done.returncode}: {' '.join(work.command())}\n{done.stdout}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    shown = "  ".join(f"{key} {value:.4g}" for key, value in result.items() if isinstance(value, int | float))
    say(f"{work.name:44} {shown}")
    return result


def in_turns(works: Sequence[Work], *, times: int) -> list[dict[str, Any]]:
    """Do each piece `times` times, one after another in turns; per piece the median of each of its numbers."""
    results: list[list[dict[str, Any]]] = [[] for _ in works]
    for _ in range(times):
        for work, found in zip(works, results, strict=True):
            found.append(run(work))
    return [
        {key: median(one[key] for one in found) if _is_number(value) else value for key, value in found[0].items()}
        for found in results
    ]


def run_parts(
    parts: Mapping[str, Callable[[int], Sequence[Bar]]],
    *,
    only: Sequence[str],
    times: int,
    before: Callable[[], None] = lambda: None,
) -> Iterator[Bar]:
    """Run all parts of a benchmark, or those named in `only`, once `before` was done; gives their bars as they come."""
    unknown = [name for name in only if name not in parts]
    if unknown:
        raise SystemExit(f"there is no part {unknown[0]!r}; there are {', '.join(parts)}")
    before()
    for name, part in parts.items():
        if not only or name in only:
            say(f"\n{name}: {part.__doc__}")
            began = time.monotonic()
            yield from part(times)
            say(f"{name} took {time.monotonic() - began:.0f} s")


def conditions() -> str:
    """The machine, in one line."""
    with open("/proc/cpuinfo") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown CPU")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"
    )


def say(text: str) -> None:
    print(text, flush=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain() -> dict[str, str]:
    """The environment without what would slow a current NumPy, and with the repository on the path."""
    kept = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    return kept | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
