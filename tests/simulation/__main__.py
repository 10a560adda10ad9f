"""Play many seeds: ``python -m tests.simulation [--seeds 20000] [--from 0] [--weather NAME] [--processes 2]``.

Prints each seed that fails, and how to play it again; exits 1 when one did. ``make chaos`` calls it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.weather import WEATHERS, play_some

CHUNK = 25
TOLD = 50  # failures that are told in full


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20_000, help="of all weathers together")
    parser.add_argument("--from", dest="begin", type=int, default=0, help="the first seed of each")
    parser.add_argument("--weather", choices=list(WEATHERS), action="append", help="only this one")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args(arguments)
    weathers = asked.weather or list(WEATHERS)
    each = -(-asked.seeds // len(weathers))
    tasks = [
        (weather, begin, min(begin + CHUNK, asked.begin + each))
        for begin in range(asked.begin, asked.begin + each, CHUNK)
        for weather in weathers
    ]
    played, faults, failed, began = Counter[str](), Counter[str](), [], time.monotonic()
    with ProcessPoolExecutor(asked.processes) as pool:
        for one in pool.map(play_some, *zip(*tasks, strict=True)):
            played[one.weather] += one.seeds
            faults[one.weather] += one.faults
            for line in one.failed[: max(TOLD - len(failed), 0)]:
                print(line, flush=True)
            failed += one.failed
            if sys.stderr.isatty():
                print(f"\r{played.total():,} seeds, {len(failed)} failed", end="", file=sys.stderr, flush=True)
    for weather in weathers:
        print(f"{weather:<28} {played[weather]:>7,} seeds {faults[weather]:>10,} faults")
    seconds = time.monotonic() - began
    print(f"{played.total():,} seeds in {seconds:.0f} s: {faults.total():,} faults, {len(failed)} seeds failed")
    if failed:
        print("To play one again: from tests.simulation.weather import WEATHERS; WEATHERS['rough'](17)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
