"""`up`, `down` and `status`."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from infra.errors import StackDown
from infra.local.stack import Stack

Backlog = dict[str, dict[str, float]]


def register(app: typer.Typer, prepare: Callable[[], None], backlog: Callable[[], Backlog]) -> None:
    """Add the commands. `prepare` makes topics and indices, `backlog` tells what waits: of the package above."""

    @app.command()
    def up(
        detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once all is healthy.")] = False,
        workers: Annotated[int, typer.Option(min=0, help="Worker processes.")] = 1,
    ) -> None:
        """Start the embedded Kafka, Elasticsearch and workers; without --detach, until Ctrl-C."""
        stack = Stack()
        stack.up(prepare, workers)
        _show(stack.status())
        if not detach:
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
            Console(stderr=True).print("Ctrl-C stops everything")
            try:
                signal.pause()
            except KeyboardInterrupt:
                stack.down()

    @app.command()
    def down() -> None:
        """Stop what `up` started. Data stays."""
        typer.echo("stopped" if Stack().down() else "nothing was running")

    @app.command()
    def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
        """Say what runs and whether it is healthy. Exit code 3 where it is not."""
        now = Stack().status()
        if any(program["name"] == "kafka" and program["healthy"] for program in now["programs"]):
            with contextlib.suppress(StackDown):
                now["backlog"] = backlog()
        if as_json:
            typer.echo(json.dumps(now, indent=2))
        else:
            _show(now)
            for domain, waits in now.get("backlog", {}).items():
                typer.echo(f"{domain}: {waits['events']} events wait, the oldest for {waits['oldest_seconds']:.0f} s")
        raise typer.Exit(0 if now["healthy"] else 3)


def _show(now: dict[str, object]) -> None:
    programs = now["programs"]
    assert isinstance(programs, list)
    if not programs:
        typer.echo(f"nothing runs in {now['home']}: start it with `wardstream up --detach`")
        return
    table = Table("program", "state", "healthy", "pid", "up for", "address")
    for program in programs:
        healthy = "[green]yes" if program["healthy"] else "[red]no"
        seconds = f"{program['uptime_seconds']} s"
        row = (program["name"], program["state"], healthy, str(program["pid"]), seconds, program.get("address", ""))
        table.add_row(*row)
    Console().print(table)
