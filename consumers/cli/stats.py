"""`stats`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from consumers.access import permit
from consumers.cli.access import Role
from consumers.cli.read import Filters, Json, Kind, MaybePurpose, OfDomain, Since
from consumers.search import Narrow, domain
from infra.errors import UsageError


def register(app: typer.Typer) -> None:
    @app.command()
    def stats(
        query: Annotated[str, typer.Argument(help="As for search: which documents, or whose.")] = "*",
        of: OfDomain = "ehr",
        kind: Kind = None,
        filters: Filters = None,
        since: Since = None,
        measure: Annotated[
            str, typer.Option(help="Figures of these documents of the patients found, in place of what is found.")
        ] = "",
        fields: Annotated[
            list[str] | None, typer.Option("--field", help="Whose figures. Repeatable; default: all, a line each.")
        ] = None,
        by: Annotated[str, typer.Option(help="The same for each group of a field, such as unit.")] = "",
        versus: Annotated[str, typer.Option(help="Compare with the documents of this query.")] = "",
        overlap: Annotated[bool, typer.Option("--overlap", help="Patients of both stay in the second.")] = False,
        over: Annotated[str, typer.Option(help="Counts, and the median, by day, week or month (UTC).")] = "",
        histogram: Annotated[bool, typer.Option("--histogram", help="Of one --field, of numbers.")] = False,
        png: Annotated[Path | None, typer.Option(help="Draw the histogram, or --over, into this file.")] = None,
        top: Annotated[int, typer.Option(help="Values, codes and groups shown.")] = 20,
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Statistics of a cohort: counts, missing values, quantiles, groups, trends, and a comparison of two.

        Counts are of documents and of patients, both said. Numbers are told by code and unit, never mixed. A role with
        a Safe Harbor view is told of no group of fewer than 11 patients. docs/statistics.md explains every figure.
        """
        from consumers import charts  # scipy takes half a second to load: no other command waits for it
        from consumers.cli import report as printed
        from consumers.stats import Asked
        from consumers.stats import stats as statistics_of

        if png is not None and not (histogram or over):
            raise UsageError("--png draws --histogram or --over: say which")
        narrow = Narrow(filters or (), kind, since)
        asked = Asked(query, narrow, measure, fields or (), by, versus, overlap, over, histogram, top)
        caller, where = permit("search", purpose, role), domain(of)
        columns = (TextColumn("{task.completed:.0f} of {task.total:.0f} documents"), BarColumn(), TimeElapsedColumn())
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("", total=0)
            report = statistics_of(
                caller, asked, where, lambda done, total: progress.update(task, completed=done, total=total)
            )
        if png is not None:
            charts.png(report, png)
        if as_json:
            typer.echo(json.dumps(report, ensure_ascii=False, allow_nan=False))
            return
        printed.show(Console(), report)
