"""`beds`, `staff` and `resources`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from consumers import allocation
from consumers.access import permit
from consumers.cli.access import Role
from consumers.cli.read import CONTROLS, Json, MaybePurpose
from infra.errors import UsageError
from schemas.allocation import RESOURCE_TYPES

Site = Annotated[str, typer.Option(help="Only this site; default: all.")]
Unit = Annotated[str, typer.Option(help="Only this unit.")]
At = Annotated[str | None, typer.Option(help="As it was, or will be, at a time: RFC 3339 with a zone.")]
STATUS = {"U": "free", "O": "occupied", "C": "closed", "H": "housekeeping", "K": "contaminated", "I": "isolated"}


def register(app: typer.Typer) -> None:
    @app.command()
    def beds(
        site: Site = "",
        unit: Unit = "",
        free: Annotated[bool, typer.Option("--free", help="Only beds that somebody could be put in now.")] = False,
        at: At = None,
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Who lies where, who waits, and what in the events cannot be so. By reference; names are revealed elsewhere.

        With --at the places of patients and the status of beds are those of that time; features are as told last.
        """
        when = allocation.moment(at)
        rows = allocation.beds(permit("search", purpose, role), site, unit, free, when)
        if as_json:
            typer.echo(json.dumps({"sites": rows}))
            return
        console = Console()
        for row in rows:
            title = f"{row['site']}: {row['occupied']} of {row['total']} beds occupied, {len(row['waiting'])} waiting"
            table = Table("unit", "room", "bed", "status", "patient", "sex", "age", "service", "isolation", title=title)
            table.add_column("since", justify="right")
            table.add_column("leaves", justify="right")
            for bed in row["beds"]:
                said = STATUS[bed["status"]] + (f" x{bed['patients']}" if bed["patients"] > 1 else "")
                cells = [bed[name] for name in ("unit", "room", "bed")] + [said]
                cells += [bed.get(name) for name in ("patient_ref", "sex", "age", "service", "isolation")]
                table.add_row(*map(_cell, cells), _hours(bed.get("since_hours")), _hours(bed.get("leaves_hours")))
            console.print(table)
            _conflicts(console, row["conflicts"])

    @app.command()
    def staff(
        site: Site = "",
        unit: Unit = "",
        at: At = None,
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Who works, by reference: role, unit, rooms, skill, and until when; shifts of one person that overlap."""
        rows = allocation.staff(permit("search", purpose, role), site, unit, allocation.moment(at))
        if as_json:
            typer.echo(json.dumps({"sites": rows}))
            return
        console = Console()
        names = ("staff_ref", "role", "unit", "rooms", "skill", "load", "starts_at", "ends_at")
        for row in rows:
            table = Table(*names, title=f"{row['site']}: {len(row['staff'])} at work")
            for one in row["staff"]:
                table.add_row(*(_cell(one[name]) for name in names))
            console.print(table)
            _conflicts(console, row["conflicts"])

    @app.command()
    def resources(
        site: Site = "",
        kind: Annotated[str, typer.Option("--type", help="equipment, theatre, transport, stock, budget.")] = "",
        near: Annotated[str | None, typer.Option(help="Nearest first: to a unit, or to X,Y in metres.")] = None,
        max_price: Annotated[float | None, typer.Option(min=0, help="Only what costs at most this a use.")] = None,
        free: Annotated[bool, typer.Option("--free", help="Only what could be used now.")] = False,
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Equipment, theatres, transport, stocks and budgets: where, at what price, and whether they are free."""
        if kind and kind not in RESOURCE_TYPES:
            raise UsageError(f"--type is one of {', '.join(sorted(RESOURCE_TYPES))}")
        wanted = allocation.Wanted(kind, allocation.near(near) if near else None, max_price, free)
        rows = allocation.resources(permit("search", purpose, role), site, wanted)
        if as_json:
            typer.echo(json.dumps({"resources": rows}))
            return
        names = ("site", "resource_type", "resource_id", "display", "unit", "resource_status", "price", "quantity")
        table = Table(*names, *(["metres"] if near else []))
        for row in rows:
            table.add_row(*(_cell(row.get(name)) for name in (*names, *(["metres"] if near else []))))
        Console().print(table)


def _conflicts(console: Console, conflicts: list[dict[str, Any]]) -> None:
    for one in conflicts:
        refs = ", ".join(one["refs"])
        console.print(f"[yellow]{one['kind']}[/] {escape(_plain(one['bed']))} {refs}", highlight=False)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    said = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return escape(_plain(said))


def _plain(text: str) -> str:
    return text.translate(CONTROLS)


def _hours(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} h"
