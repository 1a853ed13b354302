"""`forecast` and `clusters`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from consumers.access import permit
from consumers.cli.access import Role
from consumers.cli.allocation import Site, Unit
from consumers.cli.read import Json, MaybePurpose, safe
from infra.errors import UsageError

if TYPE_CHECKING:
    from streams.allocation.clusters import Clustering


def register(app: typer.Typer) -> None:
    @app.command()
    def forecast(
        site: Site = "",
        unit: Unit = "",
        hours: Annotated[list[int] | None, typer.Option(help="Ahead; repeatable. Default: 1, 4, 24, 72.")] = None,
        keep: Annotated[
            bool, typer.Option("--keep", help="Let workers raise shortages ahead by it, for two hours.")
        ] = False,
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """How many patients each unit will have, with intervals, and how good such forecasts were: MASE beside the
        seasonal naive on the last four weeks. Have it run each hour with --keep, and shortages ahead are signals."""
        from consumers import forecast as ask  # numpy takes a moment: not for every command
        from streams.allocation.forecast import HORIZONS

        if keep and unit:
            raise UsageError("--keep is of whole sites: leave out --unit")
        caller = permit("plan" if keep else "search", purpose, role)
        rows = ask.forecasts(caller, site, unit, sorted(set(hours or HORIZONS)))
        if keep:
            ask.keep(caller, rows)
        if as_json:
            typer.echo(json.dumps({"sites": rows}, allow_nan=False))
            return
        console = Console()
        for row in rows:
            table = Table("unit", "beds", "in", "expected", "80%", "95%", "too few beds", "MASE", "naive", "held 80%")
            table.title = safe(row["site"])
            for one in row["units"]:
                _lines(table, one)
            console.print(table)
            for one in row["units"]:
                for remark in one["remarks"]:
                    console.print(f"{safe(one['unit']) or 'all'}: {remark}", highlight=False)

    @app.command()
    def clusters(
        of: Annotated[
            str, typer.Option(help="resources (beds and equipment) or demand (who comes where).")
        ] = "resources",
        method: Annotated[str, typer.Option(help="kmeans, dbscan or hdbscan.")] = "hdbscan",
        site: Site = "",
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Groups that are alike in kind, place, price and hours of use; how stable they are; what fits nowhere."""
        from consumers import clusters as ask  # with scikit-learn 2 s: not for every command

        found = ask.groups(permit("search", purpose, role), of, method, site)
        if as_json:
            typer.echo(json.dumps(ask.row(found), ensure_ascii=False, allow_nan=False))
        else:
            _print(found)


def _lines(table: Table, one: dict[str, Any]) -> None:
    figures = {each["hours"]: each for each in one["figures"]}
    for place, point in enumerate(one["forecast"]):
        spans = [f"{each['low']:.0f} to {each['high']:.0f}" for each in point["intervals"]]
        known = figures.get(point["hours"], {})
        naive = known.get("naive", {}).get(str(known.get("season")))
        cells = ("", "") if place else (safe(one["unit"]) or "all", _said(one["beds"], "d"))
        table.add_row(
            *cells, f"{point['hours']} h", f"{point['expected']:.1f}", *spans, _said(point["too_few"], ".0%"),
            _said(known.get("mase"), ".2f"), _said(naive, ".2f"), _said(known.get("coverage", {}).get("80%"), ".0%"),
            style="" if known.get("beats", True) else "yellow",
        )  # fmt: skip


def _print(found: Clustering) -> None:
    console = Console()
    settings = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in found.settings.items())
    table = Table("group", "rows", "silhouette", "Jaccard", "", title=f"{found.method}: {settings}")
    for one in found.groups:
        stable = "stable" if one.stable else "not stable"
        size, jaccard = str(len(one.members)), f"{one.jaccard:.2f}"
        table.add_row(safe(one.label), size, _said(one.silhouette, ".2f"), jaccard, stable)
    console.print(table)
    figures = (("silhouette", found.silhouette), ("adjusted Rand index of subsets", found.ari))
    console.print(", ".join(f"{name} {_said(value, '.2f') or 'none'}" for name, value in figures), highlight=False)
    if found.kind_alone is not None:
        said = f"adjusted Rand index with a division by kind alone: {found.kind_alone:.2f}"
        console.print(said, highlight=False)
    for outlier in found.outliers:
        said = f"{outlier.id} fits nowhere: by {outlier.differs_by} unlike {outlier.nearest}"
        console.print(safe(said), highlight=False)


def _said(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)
