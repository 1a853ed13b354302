"""Histograms and trends as a picture. matplotlib is loaded only for it, and draws into a file: no screen is needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from consumers.cohort import Row


def title(row: Row) -> str:
    """Field, what it measures and its unit."""
    parts = (row["field"], row.get("display") or row.get("code"), f"({row['units']})" if row.get("units") else "")
    return " ".join(str(part) for part in parts if part)


def png(report: Row, to: Path) -> None:
    """Draw what the report has of histograms, else of its trend. The file is its owner's alone (mode 0600)."""
    from matplotlib.figure import Figure

    drawn = report.get("histograms") or [report["over"]]
    figure = Figure(figsize=(8, 3.5 * max(len(drawn), 1)), layout="constrained")
    axes = figure.subplots(len(drawn), squeeze=False)[:, 0] if drawn else ()
    for axis, one in zip(axes, drawn, strict=True):
        _bars(axis, one) if "bins" in one else _line(axis, one)
    with os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        figure.savefig(file, format="png", dpi=120)


def _bars(axis: Any, one: Row) -> None:
    bins = one["bins"]
    axis.set_title(title(one))
    axis.set_ylabel(one["of"])
    if not bins:
        return
    inner = [value for row in bins for value in (row["from"], row["to"]) if value is not None]
    width = (max(inner) - min(inner)) / max(len(bins) - 1, 1) if len(set(inner)) > 1 else 1.0
    for row in bins:
        low = row["to"] - width if row["from"] is None and row["to"] is not None else row["from"]
        high = row["from"] + width if row["to"] is None and row["from"] is not None else row["to"]
        low, high = (0.0, 1.0) if low is None else (low, high)  # one bin with both ends open
        axis.bar(low, row["count"], high - low, align="edge", edgecolor="white", color="#33658a")


def _line(axis: Any, one: Row) -> None:
    steps = one["steps"]
    axis.set_title(f"documents by {one['step']}")
    axis.plot([row["from"] for row in steps], [row["documents"] for row in steps], color="#33658a")
    axis.set_ylabel("documents")
    axis.xaxis.set_major_locator(_few())
    if any(row.get("median") is not None for row in steps):
        beside = axis.twinx()
        medians = [float("nan") if row.get("median") is None else row["median"] for row in steps]
        beside.plot([row["from"] for row in steps], medians, color="#f26419", marker=".")
        beside.set_ylabel("median")


def _few() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(8)
