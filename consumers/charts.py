"""Histograms, trends, survival curves and models as a picture, without a screen. matplotlib is loaded only for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

from consumers.cohort import Row
from infra.errors import UsageError

FORMATS = ("png", "svg")
BLUE = "#33658a"
MOST_CLUSTERS = 60  # of a picture


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
    _save(figure, to, "png")


def owned(to: Path) -> IO[bytes]:
    """A file that is its owner's alone (mode 0600), for what is drawn of patients."""
    return os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _save(figure: Any, to: Path, kind: str) -> None:
    with owned(to) as file:
        figure.savefig(file, format=kind, dpi=120)


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
        axis.bar(low, row["count"], high - low, align="edge", edgecolor="white", color=BLUE)


def _line(axis: Any, one: Row) -> None:
    steps = one["steps"]
    axis.set_title(f"documents by {one['step']}")
    axis.plot([row["from"] for row in steps], [row["documents"] for row in steps], color=BLUE)
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


def kind_of(to: Path) -> str:
    """Raises UsageError for a name that does not end with a format."""
    if (kind := to.suffix.lstrip(".").lower()) not in FORMATS:
        raise UsageError(f"--out ends with {' or '.join(f'.{one}' for one in FORMATS)}")
    return kind


def survival(report: Row, to: Path) -> None:
    """Kaplan-Meier curves with their intervals, and below them how many are at risk. Mode 0600, as are all."""
    from matplotlib.figure import Figure

    groups, ticks = report["groups"], report["ticks"]
    figure = Figure(figsize=(8, 4.5 + 0.2 * len(groups)), layout="constrained")
    axis = figure.subplots()
    axis.set_ylim(0, 1.02)
    axis.set_xlim(0, ticks[-1] or 1)
    axis.set_xticks(ticks)
    below = axis.get_xaxis_transform()
    for place, one in enumerate(groups):
        time, share, low, high = ([step[column] for step in one["steps"]] for column in range(4))
        at, last = [0, *time, one["shown_until"]], len(time)
        share, low, high = ([_level(each) for each in (1, *some, (1, *some)[last])] for some in (share, low, high))
        color = axis.step(at, share, where="post", label=one["group"])[0].get_color()
        axis.fill_between(at, low, high, step="post", alpha=0.15, color=color, linewidth=0)
        height = -0.14 - 0.05 * place
        axis.text(-0.05, height, one["group"], color=color, ha="right", transform=axis.transAxes)
        for tick, left in zip(ticks, one["at_risk"], strict=True):
            axis.text(tick, height, str(left), color=color, ha="center", transform=below)
    axis.set_ylabel("survival (Kaplan-Meier, 95%), and at risk below")
    if report["by"]:
        axis.legend(title=report["by"], frameon=False)
    _save(figure, to, kind_of(to))


def _level(one: float | None) -> float:
    return float("nan") if one is None else one


def forest(report: Row, to: Path) -> None:
    """Hazard ratios with their intervals, on a logarithmic scale."""
    from matplotlib.figure import Figure

    rows = report["coefficients"][::-1]
    figure = Figure(figsize=(8, 1.2 + 0.35 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for place, one in enumerate(rows):
        axis.plot([one["low"], one["high"]], [place, place], color=BLUE)
        axis.plot(one["exp"], place, "s", color=BLUE)
    axis.set_yticks(range(len(rows)), [one["name"] for one in rows])
    _ratios(axis)
    _save(figure, to, kind_of(to))


def effects(report: Row, to: Path) -> None:
    """Hazard ratio of each cluster, by its frailty: the highest and the lowest where there are many."""
    from matplotlib.figure import Figure

    rows = report["clusters"]
    if len(rows) > MOST_CLUSTERS:
        rows = rows[: MOST_CLUSTERS // 2] + rows[-MOST_CLUSTERS // 2 :]
    figure = Figure(figsize=(8, 1.5 + 0.25 * len(rows)), layout="constrained")
    axis = figure.subplots()
    axis.plot([one["hazard_ratio"] for one in rows[::-1]], range(len(rows)), "o", color=BLUE)
    axis.set_yticks(range(len(rows)), [f"{one['cluster']} ({one['events']} of {one['n']})" for one in rows[::-1]])
    _ratios(axis)
    _save(figure, to, kind_of(to))


def _ratios(axis: Any) -> None:
    from matplotlib.ticker import ScalarFormatter

    axis.set_xscale("log")
    for each in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
        each(ScalarFormatter())
    axis.tick_params(axis="x", which="both", labelsize=7)
    axis.axvline(1, color="grey", linewidth=0.8)
    axis.set_xlabel("hazard ratio")
