"""`plan solve`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from consumers.cli.read import Json


def register(app: typer.Typer) -> None:
    commands = typer.Typer(help="Plans: who lies where, who works where.", no_args_is_help=True)
    app.add_typer(commands, name="plan")

    @commands.callback()
    def plan() -> None:
        """Keeps `plan solve` a command of its own while it is the only one."""

    @commands.command()
    def solve(
        ihtc: Annotated[Path, typer.Option(help="An instance of IHTC-2024.", exists=True, dir_okay=False)],
        seconds: Annotated[float, typer.Option(help="Time budget.", min=1.0)] = 600.0,
        out: Annotated[Path | None, typer.Option(help="Solution in the competition's format.")] = None,
        seed: Annotated[int, typer.Option(help="Of the search's chance.", min=0)] = 1,
        workers: Annotated[int, typer.Option(help="Searches beside each other, a core each.", min=1, max=64)] = 2,
        as_json: Json = False,
    ) -> None:
        """Admit patients, give them rooms, theatres and nurses. Exit code 0 only where every hard rule is kept.

        A line each second tells the cost and, where the best known cost is, the gap to it. docs/ihtc.md has the method.
        """
        from consumers.plan import solve_ihtc  # numpy: no other command waits for it

        said, last = Console(stderr=True), None
        for last in solve_ihtc(ihtc, seconds, out, seed, workers):
            cost = "no plan yet" if last.verdict is None else f"cost {last.verdict.cost}"
            gap = "" if last.gap is None else f", gap {last.gap:.2%}"
            said.print(f"{last.seconds:7.1f} s  {cost}{gap}", highlight=False)
        if last is None or last.verdict is None:
            return
        if as_json:
            told = {"seconds": round(last.seconds, 1), "cost": last.verdict.cost, "costs": last.verdict.costs}
            found = {"violations": last.verdict.broken, "best_known": last.best_known, "gap": last.gap}
            typer.echo(json.dumps(told | found))
        else:
            typer.echo(f"cost {last.verdict.cost}, no hard rule broken")
            for name, part in last.verdict.costs.items():
                typer.echo(f"  {name}: {part}")
