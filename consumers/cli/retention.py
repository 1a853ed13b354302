"""`retention plan` and `retention apply`."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from consumers import retention
from consumers.access import permit
from infra.audit import Audit
from infra.runtime import run_to_end

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    commands = typer.Typer(help="How long topics and indices keep things: plan, apply.", no_args_is_help=True)
    app.add_typer(commands, name="retention")

    @commands.command()
    def plan(as_json: Json = False) -> None:
        """What `apply` would do: topics that are set otherwise than planned, documents that are past their days."""
        Audit.local().write(permit("retention").act("R"))
        made = run_to_end(retention.plan())
        if as_json:
            topics = [dataclasses.asdict(one) | {"drifted": one.drifted} for one in made.settings]
            indices = [dataclasses.asdict(one) for one in made.expiries]
            typer.echo(json.dumps({"topics": topics, "indices": indices}))
            return
        console = Console()
        table = Table("topic", "setting", "wanted", "present", title="Topics")
        for setting in made.settings:
            style = "bold yellow" if setting.drifted else ""
            table.add_row(setting.topic, setting.name, setting.wanted, setting.present, style=style)
        console.print(table)
        table = Table("index", "days kept", "documents past them", title="Indices")
        for expiry in made.expiries:
            table.add_row(expiry.index, "all" if expiry.days is None else str(expiry.days), f"{expiry.documents:,}")
        console.print(table)

    @commands.command()
    def apply(as_json: Json = False) -> None:
        """Set topics as planned, and remove documents past their days with their sealed records, for good.

        Entities stay. Audited. A run that was ended is given again; once all is done it changes nothing.
        """
        caller = permit("retention")
        figures = TextColumn("{task.completed:.0f} documents")
        with Progress(SpinnerColumn(), figures, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
            advance = partial(progress.advance, progress.add_task("", total=None))
            done = run_to_end(retention.apply(advance, act=caller.act))
        if as_json:
            typer.echo(json.dumps(dataclasses.asdict(done)))
            return
        for setting in done.settings:
            typer.echo(f"{setting.topic}: {setting.name} {setting.present} is now {setting.wanted}")
        for index, count in done.documents.items():
            typer.echo(f"{index}: {count:,} documents and {done.sealed[index]:,} sealed records removed")
        for index, count in done.objects.items():
            typer.echo(f"{index}: {count:,} objects removed")
        if done.swept:
            typer.echo(f"{done.swept:,} objects removed that nothing names")
        if not done.settings and not done.documents and not done.swept:
            typer.echo("nothing to change")
