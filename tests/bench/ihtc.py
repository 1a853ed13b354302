"""`make ihtc`: every instance of IHTC-2024 solved, and what came of it appended to build/ihtc.jsonl.

    python tests/bench/ihtc.py [--seconds 600] [--data FOLDER] [--seed 1] [--force] [INSTANCE ...]

May be run in several sittings: an instance that this version of the solver has solved in this time is left out, unless
forced. Solutions lie beside the figures, in build/ihtc/.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from consumers.ihtc import BEST_KNOWN, version

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build" / "ihtc.jsonl"
PUBLIC = (*BEST_KNOWN, *(f"test{n:02}" for n in range(1, 11)), *(f"small{n:02}" for n in range(1, 10)))


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def solved(instance: Path, seconds: float, seed: int) -> dict[str, Any]:
    """The command as a person runs it; a failure is a row too."""
    out = RESULTS.with_suffix("") / f"sol_{instance.stem}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    options = ["--ihtc", instance, "--seconds", seconds, "--seed", seed, "--out", out]
    command = [sys.executable, ROOT / "wardstream.py", "plan", "solve", *options, "--json"]
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    told = json.loads(done.stdout) if done.returncode == 0 else {"cost": None, "violations": None}
    told |= {"instance": instance.stem, "seconds": seconds, "seed": seed, "version": version()}
    told |= {"best_known": given(instance), "exit_code": done.returncode}
    told["gap"] = told["cost"] / told["best_known"] - 1 if told["cost"] and told["best_known"] else None
    return told


def given(instance: Path) -> int | None:
    """The best known cost: of a test instance that of the solution beside it, in its own words `Cost: 3177, ...`."""
    beside = instance.with_name(f"sol_{instance.name}")
    if beside.exists():
        return int(json.loads(beside.read_text())["costs"][0].split(",")[0].split(":")[1])
    return BEST_KNOWN.get(instance.stem)


def missing(names: list[str], seconds: float, seed: int) -> Iterator[str]:
    same = {"seconds": seconds, "seed": seed, "version": version()}
    done = {row["instance"] for row in rows() if same.items() <= row.items()}
    yield from (name for name in names if name not in done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("instances", nargs="*", default=PUBLIC)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/allocation/ihtc2024")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--force", action="store_true")
    asked = parser.parse_args()
    names = list(asked.instances)
    if absent := [name for name in names if not (asked.data / f"{name}.json").is_file()]:
        sys.exit(f"not in {asked.data}: {' '.join(absent)}; say with --data, or IHTC_DATA=, where the instances are")
    for name in names if asked.force else missing(names, asked.seconds, asked.seed):
        row = solved(asked.data / f"{name}.json", asked.seconds, asked.seed)
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{name}: cost {row['cost']}" + ("" if row["gap"] is None else f", gap {row['gap']:.2%}"), flush=True)
    ours = [row for row in rows() if row["version"] == version() and row["seconds"] == asked.seconds]
    gaps = {row["instance"]: row["gap"] for row in ours if row["gap"] is not None}
    if gaps:
        print(f"{len(gaps)} instances, median gap {statistics.median(gaps.values()):.2%}")
    if any(row["exit_code"] for row in ours if row["instance"] in names):
        sys.exit(1)


if __name__ == "__main__":
    main()
