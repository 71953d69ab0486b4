"""Run a benchmark by its name: `python -m benchmarks features`.

Ends with the machine and a line for each figure: `bar NAME FIGURE BAR GOAL met|missed|shown`. A missed bar is a result
and no failure: the status is 0.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from benchmarks.harness import Bar, conditions, say


def main() -> None:
    here = Path(__file__).parent
    names = sorted(path.parent.name for path in here.glob("*/suite.py"))
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=names)
    parser.add_argument("--only", default="", help="parts by name, separated by commas")
    parser.add_argument("--times", type=int, default=3, help="how often each comparison is repeated")
    arguments = parser.parse_args()
    if arguments.times < 1:
        parser.error(f"--times must be at least 1, not {arguments.times}")
    suite = importlib.import_module(f"benchmarks.{arguments.name}.suite")
    say(conditions())
    bars: list[Bar] = []
    try:
        for bar in suite.measure(only=[part for part in arguments.only.split(",") if part], times=arguments.times):
            bars.append(bar)
    finally:  # a part that fails takes nothing from those before it
        say(f"\n{conditions()}; medians of {arguments.times}")
        for bar in bars:
            say(str(bar))


if __name__ == "__main__":
    main()
