"""`keys`, `backup` and `restore`."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from consumers import backup as backups
from consumers import replay
from consumers.access import permit
from consumers.search import domain
from infra import rotation
from infra.audit import Act, Audit
from infra.errors import StackDown
from infra.kafka import lag
from infra.keystore import BEAT_SECONDS, KeyStore
from infra.runtime import run_to_end

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KEPT_DAYS = 30.0  # how long a superseded key-encryption key is kept: as long as backups of the key store are
DRAIN_SECONDS = 120.0


def register(app: typer.Typer) -> None:
    keys = typer.Typer(help="The keys that wrap keys: status, rotate, rotate-blind.", no_args_is_help=True)
    app.add_typer(keys, name="keys")

    @keys.command()
    def status(as_json: Json = False) -> None:
        """Every key-encryption key, and how many data keys each wraps."""
        Audit.local().write(permit("keys").act("R"))
        _, store = KeyStore.local()
        _show(rotation.keks(store), as_json)

    @keys.command()
    def rotate(
        kept: Annotated[
            float, typer.Option("--kept-days", min=0, help="Destroy older ones after so many days.")
        ] = KEPT_DAYS,
        as_json: Json = False,
    ) -> None:
        """Wrap every data key by a new key-encryption key, while all runs, and destroy those superseded long enough.

        Killed, it is finished by giving it again. Give it from a timer: an old backup of the key store opens until the
        key-encryption key of its time is destroyed.
        """
        caller = permit("keys")
        _, store = KeyStore.local()
        Audit.local().write(caller.act("U", entities=("kek",), detail={"step": "rotate"}))
        version = rotation.begin(store)
        with _progress("data keys") as advance:
            rotation.rewrap(store, version, advance)
        if gone := rotation.destroy_superseded(store, kept):
            Audit.local().write(caller.act("D", entities=tuple(f"kek.{one}" for one in gone)))
        _show(rotation.keks(store), as_json)

    @keys.command("rotate-blind")
    def rotate_blind(
        into: Annotated[str, typer.Option(help="Name of the new index, such as ehr-v3.")],
        of: Annotated[str, typer.Option("--domain", help="Which domain's index.")] = "ehr",
        as_json: Json = False,
    ) -> None:
        """Change the key of the blind index: rebuild the index beside the live one, swap, destroy the old key.

        Meanwhile documents carry the terms of both keys, so no search misses anything. Killed, it is given again.
        """
        caller = permit("keys")
        _, store = KeyStore.local()
        Audit.local().write(caller.act("U", entities=("blind",), detail={"step": "rotate"}))
        version = rotation.add_blind(store)
        _await_workers(domain(of).raw.name)
        window = replay.Window()
        with _progress("records") as advance:
            made = run_to_end(replay.rebuild(domain(of), into, window, advance))
        if not made.swapped:
            raise StackDown("a record could not be rebuilt, so the old blind key stays: see `wardstream replay`")
        gone = rotation.drop_blinds(store)
        Audit.local().write(caller.act("D", entities=tuple(f"blind.{one}" for one in gone)))
        row = {"blind": version, "destroyed": gone, "index": into, "records": made.records}
        typer.echo(json.dumps(row) if as_json else f"blind key {version} is in force; destroyed: {gone}")

    @app.command()
    def backup(folder: Annotated[Path, typer.Argument(help="An empty folder.")], as_json: Json = False) -> None:
        """Save the key store and the sealed records: what opens nothing without the keyring, and closes by erasure.

        Keep the keyring elsewhere, and never the ledger of erasures with it. No index is saved: `replay` rebuilds it.
        """
        Audit.local().write(permit("export").act("R", entities=("backup",)))
        with _progress("records") as advance:
            counts = backups.save(folder, advance)
        typer.echo(json.dumps(counts) if as_json else "\n".join(f"{name}: {count}" for name, count in counts.items()))

    @app.command()
    def restore(
        folder: Annotated[Path, typer.Argument(help="What `backup` has made.")],
        replace: Annotated[bool, typer.Option("--replace", help="In place of the key store that is here.")] = False,
        without_ledger: Annotated[bool, typer.Option("--without-ledger", help="Nobody was ever erased here.")] = False,
        as_json: Json = False,
    ) -> None:
        """Bring a backup back, with the ledger of erasures obeyed first. Workers and feeds must be down.

        Then rebuild the index: `wardstream replay --into NAME`.
        """
        Audit.local().write(Act("key", "C", entities=("backup",), detail={"step": "restore"}))  # accounts come with it
        with _progress("records") as advance:
            counts = backups.restore(folder, replace, without_ledger, advance)
        typer.echo(json.dumps(counts) if as_json else "\n".join(f"{name}: {count}" for name, count in counts.items()))


def _await_workers(topic: str) -> None:
    """Until whatever was read before the new key was known is written: the index would keep it without its terms."""
    time.sleep(2 * BEAT_SECONDS)
    ends = {number: one.end for number, one in lag(topic).items()}
    deadline = time.monotonic() + DRAIN_SECONDS
    while any(one.committed < ends[number] for number, one in lag(topic).items()):
        if time.monotonic() > deadline:
            raise StackDown("the workers do not keep up: give the command again when they have")
        time.sleep(0.5)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int], None]]:
    figures = TextColumn("{task.completed:.0f} " + what)
    with Progress(SpinnerColumn(), figures, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        yield partial(progress.advance, progress.add_task("", total=None))


def _show(found: list[rotation.Kek], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(one) for one in found]))
        return
    table = Table("key-encryption key", "wraps", "state")
    for one in found:
        state = "destroyed" if one.destroyed_at else "superseded" if one.superseded_at else "in force"
        table.add_row(str(one.version), str(one.wraps), state)
    Console().print(table)
