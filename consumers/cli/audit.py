"""`audit`: list, patient, verify, export. Whoever looks into the audit is written into it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from consumers import audit, person
from consumers.access import permit
from consumers.cli.read import Json, safe
from infra.audit import Audit, pem
from infra.errors import AuditBroken
from infra.keystore import KeyStore

Since = Annotated[str | None, typer.Option(help="Only the last 30m, 24h, 7d.")]
Purpose = Annotated[str | None, typer.Option(help="Why you look: HCOMPL, PATRQT, ... (HL7 v3 PurposeOfUse). Audited.")]
QUIET_SECONDS = 2.0  # what takes longer shows how far it is
SHOWN = 20  # faults in a table; --json has all


def register(app: typer.Typer) -> None:
    commands = typer.Typer(help="Who did what to whom, when and why; and whether the audit is whole.")
    app.add_typer(commands, name="audit", no_args_is_help=True)

    @commands.command("list")
    def list_entries(
        since: Since = None,
        kind: Annotated[str | None, typer.Option(help="search, reveal, login, erasure, key, export, ...")] = None,
        who: Annotated[str | None, typer.Option(help="An account.")] = None,
        purpose: Purpose = None,
        as_json: Json = False,
    ) -> None:
        """What was done and tried, oldest first."""
        Audit.local().write(permit("audit", purpose).act("R"))
        _show(audit.entries(since=since, kind=kind, who=who), as_json)

    @commands.command()
    def patient(
        identifier: Annotated[str, typer.Argument(help="A reference, authority|type|value, or a number.")],
        since: Since = None,
        purpose: Purpose = None,
        as_json: Json = False,
    ) -> None:
        """Who looked at this person, when, why and at what, under all numbers that were merged."""
        caller = permit("audit", purpose)
        _, keys = KeyStore.local()
        refs = person.family(identifier, keys, caller)
        Audit.local().write(caller.act("R", patients=tuple(sorted(refs))))
        _show(audit.entries(since=since, patients=refs), as_json)

    @commands.command()
    def verify(
        key: Annotated[Path | None, typer.Option(help="Public key in PEM that you have kept; else our own.")] = None,
        as_json: Json = False,
    ) -> None:
        """Find what was edited, removed, moved, cut off, repeated or made up, and say where. Exit code 13 then."""
        with _progress() as advance:
            found, judge = audit.verify(key, advance)
        public = pem(judge).decode()
        if as_json:
            typer.echo(json.dumps(dataclasses.asdict(found) | {"public_key": public}))
        else:
            typer.echo(f"{found.entries} entries; the last head is of entry {found.anchored}: {found.head or 'none'}")
            if found.unanchored:
                typer.echo(f"{len(found.unanchored)} entry not anchored yet: {found.unanchored[0]}; no fault")
            for what, torn in (("log", found.torn), ("heads", found.torn_heads)):
                if torn:
                    typer.echo(f"broken off by a crash, no fault: {what}, line {', '.join(map(str, torn))}")
            for fault in found.faults[:SHOWN]:
                typer.echo(str(fault))
            typer.echo(public.strip())
        if found.faults:
            more = f"; {len(found.faults) - SHOWN} are not shown (--json)" if len(found.faults) > SHOWN else ""
            raise AuditBroken(f"the audit was altered: {len(found.faults)} faults{more}")

    @commands.command()
    def export(
        to: Annotated[Path, typer.Argument(help="A file that is not there yet.")],
        purpose: Purpose = None,
    ) -> None:
        """Write all AuditEvents as FHIR NDJSON."""
        Audit.local().write(permit("export", purpose).act("R", entities=("audit",)))
        typer.echo(f"{audit.export(to)} entries")


def _show(rows: Iterable[audit.Row], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(row) for row in rows]))
        return
    table = Table("when", "who", "role", "why", "what", "fields", "of", "outcome")
    for row in rows:
        of = ", ".join(row.entities[:3]) + (f" and {len(row.entities) - 3} more" if len(row.entities) > 3 else "")
        outcome = f"{row.outcome}: {row.why}" if row.why else row.outcome
        texts = (row.when[:19], row.who, row.role, row.purpose, row.kind, ", ".join(row.fields), of, outcome)
        table.add_row(*(safe(text) for text in texts))
    Console().print(table)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on the error stream, once it takes longer than anybody waits without one."""
    began = time.monotonic()
    bar = Progress(TextColumn("verifying"), BarColumn(), TimeRemainingColumn(), console=Console(stderr=True))
    job = bar.add_task("", total=None)

    def advance(done: int, total: int) -> None:
        if not bar.live.is_started and time.monotonic() - began > QUIET_SECONDS:
            bar.start()
        if bar.live.is_started:
            bar.update(job, completed=done, total=total)

    try:
        yield advance
    finally:
        bar.stop()
