"""`similar`."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from consumers.access import permit
from consumers.cli.access import Role
from consumers.cli.read import Json, MaybePurpose, safe
from infra.errors import UsageError

if TYPE_CHECKING:
    from consumers import similar as ask


def register(app: typer.Typer) -> None:
    @app.command()
    def similar(
        patient: Annotated[
            str | None, typer.Argument(help="A reference (patient_ref), authority|type|value, or a number.")
        ] = None,
        text: Annotated[str | None, typer.Option(help="Like this text instead of like a patient.")] = None,
        k: Annotated[int, typer.Option("--k", help="How many patients.")] = 10,
        why: Annotated[bool, typer.Option("--why", help="Show the terms that made them similar.")] = False,
        fit: Annotated[
            bool, typer.Option("--fit", help="Fit a new vocabulary on all records, beside the live one; then swap.")
        ] = False,
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Find patients whose records are like one, by TF-IDF and cosine; more_like_this of Elasticsearch beside it."""
        if (patient is not None) + (text is not None) + fit != 1:
            raise UsageError("say one of: a patient, --text, --fit")
        from consumers import similar as ask  # with scikit-learn 1 s: not for every command

        if fit:
            made = dataclasses.asdict(ask.fit(permit("models", purpose, role)))
            typer.echo(json.dumps(made) if as_json else ", ".join(f"{name} {value}" for name, value in made.items()))
            return
        caller = permit("search", purpose, role)
        found = ask.of_text(caller, text, k) if text is not None else ask.of_patient(caller, patient or "", k)
        if as_json:
            typer.echo(json.dumps(_rows(found, why), ensure_ascii=False))
            return
        for name, figure in (("similar", "cosine"), ("more_like_this", "score")):
            _print(name, figure, getattr(found, name), why)
        if found.waiting:
            Console(stderr=True).print(
                f"news of {found.waiting} patients is not in it yet: ask again, or `wardstream similar --fit`",
                highlight=False,
            )


def _rows(found: ask.Found, why: bool) -> dict[str, Any]:
    rows = dataclasses.asdict(found)
    if not why:
        for one in rows["similar"]:
            del one["why"]
    return rows


def _print(name: str, figure: str, rows: list[dict[str, Any]], why: bool) -> None:
    table = Table("rank", "patient", figure, "sex", "age", title=name.replace("_", " "))
    if why and name == "similar":
        table.add_column("why")
    for one in rows:
        cells = [str(one["rank"]), one["patient_ref"], f"{one[figure]:.3f}"]
        cells += [str(one.get(name, "")) for name in ("sex", "age")]
        if why and name == "similar":
            terms = ", ".join(f"{each['term']} {each['adds']:.2f}" for each in one["why"])
            cells.append(safe(terms))
        table.add_row(*cells)
    Console().print(table)
