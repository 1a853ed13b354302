"""A report of `stats` as a person reads it."""

from __future__ import annotations

from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from consumers import charts
from consumers.cli.read import safe
from consumers.cohort import Row
from consumers.figures import sparkline

WIDTH = 40  # of the longest bar


def show(console: Console, report: Row) -> None:
    say = partial(console.print, highlight=False, soft_wrap=True)
    say(f"{_sizes(report['cohort'])} in the cohort")
    if report["versions"] == "all":
        say("what was told again counts again: too many documents to tell which are the newest")
    if "second" in report:
        said = "left out of the second" if report["both"]["left_out_of_second"] else "in both, which no test allows for"
        say(f"{_sizes(report['second'])} in the second; {report['both']['patients']} patients of both, {said}")
        _compared(console, report["compared"])
    for group in report.get("groups", ()):
        say(f"\n[bold]{report['by']}: {safe(group['group'])}[/]  {_sizes(group)}")
        _fields(console, group["fields"])
    if "others" in report:
        say(f"\nother groups: {_sizes(report['others'])}")
    if "fields" in report:
        _fields(console, report["fields"])
    for one in report.get("histograms", ()):
        _histogram(console, one)
    if "over" in report:
        _trend(console, report["over"])


def _fields(console: Console, rows: list[Row]) -> None:
    note = partial(console.print, soft_wrap=True, highlight=False)
    numbers = [row for row in rows if row["type"] == "number" and "mean" in row]
    if numbers:
        names = ("mean (sd)", "median (quartiles)", "p5 to p95", "min to max")
        table = Table("number", "documents", "patients", "missing", *names)
        for row in numbers:
            marks = "" if row["exact"] else " ~"
            cells = (
                _spread(row["mean"], row["sd"]),
                _spread(row["median"], row["q1"], row["q3"]),
                _span(row["p5"], row["p95"]),
                _span(row.get("min"), row.get("max")),
            )
            table.add_row(safe(charts.title(row)) + marks, *_counts(row), _missing(row), *cells)
        console.print(table)
        if any(not row["exact"] for row in numbers):
            note("~ quantiles are estimated (t-digest); fewer documents, or --histogram, read every value")
        if any(row.get("one_a_patient") for row in numbers):
            note("numbers are of one value a patient, his or her median; extremes are not shown")
        if len({(row["code"], row["units"]) for row in numbers if "units" in row}) > 1:
            note("a row a code and unit: values of different units, or of different codes, are not pooled")
    if others := [row for row in rows if row["type"] != "number" or "mean" not in row]:
        table = Table("field", "documents", "patients", "missing", "what")
        for row in others:
            name = f"{row['field']} (others)" if row["type"] == "others" else charts.title(row)
            table.add_row(safe(name), *_counts(row), _missing(row), safe(_what(row)))
        console.print(table)


def _what(row: Row) -> str:
    if "values" in row:
        parts = [f"{one['value']} {one['documents']}{_percent(one['share'])}" for one in row["values"]]
        if "others" in row:
            parts.append(f"others {row['others']['documents']}{_percent(row['others']['share'])}")
        return ", ".join(parts)
    return f"{row['first']} to {row['last']}" if "first" in row else ""


def _compared(console: Console, rows: list[Row]) -> None:
    table = Table("field", "first", "second", "effect", "95% interval", "test", "p", "q")
    for row in rows:
        sides = [_side(row[name]) for name in ("first", "second")]
        if "p" not in row:
            table.add_row(safe(charts.title(row)), *sides, row["why"])
            continue
        effect, interval = f"{row['effect']} {_number(row['size'])}", row["interval"]
        if "hodges_lehmann" in row:
            effect += f", shift {_number(row['hodges_lehmann'])}"
            interval = row["hodges_lehmann_interval"]
        elif "difference_of_means" in row:
            effect += f", means {_number(row['difference_of_means'])} apart"
            interval = row.get("difference_of_means_interval")
        name = ("has " if row["of"] == "presence" else "") + charts.title(row)
        said = " to ".join(_number(one) for one in interval) if interval else ""
        table.add_row(safe(name), *sides, effect, said, row["test"], _number(row["p"]), _number(row["q"]))
    console.print(table)
    said = "one value a patient: the median, or the most frequent; q: Benjamini and Hochberg over these rows"
    console.print(said, soft_wrap=True, highlight=False)


def _side(side: Row) -> str:
    if "median" in side:
        return f"{_number(side['median'])} (n {side['patients']})"
    if "share" in side:
        return f"{side['having']} of {side['patients']}"
    return safe(", ".join(f"{value} {count}" for value, count in list(side["values"].items())[:5]))


def _histogram(console: Console, one: Row) -> None:
    console.print(f"\n{safe(charts.title(one))}, {one['of']}", highlight=False)
    most = max((row["count"] for row in one["bins"]), default=0)
    for row in one["bins"]:
        if row["from"] is None or row["to"] is None:
            end = f"below {_number(row['to'])}" if row["to"] is not None else f"from {_number(row['from'])}"
            span = "all" if row["from"] is None and row["to"] is None else end
        else:
            span = f"{_number(row['from'])} to {_number(row['to'])}"
        console.print(f"{span:>24} {_bar(row['count'] / most if most else 0)} {row['count']}", highlight=False)


def _bar(share: float) -> str:
    """Blocks, in eighths."""
    eighths = round(share * WIDTH * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _trend(console: Console, over: Row) -> None:
    steps = over["steps"]
    for name in ("documents", "patients", "median"):
        if any(row.get(name) is not None for row in steps):
            console.print(f"{name:>10} {sparkline([row.get(name) for row in steps])}", highlight=False)
    table = Table(over["step"], "documents", "patients", "median")
    for row in steps:
        table.add_row(row["from"], str(row["documents"]), str(row["patients"]), _number(row.get("median")))
    console.print(table)


def _sizes(row: Row) -> str:
    return f"{row['documents']} documents of {row['patients']} patients"


def _counts(row: Row) -> tuple[str, str]:
    return str(row["documents"]), str(row.get("patients", ""))


def _missing(row: Row) -> str:
    if "missing" not in row:
        return ""
    return f"{row['missing']}{_percent(row['missing_share'])}"


def _percent(share: float | None) -> str:
    return "" if share is None else f" ({share:.1%})"


def _spread(middle: float | None, *around: float | None) -> str:
    told = [_number(one) for one in around if one is not None]
    return _number(middle) + (f" ({' to '.join(told)})" if told else "")


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{_number(low)} to {_number(high)}"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4g}"
