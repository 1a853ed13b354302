"""The files around a planning problem: read, solve, judge, write."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import orjson

import streams.allocation.ihtc
from infra.errors import NoPlan, UsageError
from infra.settings import settings
from streams.allocation.ihtc.instance import Instance, read_instance
from streams.allocation.ihtc.judge import Verdict, judge
from streams.allocation.ihtc.solution import Solution, solution_file

SOURCES = Path(streams.allocation.ihtc.__file__).parent

# Best known costs of the public instances, as published at ihtc2024.github.io.
BEST_KNOWN = dict(
    zip(
        (f"i{number:02}" for number in range(1, 31)),
        (3842, 1264, 10490, 1884, 12760, 10671, 4985, 6249, 6611, 20705, 25938, 12375, 17328, 9591, 12486)
        + (10139, 40535, 37660, 43857, 29098, 24526, 47861, 37550, 33221, 11517, 64352, 50976, 75172, 12199, 37387),
        strict=True,
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Solved:
    seconds: float
    verdict: Verdict | None  # None: no plan yet
    best_known: int | None

    @property
    def gap(self) -> float | None:
        """Share above the best known cost."""
        if self.verdict is None or not self.best_known:
            return None
        return self.verdict.cost / self.best_known - 1


def version() -> str:
    """Changes with the solver's code."""
    digest = hashlib.sha256()
    for source in sorted(SOURCES.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def solve_ihtc(path: Path, seconds: float, out: Path | None, seed: int, workers: int = 2) -> Iterator[Solved]:
    """Yields each second what was found so far; it is in the file by then, so that an abrupt end loses a second.

    Raises BadProblem, and NoPlan where there is no plan at the end.
    """
    try:
        instance = read_instance(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    _keep_compiled_code()
    from streams.allocation.ihtc.solve import solve  # numba takes a second to load

    cost, solved = None, Solved(0.0, None, BEST_KNOWN.get(path.stem))
    with closing(solve(instance, seconds, seed, workers)) as steps:  # type: ignore[type-var]
        for step in steps:
            verdict = solved.verdict
            if step.solution is not None and step.cost != cost:
                cost, verdict = step.cost, judge(instance, step.solution)
                if verdict.broken or verdict.cost != cost:
                    raise NoPlan("the judge does not agree with the search")
                if out is not None:
                    _write(out, instance, step.solution)
            solved = Solved(step.seconds, verdict, solved.best_known)
            yield solved
    if solved.verdict is None:
        raise NoPlan("no plan that keeps every hard rule was found in the time")


def _write(out: Path, instance: Instance, solution: Solution) -> None:
    beside = out.with_name(out.name + ".part")
    beside.write_bytes(orjson.dumps(solution_file(instance, solution), option=orjson.OPT_INDENT_2))
    beside.replace(out)


def _keep_compiled_code() -> None:
    """Compiling takes a quarter of a minute; it is done once for each version of the code."""
    os.environ.setdefault("NUMBA_CACHE_DIR", str(settings().home.absolute() / "cache" / "numba" / version()))
