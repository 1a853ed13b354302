"""`quality`: what becomes of patients."""

from __future__ import annotations

import typer

from consumers.cli import units

quality = typer.Typer(help="What becomes of patients: charts of units, cases, reports.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    units.register(quality)
    app.add_typer(quality, name="quality")
