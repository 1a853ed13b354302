"""`quality charts`, `chart`, `funnel`, `cases` and `report`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from consumers.access import permit
from consumers.cli.access import Role
from consumers.cli.allocation import Site, Unit
from consumers.cli.read import Json, MaybePurpose, safe
from infra.errors import UsageError

if TYPE_CHECKING:
    from streams.quality.units import Key, Units

Measure = Annotated[str, typer.Option(help="death_30d, death_in_hospital, readmission_30d, or one that is told.")]
Procedure = Annotated[str, typer.Option(help="Only this procedure.")]
SIGNALS = {
    "cusum_upper": "worse (CUSUM)",
    "vlad_low": "worse (VLAD)",
    "cusum_lower": "better (CUSUM)",
    "vlad_high": "better (VLAD)",
}


def register(quality: typer.Typer) -> None:
    @quality.command()
    def charts(
        site: Site = "",
        unit: Unit = "",
        procedure: Procedure = "",
        measure: Measure = "",
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Every chart of outcomes: cases, events, expected, O/E with its interval, levels, signals.

        `worse` and `better` are the CUSUMs as a share of their limits: 100% is a signal. `now` is what the latest
        signals say, and about when that began. Counts of fewer than 11 people are not shown.
        """
        from consumers import units as ask  # numpy and scipy take a moment: not for every command

        units, keys = _read(permit("search", purpose, role), site, unit, procedure, measure, "outcome_charts")
        rows = ask.rows(units, keys)
        if as_json:
            typer.echo(json.dumps({"charts": rows}, ensure_ascii=False, allow_nan=False))
            return
        console = Console()
        for site_, measure_ in sorted({(row["site"], row["measure"]) for row in rows}):
            table = Table(title=safe(f"{site_} {measure_}"))
            for name in ("unit or procedure", "cases", "events of expected", "O/E (95%)", "worse", "better", "now"):
                table.add_column(name)
            for row in (one for one in rows if (one["site"], one["measure"]) == (site_, measure_)):
                alarmed = row["now"] is not None and row["now"]["is"] == "worse"
                table.add_row(*_cells(row), style="red" if alarmed else "")
            console.print(table)

    @quality.command()
    def chart(
        out: Annotated[Path, typer.Option("--out", help="A file to draw into, .svg or .png.")],
        unit: Unit = "",
        procedure: Procedure = "",
        measure: Measure = "death_30d",
        site: Site = "",
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Draw one chart: the risk-adjusted CUSUM and the VLAD with their limits, each point of 11 people or more.

        Its signals are listed, and by keyed hash the records that drove each, heaviest first.
        """
        from consumers import unit_plots
        from consumers import units as ask
        from consumers.charts import kind_of
        from consumers.plots import write
        from streams.quality import shown

        kind_of(out)
        if not unit and not procedure:
            raise UsageError("whose chart: --unit or --procedure")
        caller = permit("search", purpose, role)
        units, keys = _read(caller, site, unit, procedure, measure, "outcome_chart")
        key = ask.one(keys)
        ask.enough(units, key)
        held = shown.blocks(units.chart(key), ask.owners(units, units.chart(key)))
        write([unit_plots.cusum(key, held), unit_plots.vlad(key, held)], out)
        (row,), told = ask.rows(units, [key]), ask.told_signals(units, key)
        if as_json:
            said = row | {"signals": told, "out": str(out)}
            typer.echo(json.dumps(said, ensure_ascii=False, allow_nan=False))
            return
        console = Console()
        over = row["ratio"]
        words = f", O/E {over['value']} ({over['low']} to {over['high']})" if over else ""
        console.print(safe(f"{key.name}, {unit_plots.words(key.measure)}: {_count(row['cases'])} cases{words}"))
        table = Table("signal", "raised", "began about", "level", "limit", "driven by")
        for one in told:
            drivers = ", ".join(one["drivers"][:5]) + (" ..." if len(one["drivers"]) > 5 else "")
            levels = f"{one['value']:.2f}", f"{one['limit']:.2f}"
            table.add_row(SIGNALS[one["kind"]], one["at"][:10], one["since"][:10], *levels, drivers)
        console.print(table if told else "no signal", highlight=False)
        console.print(f"drawn into {escape(str(out))}", highlight=False)

    @quality.command()
    def funnel(
        out: Annotated[Path, typer.Option("--out", help="A file to draw into, .svg or .png.")],
        measure: Measure = "death_30d",
        by: Annotated[str, typer.Option(help="unit or procedure.")] = "unit",
        site: Site = "",
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """All units or procedures of a site side by side: O/E against expected events, and who is beyond.

        Limits of 95% and 99.8% allow for overdispersion. Whose events are of fewer than 11 people count, and are not
        shown.
        """
        from consumers import unit_plots
        from consumers import units as ask
        from consumers.charts import kind_of
        from consumers.plots import write

        kind_of(out)
        if by not in ("unit", "procedure"):
            raise UsageError("--by is unit or procedure")
        units = ask.read(permit("search", purpose, role), site, "outcome_funnel")
        keys = ask.chosen(units, site=site, scope=by, measure=measure)
        ask.one_site(keys)
        made, points, left_out = ask.funnel(units, keys)
        write([unit_plots.funnel_plot(made, points, measure, left_out=left_out)], out)
        rows = ask.funnel_rows(points)
        if as_json:
            said = {"points": rows, "not_shown": left_out, "overdispersion": made.adjusted}
            said |= {"phi": round(made.phi, 3), "tau2": round(made.tau2, 5), "out": str(out)}
            typer.echo(json.dumps(said, ensure_ascii=False, allow_nan=False))
            return
        table = Table(by, "events", "expected", "O/E (95%)", "beyond")
        for row in rows:
            over = f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
            table.add_row(safe(row["name"]), str(row["events"]), f"{row['expected']:.1f}", over, _beyond(row["beyond"]))
        console = Console()
        console.print(table)
        console.print(f"{left_out} not shown (fewer than 11 people); drawn into {escape(str(out))}", highlight=False)

    @quality.command()
    def cases(
        site: Site = "",
        unit: Unit = "",
        procedure: Procedure = "",
        measure: Measure = "death_30d",
        begin: Annotated[str, typer.Option("--from", help="First month, such as 2026-03.")] = "",
        end: Annotated[str, typer.Option("--to", help="Last month.")] = "",
        risk_above: Annotated[float | None, typer.Option(help="Only cases with a higher expected risk.")] = None,
        by: Annotated[str, typer.Option(help="month or quarter.")] = "month",
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Cases whose outcome is due: how many, how many events, and mean expected risk, by month or quarter.

        No count of fewer than 11 people is shown, and none from which it follows.
        """
        from consumers import units as ask

        asked = ask.Asked(site, unit, procedure, measure, begin, end, risk_above, by)
        caller = permit("search", purpose, role)
        with _waiting("cases"):
            report = ask.tabled(ask.read(caller, site, "outcome_cases"), asked)
        if as_json:
            typer.echo(json.dumps(report, ensure_ascii=False, allow_nan=False))
            return
        table = Table(by, "cases", "events", "mean expected risk", title=safe(measure))
        for row in (*report["rows"], report["all"]):
            risk = "" if row["mean_risk"] is None else f"{row['mean_risk']:.1%}"
            table.add_row(row["period"], _count(row["cases"]), _count(row["events"]), risk)
        Console().print(table)

    @quality.command()
    def report(
        out: Annotated[Path, typer.Option("--out", help="The page, a file of its own.")],
        unit: Annotated[str, typer.Option(help="Whose report.")],
        site: Site = "",
        measures: Annotated[
            list[str] | None, typer.Option("--measure", help="Repeatable; default: all that the unit has.")
        ] = None,
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """One page on what becomes of a unit's patients, for people: the answer first, then why.

        It holds its figures and needs nothing from elsewhere. Nothing on it stands for fewer than 11 people, so it may
        be handed on. docs/quality-report.md says how to read it.
        """
        from consumers import report as reports
        from consumers import units as ask
        from consumers.charts import owned
        from consumers.page import page

        caller = permit("search", purpose, role)
        with _waiting("cases"):
            units = ask.read(caller, site, "outcome_report")
        keys = [key for one in measures or [""] for key in ask.chosen(units, site=site, unit=unit, measure=one)]
        of = ask.one_site(keys)
        with _progress("limits") as told:
            units.find(keys, told)
        made = reports.collect(caller, units, list(dict.fromkeys(keys)))
        with owned(out) as file:
            file.write(page(made).encode())
        answers = [
            {"measure": one.measure, "is": one.answer.tone, "said": one.answer.sentence} for one in made.outcomes
        ]
        if as_json:
            said = {"site": of, "unit": unit, "answers": answers, "out": str(out)}
            typer.echo(json.dumps(said, ensure_ascii=False, allow_nan=False))
            return
        console = Console()
        for line in answers:
            console.print(safe(line["said"]), highlight=False, soft_wrap=True)
        console.print(f"written into {escape(str(out))}", highlight=False)


def _read(caller: Any, site: str, unit: str, procedure: str, measure: str, use: str) -> tuple[Units, list[Key]]:
    """Charts that are asked for, with their limits."""
    from consumers import units as ask

    if unit and procedure:
        raise UsageError("a chart is of a --unit or of a --procedure")
    with _waiting("cases"):
        units = ask.read(caller, site, use)
    keys = ask.chosen(units, site=site, unit=unit, procedure=procedure, measure=measure)
    with _progress("limits") as told:
        units.find(keys, told)
    return units, keys


@contextmanager
def _progress(of: str) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("{task.completed:.0f} of {task.total:.0f} " + of), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=0)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def _waiting(of: str) -> Iterator[None]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(f"reading {of}"):
        yield


def _cells(row: dict[str, Any]) -> Iterable[str]:
    yield safe(row["name"])
    if row["few"]:
        yield "too few"
        return
    over, expected = row["ratio"], f" of {row['expected']:.1f}" if row["expected"] is not None else ""
    yield from (_count(row["cases"]), _count(row["events"]) + expected)
    yield f"{over['value']:.2f} ({over['low']:.2f} to {over['high']:.2f})" if over else ""
    yield from ("" if row[side] is None else f"{row[side]:.0%}" for side in ("upper", "lower"))
    now = row["now"]
    yield (f"{now['is']} since {now['since']}" if now["since"] else now["is"]) if now else ""


def _count(value: int | None) -> str:
    return "not shown" if value is None else str(value)


def _beyond(level: float) -> str:
    return f"{'above' if level > 0 else 'below'} {100 * abs(level):g}%" if level else ""
