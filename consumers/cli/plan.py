"""`plan show`, `diff`, `accept`, `withdraw`, `divide` and `solve`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from consumers.access import permit
from consumers.cli.access import Role
from consumers.cli.read import Json, MaybePurpose, safe
from infra.errors import NoPlan

Site = Annotated[str, typer.Option(help="Only this site; default: all.")]
COLUMNS = ("what", "who", "from", "to", "at", "cost", "decided by", "next best")


def register(app: typer.Typer) -> None:
    commands = typer.Typer(help="Plans: who should lie where, who should work where.", no_args_is_help=True)
    app.add_typer(commands, name="plan")
    _live(commands)
    _divide(commands)
    _solve(commands)


def _live(commands: typer.Typer) -> None:
    @commands.command()
    def show(
        site: Site = "",
        accepted: Annotated[bool, typer.Option("--accepted", help="The plan that was accepted last.")] = False,
        waiting: Annotated[bool, typer.Option("--waiting", help="Also who gets no bed, and why.")] = False,
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """The plan that is proposed: what is to be done, what it costs, what decided, what would be next best."""
        from consumers import plan

        rows = plan.show(permit("search", purpose, role), site, accepted)
        if as_json:
            typer.echo(json.dumps({"plans": rows}))
            return
        console = Console()
        for row in rows:
            title = f"{safe(row['site'])}: plan {row['plan']} of {row['event_time']}, {row['status']}"
            title += f", cost {row['cost']:.2f}, at least {row['bound']:.2f} is needed; {row['waiting']} get no bed"
            console.print(_table(title, [one for one in row["lines"] if one["action"] or (waiting and not one["to"])]))
            for one in row["breaches"]:
                refs = ", ".join(one["refs"])
                console.print(f"[yellow]{one['rule']}[/] {safe(one['where'])} {refs}", highlight=False)
            if row["conflict"]:
                console.print(_why(row["conflict"]), highlight=False)

    @commands.command()
    def diff(site: Site = "", purpose: MaybePurpose = None, role: Role = None, as_json: Json = False) -> None:
        """What the proposed plan asks for and the accepted one does not (+), or asks for no more (-)."""
        from consumers import plan

        rows = plan.diff(permit("search", purpose, role), site)
        if as_json:
            typer.echo(json.dumps({"plans": rows}))
            return
        console = Console()
        for row in rows:
            beside = f"accepted {row['accepted_plan']}" if row["accepted_plan"] else "none is accepted"
            table = Table("", *COLUMNS, title=f"{safe(row['site'])}: plan {row['plan']}, {beside}")
            for sign, lines in (("+", row["new"]), ("-", row["gone"])):
                for one in lines:
                    table.add_row(sign, *_cells(one))
            console.print(table)

    @commands.command()
    def accept(
        plan_id: Annotated[str, typer.Argument(help="From `plan show`.", metavar="PLAN")],
        site: Annotated[str, typer.Option(help="Whose plan it is.")],
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Accept a plan: the next ones begin with its beds, and leave them at a price. Code 19: it is another now."""
        from consumers import plan

        made = plan.accept(permit("plan", purpose, role), site, plan_id)
        typer.echo(json.dumps(made) if as_json else f"accepted {made['plan']} of {site}: {made['actions']} to do")

    @commands.command()
    def withdraw(
        site: Annotated[str, typer.Option(help="Whose plan it is.")],
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Take the acceptance of a site's plan back: the next plans owe nothing to it."""
        from consumers import plan

        made = plan.withdraw(permit("plan", purpose, role), site)
        typer.echo(json.dumps({"site": site, "plan": made}) if as_json else f"{made} of {site} is accepted no more")


def _divide(commands: typer.Typer) -> None:
    @commands.command()
    def divide(
        demands: Annotated[Path, typer.Argument(help="JSON: what is asked for, of what worth, using what.")],
        site: Annotated[str, typer.Option(help="Whose resources are divided.")],
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Divide stock, transport and budget among demands: what each gets, and what one more unit would be worth."""
        from consumers import plan  # scipy: no other command waits for it

        made = plan.divide(permit("search", purpose, role), site, demands)
        if as_json:
            typer.echo(json.dumps(dataclasses.asdict(made)))
            return
        console = Console()
        if not made.feasible:
            for name, units in made.short.items():
                console.print(f"[yellow]{safe(name)}[/]: {units:g} less than must be granted", highlight=False)
            raise NoPlan("what must be granted is more than there is")
        granted = Table("demand", "granted", title=f"{safe(site)}: worth {made.value:g}")
        for name, units in made.granted.items():
            granted.add_row(safe(name), f"{units:g}")
        console.print(granted)
        scarce = Table("resource", "left", "price of a little more", "worth of one more")
        for name, left in made.left.items():
            scarce.add_row(safe(name), f"{left:g}", f"{made.prices[name]:g}", f"{made.worth[name]:g}")
        console.print(scarce)


def _table(title: str, lines: list[dict[str, Any]]) -> Table:
    table = Table(*COLUMNS, title=title)
    for one in lines:
        table.add_row(*_cells(one))
    return table


def _cells(one: dict[str, Any]) -> list[str]:
    who = one.get("patient_ref") or one.get("staff_ref") or ""
    to = one["to"] or ("stays, against a rule" if one["prior"] else "waits")
    best = "" if one.get("next_cost") is None else f"{one['next_best'] or 'nowhere'} {one['next_cost']:.2f}"
    costs = sum(one["costs"].values())
    said = (
        one["assignment"],
        who,
        one["prior"] or "",
        to,
        one["at"][:16],
        f"{costs:.2f}",
        one.get("decided", ""),
        best,
    )
    return [safe(cell) for cell in said]


def _why(conflict: dict[str, Any]) -> str:
    rules = "; ".join(
        f"{one['rule']} {safe(one['where'])} {', '.join(one['refs'])}".strip() for one in conflict["rules"]
    )
    return f"These cannot all be kept: {rules}"


def _solve(commands: typer.Typer) -> None:
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
        from consumers.ihtc import solve_ihtc  # numpy: no other command waits for it

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
