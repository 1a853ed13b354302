"""Made-up people with whole lives, as FHIR R4 bundles: Synthea (Apache-2.0) on the embedded Java, its jars locked.

Run as `python -m infra.local.synthea FOLDER [--patients N] [--seed S]`: one transaction bundle a person in
FOLDER/fhir, and one each of the hospitals and practitioners that they refer to; the jars in FOLDER/jars. Optional:
nothing else needs it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from infra.errors import StackDown, UsageError, WardstreamError
from infra.local.artifacts import JAVA_HOME, install

HEAP = "1g"
TODAY = "20250101"  # Synthea reads the clock otherwise, and the same seed would tell another story every day


def generate(folder: Path, patients: int, seed: int, console: Console) -> list[Path]:
    """The bundles of `patients` living people, and of whoever died on the way to that number; gives their paths.

    The same patients and seed give the same lives. Raises UsageError where FOLDER/fhir holds bundles already, and
    StackDown where Synthea fails.
    """
    target = folder.absolute() / "fhir"
    if any(target.glob("*.json")):
        raise UsageError(f"{target} holds bundles already")
    jars = install("synthea", lambda jar: folder.absolute() / "jars" / jar.name, console)
    arguments = ["-p", str(patients), "-s", str(seed), "-cs", str(seed), "-r", TODAY, "-e", TODAY]
    done = subprocess.run(  # noqa: S603 - our own command line
        [
            str(JAVA_HOME / "bin" / "java"), f"-Xmx{HEAP}", "-XX:-UsePerfData", "-cp", os.pathsep.join(map(str, jars)),
            "App", *arguments, f"--exporter.baseDirectory={folder.absolute()}",
        ],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    found = sorted(target.glob("*.json"))
    if done.returncode or not found:
        raise StackDown(f"Synthea failed: {done.stdout[-400:]}{done.stderr[-400:]}")
    return found


def main(
    folder: Annotated[Path, typer.Argument(help="Where the bundles go.")],
    patients: Annotated[int, typer.Option(min=1, max=10_000, help="Living people.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="The same seed tells the same lives.")] = 7,
) -> None:
    """Generate made-up people as FHIR R4 bundles."""
    try:
        found = generate(folder, patients, seed, Console(stderr=True))
    except WardstreamError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(error.exit_code) from None
    size = sum(path.stat().st_size for path in found)
    typer.echo(f"{len(found)} bundles, {size / 1e6:.1f} MB in {found[0].parent}")


if __name__ == "__main__":
    typer.run(main)
