"""`erase`, `hold` and `unmerge`."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from consumers import erase as erasing
from consumers import person
from consumers.access import permit
from consumers.hold import BASES, Hold, Holds
from infra.audit import Audit
from infra.errors import UsageError
from infra.keystore import KeyStore
from schemas.scrub import Scrubber

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Patient = Annotated[str, typer.Option("--patient", help="Reference, authority|type|value, or number.")]
LONGEST_REASON = 200


def register(app: typer.Typer) -> None:
    @app.command()
    def erase(
        patient: Annotated[str | None, typer.Option(help="Reference, authority|type|value, or number.")] = None,
        reason: Annotated[str, typer.Option(help="On what ground; kept for ever, so no name.")] = "",
        dry_run: Annotated[bool, typer.Option("--dry-run", help="List what there is; change nothing.")] = False,
        resume: Annotated[bool, typer.Option("--resume", help="Finish every erasure that was broken off.")] = False,
        as_json: Json = False,
    ) -> None:
        """Erase one person everywhere, and print the signed proof. Cannot be undone.

        Refused under a legal hold (exit code 11). One that was broken off, by a crash or a server that is away, goes on
        when the command is given again. An erased person gives the same proof again.
        """
        caller = permit("erase")
        _, keys = KeyStore.local()
        console = Console(stderr=True)
        if resume:
            proofs = []
            for one in erasing.unfinished(keys):
                Audit.local().write(caller.act("D", patients=tuple(sorted(one.refs)), entities=(one.id,)))
                with console.status("") as status:
                    proofs.append(erasing.erase(one.refs, one.reason, one.who, keys, status.update))
            _show_proofs(proofs, as_json)
            return
        if patient is None:
            raise UsageError("say whom: --patient")
        refs = person.family(patient, keys)
        patients = tuple(sorted(refs))
        if dry_run:
            Audit.local().write(caller.act("R", patients=patients))
            _show_found(erasing.look(refs, keys), as_json)
            return
        if not reason or len(reason) > LONGEST_REASON:
            raise UsageError(f"say --reason, in up to {LONGEST_REASON} characters: it is written into the proof")
        said = Scrubber(patient.split("|")).clean(reason)
        Audit.local().write(caller.act("D", patients=patients, why=said))
        with console.status("") as status:
            proof = erasing.erase(refs, said, caller.account, keys, status.update)
        Audit.local().write(caller.act("D", patients=patients, entities=(proof.stem,), detail={"step": "finished"}))
        _show_proofs([proof], as_json)

    hold = typer.Typer(help="Legal holds: records that may not be erased yet.", no_args_is_help=True)
    app.add_typer(hold, name="hold")

    @hold.command()
    def place(
        patient: Patient,
        basis: Annotated[str, typer.Option(help=", ".join(BASES))],
        until: Annotated[datetime | None, typer.Option(help="UTC; else until it is released.")] = None,
        as_json: Json = False,
    ) -> None:
        """Keep a person's record from being erased."""
        if basis not in BASES:
            raise UsageError(f"--basis is one of {', '.join(BASES)}")
        caller = permit("hold")
        _, keys = KeyStore.local()
        ref = person.ref(patient, keys)
        Audit.local().write(caller.act("C", patients=(ref,), why=basis))
        end = until.replace(tzinfo=UTC).timestamp() if until else None
        _show_holds([Holds.local().place(ref, basis, end, caller.account)], as_json)

    @hold.command()
    def release(id: Annotated[str, typer.Argument(help="From `hold list`.")]) -> None:
        """End a hold."""
        caller = permit("hold")
        Audit.local().write(caller.act("U", entities=(id,)))
        if not Holds.local().release(id, caller.account):
            raise UsageError("there is no such hold in force: `wardstream hold list`")
        typer.echo("released")

    @hold.command("list")
    def list_holds(
        patient: Annotated[str | None, typer.Option(help="Only of this person.")] = None, as_json: Json = False
    ) -> None:
        """Every hold, those that have ended too."""
        caller = permit("hold")
        _, keys = KeyStore.local()
        refs = person.family(patient, keys) if patient else None
        Audit.local().write(caller.act("R", patients=tuple(sorted(refs or ()))))
        _show_holds(Holds.local().of(refs), as_json)

    @app.command()
    def unmerge(ref: Annotated[str, typer.Argument(help="The reference that was merged into another.")]) -> None:
        """Undo a wrong merge: a person of its own again. What was sealed meanwhile stays the survivor's."""
        caller = permit("consent")
        _, keys = KeyStore.local()
        Audit.local().write(caller.act("U", patients=(ref,), detail={"step": "unmerge"}))
        if not keys.unalias(ref):
            raise UsageError("that reference is merged into no other")
        typer.echo("unmerged")


def _show_proofs(proofs: list[Path], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([json.loads(proof.read_text()) | {"file": str(proof)} for proof in proofs]))
        return
    for proof in proofs:
        said: dict[str, Any] = json.loads(proof.read_text())["said"]
        table = Table("step", "what it found and did", title=f"Erasure {said['erasure']}")
        for step, found in said["steps"].items():
            table.add_row(step, json.dumps(found))
        Console().print(table)
        typer.echo(f"erased; the signed proof is {proof}")
    if not proofs:
        typer.echo("no erasure was broken off")


def _show_found(found: erasing.Found, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found)))
        return
    table = Table("where", "how many")
    for name, count in {**found.documents, **found.records}.items():
        table.add_row(name, str(count))
    table.add_row("references", str(found.references))
    table.add_row("keys", str(found.keys))
    for one in found.holds:
        table.add_row("legal hold", one.basis)
    Console().print(table)


def _show_holds(found: list[Hold], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(one) | {"holds": one.holds()} for one in found]))
        return
    table = Table("id", "reference", "basis", "placed by", "placed", "in force")
    for one in found:
        placed = datetime.fromtimestamp(one.placed_at, UTC).isoformat(timespec="seconds")
        table.add_row(one.id, one.ref, one.basis, one.placed_by, placed, "yes" if one.holds() else "no")
    Console().print(table)
