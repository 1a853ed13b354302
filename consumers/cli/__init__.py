"""The commands of those who read, look after access, keep the audit and erase: one file a concern."""

from __future__ import annotations

import typer

from consumers.cli import (
    access,
    allocation,
    audit,
    forecast,
    image,
    keys,
    models,
    plan,
    privacy,
    quality,
    read,
    retention,
    similar,
    stats,
)

PARTS = (
    read,
    allocation,
    forecast,
    plan,
    similar,
    image,
    stats,
    models,
    quality,
    access,
    privacy,
    audit,
    keys,
    retention,
)


def register(app: typer.Typer) -> None:
    for part in PARTS:
        part.register(app)
