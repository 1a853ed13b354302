"""`quality`: what becomes of patients. Here `survival`, `cox`, `frailty` and `rules`; units.py has the charts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.console import Console
from rich.table import Table

from consumers.access import permit
from consumers.cli import units
from consumers.cli.access import Role
from consumers.cli.allocation import Site, Unit
from consumers.cli.read import Json, MaybePurpose, safe
from infra.errors import UsageError
from infra.runtime import run_to_end
from schemas.envelope import rfc3339

if TYPE_CHECKING:
    from consumers import curves

Row = dict[str, Any]
File = Annotated[Path | None, typer.Option("--file", help="A CSV in place of the index.")]
Time = Annotated[str, typer.Option("--time", help="Of --file: the column of the time at which a row ends.")]
Event = Annotated[str, typer.Option(help="Of --file: whether it ends with the event: 1 or 0, yes or no.")]
Start = Annotated[str, typer.Option(help="Of --file: rows are at risk from then on, (start, time].")]
Words = Annotated[str, typer.Option(help="Columns of numbers that are names of something: a,b.")]
Procedure = Annotated[str, typer.Option(help="Only cases with this procedure.")]
Since = Annotated[datetime | None, typer.Option(help="Only cases begun from then on, UTC.")]
Until = Annotated[datetime | None, typer.Option(help="Only cases begun before, and followed until then, UTC.")]
Covariates = Annotated[str, typer.Option(help="a,b,c; default: all other columns that can be used.")]
Strata = Annotated[str, typer.Option(help="A column whose values have baseline hazards of their own.")]
TiesOf = Annotated[str, typer.Option(help="efron or breslow.")]
Out = Annotated[Path | None, typer.Option("--out", help="Draw it into this file, .png or .svg.")]
Every = Annotated[float | None, typer.Option(help="Of the index: fit again every so many seconds if cases changed.")]
LEAST_EVERY = 1.0


def register(app: typer.Typer) -> None:
    commands = typer.Typer(
        help="What becomes of patients: charts, cases, reports, curves, rules.", no_args_is_help=True
    )
    app.add_typer(commands, name="quality")
    units.register(commands)
    _times(commands)
    _patterns(commands)


def _times(commands: typer.Typer) -> None:
    @commands.command()
    def survival(
        file: File = None,
        time: Time = "",
        event: Event = "",
        start: Start = "",
        words: Words = "",
        site: Site = "",
        unit: Unit = "",
        procedure: Procedure = "",
        since: Since = None,
        until: Until = None,
        by: Annotated[str, typer.Option(help="A curve for each value of a column: unit, procedure, sex, ...")] = "",
        at: Annotated[list[float] | None, typer.Option(help="Survival at this time. Repeatable.")] = None,
        out: Out = None,
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """How long until an event: Kaplan-Meier curves, medians and the log-rank test, with 95% intervals.

        Of the index: days from the beginning of each person's first case to death. docs/quality-survival.md.
        """
        from consumers import charts, curves

        _drawable(out)
        read = _reader(
            "survival", purpose, role, file, time, event, start, words, (site, unit, procedure), since, until
        )
        with _working("reading"):
            report = curves.curves(read(), by, sorted(at or ()))
        if out is not None:
            charts.survival(report, out)
        _told(report, as_json, _survival)

    @commands.command()
    def cox(
        file: File = None,
        time: Time = "",
        event: Event = "",
        start: Start = "",
        words: Words = "",
        site: Site = "",
        unit: Unit = "",
        procedure: Procedure = "",
        since: Since = None,
        until: Until = None,
        covariates: Covariates = "",
        strata: Strata = "",
        cluster: Annotated[str, typer.Option(help="A column whose equal rows belong together: robust errors.")] = "",
        ties: TiesOf = "efron",
        out: Out = None,
        every: Every = None,
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """What raises the hazard of an event, by how much, and whether hazard ratios stay the same over time."""
        from consumers import charts, curves
        from streams.quality.riskset import Ties

        _drawable(out)
        model = curves.Model("cox", curves.Asked(_list(covariates), strata, cluster), _one_of(Ties, ties, "ties"))
        read = _reader("cox", purpose, role, file, time, event, start, words, (site, unit, procedure), since, until)
        _fit(model, read, every, file, out, charts.forest, as_json)

    @commands.command()
    def frailty(
        file: File = None,
        time: Time = "",
        event: Event = "",
        start: Start = "",
        words: Words = "",
        site: Site = "",
        unit: Unit = "",
        procedure: Procedure = "",
        since: Since = None,
        until: Until = None,
        covariates: Covariates = "",
        strata: Strata = "",
        cluster: Annotated[str, typer.Option(help="A column whose equal rows share a risk; of the index: unit.")] = "",
        distribution: Annotated[str, typer.Option(help="gamma or gaussian.")] = "gamma",
        theta: Annotated[float | None, typer.Option(help="The variance, in place of estimating it.")] = None,
        ties: TiesOf = "efron",
        out: Out = None,
        every: Every = None,
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """A Cox model whose clusters share a risk that nobody measured: how much they differ, and what drives it."""
        from consumers import charts, curves
        from streams.quality.frailty import Distribution
        from streams.quality.riskset import Ties

        _drawable(out)
        if file is not None and not cluster:
            raise UsageError("--cluster names the column whose equal rows share a risk")
        asked = curves.Asked(_list(covariates), strata, cluster or "unit")
        kind = _one_of(Distribution, distribution, "distribution")
        model = curves.Model("frailty", asked, _one_of(Ties, ties, "ties"), kind, theta)
        read = _reader("frailty", purpose, role, file, time, event, start, words, (site, unit, procedure), since, until)
        _fit(model, read, every, file, out, charts.effects, as_json)


def _patterns(commands: typer.Typer) -> None:
    @commands.command()
    def rules(
        method: Annotated[
            str, typer.Option(help="association, sequence (what follows what), or class (who has --outcome).")
        ] = "association",
        file: File = None,
        id_: Annotated[str, typer.Option("--id", help="Of --file: whose row it is.")] = "",
        item: Annotated[str, typer.Option(help="Of --file: a row an item; rows with equal --id are together.")] = "",
        time: Annotated[str, typer.Option("--time", help="Of --file: when, a date or a number of days.")] = "",
        site: Site = "",
        unit: Unit = "",
        procedure: Procedure = "",
        since: Since = None,
        until: Until = None,
        outcome: Annotated[
            str, typer.Option(help="death_30d, readmission_30d, ...; of --file a column of 1 or 0, or an item.")
        ] = "",
        columns: Annotated[str, typer.Option(help="Only these: a,b,c; default: all others.")] = "",
        support: Annotated[float, typer.Option(help="The least share of stays, or people, that a rule is of.")] = 0.05,
        confidence: Annotated[float, typer.Option(help="The least share of those before it that it is true of.")] = 0.3,
        longest: Annotated[int, typer.Option(min=2, max=5, help="Items of a rule, or depth of a tree.")] = 3,
        gap: Annotated[float | None, typer.Option(help="Of sequences: days at most from each to the next.")] = None,
        window: Annotated[
            float | None, typer.Option(help="Which rules came or went: the last so many DAYS beside those before.")
        ] = None,
        top: Annotated[int, typer.Option(help="Rules shown; --json gives all.")] = 20,
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """What stands together, what follows what, and who has an outcome; q allows for all that was tried.

        docs/quality-rules.md explains every figure.
        """
        from consumers import patterns

        if method not in ("association", "sequence", "class"):
            raise UsageError("--method is association, sequence or class")
        if window is not None and method != "association":
            raise UsageError("--window compares association rules")
        if (method == "class") > bool(outcome):
            raise UsageError("--outcome says whose rules they are")
        if file is None and (id_ or item or time):
            raise UsageError("--id, --item and --time are columns of a --file")
        if file is not None and (site or unit or procedure or since or until):
            raise UsageError("--site, --unit, --procedure, --since and --until are of the index, not of --file")
        caller = None if file is not None else permit("search", purpose, role)
        with _working("reading and counting"):
            if caller is None:
                assert file is not None
                found = patterns.from_file(file, id_, item, time, "" if item else outcome)
            else:
                found = patterns.from_index(caller, _window(site, unit, procedure, since, until))
            if columns:
                found = patterns.only(found, _list(columns))
            if method == "sequence":
                report = patterns.following(found, support, confidence, longest, gap)
            elif method == "class":
                report = patterns.classes(found, outcome, longest)
            elif window is not None:
                report = patterns.changed(found, window, support, confidence, longest, outcome)
            else:
                report = patterns.association(found, support, confidence, longest, outcome)
        _told(report, as_json, lambda console, row: _rules(console, row, top))


def _window(site: str, unit: str, procedure: str, since: datetime | None, until: datetime | None) -> curves.Window:
    from consumers import curves

    return curves.Window(
        site, unit, procedure, *(rfc3339(one.replace(tzinfo=UTC)) if one else "" for one in (since, until))
    )


def _reader(
    use: str,
    purpose: str | None,
    role: str | None,
    file: Path | None,
    time: str,
    event: str,
    start: str,
    words: str,
    where: tuple[str, str, str],
    since: datetime | None,
    until: datetime | None,
) -> Callable[[], curves.Table]:
    """Rows of the file, or of the index as it is each time: whoever is not permitted any more gets none."""
    from consumers import curves

    if file is not None:
        if any(where) or since or until:
            raise UsageError("--site, --unit, --procedure, --since and --until are of the index, not of --file")
        return lambda: curves.from_file(file, time, event, start, _list(words))
    if time or event or start or words:
        raise UsageError("--time, --event, --start and --words are columns of a --file")
    window = _window(*where, since, until)
    return lambda: curves.from_index(permit("search", purpose, role), window, use)


def _fit(
    model: curves.Model,
    read: Callable[[], curves.Table],
    every: float | None,
    file: Path | None,
    out: Path | None,
    draw: Callable[[Row, Path], None],
    as_json: bool,
) -> None:
    from consumers import curves

    if every is None:
        with _working("reading and fitting"):
            report = model.fit(read())
        if out is not None:
            draw(report, out)
        _told(report, as_json, _model)
        return
    if file is not None or every < LEAST_EVERY:
        raise UsageError(f"--every is of the index, and {LEAST_EVERY:g} second at least")

    def say(report: Row, last: Row | None) -> None:
        if "error" not in report and out is not None:
            draw(report, out)
        if as_json:
            typer.echo(json.dumps(report, ensure_ascii=False, allow_nan=False))
        elif "error" in report:
            Console(stderr=True).print(safe(f"not estimated: {report['error']} {report['where']}"), highlight=False)
        elif last is None:
            _model(Console(), report)
        else:
            _moved(Console(), report, last)

    with contextlib.suppress(KeyboardInterrupt):  # how it ends
        run_to_end(curves.follow(read, model, every, say))


def _drawable(out: Path | None) -> None:
    from consumers import charts

    if out is not None:
        charts.kind_of(out)


def _list(said: str) -> list[str]:
    return [one.strip() for one in said.split(",") if one.strip()]


def _one_of(kind: Any, said: str, option: str) -> Any:
    """Raises UsageError for a word that a Literal has not."""
    if said not in get_args(kind):
        raise UsageError(f"--{option} is {' or '.join(get_args(kind))}")
    return said


def _working(what: str) -> contextlib.AbstractContextManager[Any]:
    console = Console(stderr=True)
    return console.status(what) if console.is_terminal else contextlib.nullcontext()


# -------------------------------------------------------------------------------------------------------------- printed


def _told(report: Row, as_json: bool, show: Callable[[Console, Row], None]) -> None:
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False, allow_nan=False))
    else:
        show(Console(), report)


def _survival(console: Console, report: Row) -> None:
    times = [one["time"] for one in report["groups"][0]["at"]]
    table = Table(report["by"] or "", "n", "events", "median (95%)", *(f"at {one:g} (95%)" for one in times))
    for one in report["groups"]:
        median = one["median"]
        shares = [_span(each["survival"], each["low"], each["high"], ".3f") for each in one["at"]]
        half = _span(median["time"], median["low"], median["high"], ".4g")
        table.add_row(safe(one["group"]), str(one["n"]), str(one["events"]), half, *shares)
    console.print(table)
    if (test := report["log_rank"]) is not None:
        _say(console, f"log-rank: {_test(test)}")
    _notes(console, report)


def _model(console: Console, report: Row) -> None:
    table = Table("", "coef", "hazard ratio (95%)", "se", "z", "p")
    table.columns[0].no_wrap = True
    for one in report["coefficients"]:
        cells = (f"{one['coef']:.5f}", _span(one["exp"], one["low"], one["high"], ".3f"))
        table.add_row(safe(one["name"]), *cells, f"{one['se']:.5f}", f"{one['z']:.2f}", _p(one["p"]))
    console.print(table)
    robust = ", robust errors" if report.get("robust") else ""
    strata = f", {report['strata']} strata" if report["strata"] > 1 else ""
    _say(console, f"{report['rows']} rows, {report['events']} events, ties {report['ties']}{strata}{robust}")
    (_frailty if "variance" in report else _cox)(console, report)
    _notes(console, report)


def _cox(console: Console, report: Row) -> None:
    _say(console, f"log-likelihood {report['loglik']:.4f}, without covariates {report['loglik_null']:.4f}")
    for name in ("likelihood_ratio", "wald", "score"):
        _say(console, f"{name.replace('_', ' ')}: {_test(report[name])}")
    _say(console, f"concordance {report['concordance']:.4f}")
    table = Table("proportional hazards", "chi-square", "df", "p")
    for name, one in report["proportionality"].items():
        table.add_row(safe(name), f"{one['chi_square']:.3f}", str(one["df"]), _p(one["p"]))
    console.print(table)


def _frailty(console: Console, report: Row) -> None:
    one = report["variance"]
    known = "given" if one["fixed"] else f"95% {one['low']:.3g} to {_number(one['high'], '.3g') or 'any'}"
    _say(console, f"{report['distribution']} frailty of variance {one['theta']:.4g}, {known}")
    said = f"marginal log-likelihood {report['loglik']:.4f}, without frailty {report['loglik_without']:.4f}"
    if (ratio := report["likelihood_ratio"]) is not None:
        said += f": chi-square {ratio['chi_square']:.2f}, p {_p(ratio['p'])} (half of chi-square's)"
    _say(console, said)
    if (driver := report["driver"]) is not None:
        far = "".join(f", {name} {value:.5f}" for name, value in driver["coefficients"].items())
        said = f"{driver['cluster']} alone drives this fit ({', '.join(driver['why'])}): without it"
        _say(console, f"{said} the variance is {driver['theta']:.3g}, p {_p(driver['p'])}{far}")
    rows = report["clusters"]
    table = Table(f"{len(rows)} clusters", "n", "events", "hazard ratio")
    for place, each in enumerate(rows):
        if place < 5 or place >= len(rows) - 5:
            table.add_row(safe(each["cluster"]), str(each["n"]), str(each["events"]), f"{each['hazard_ratio']:.3f}")
        elif place == 5:
            table.add_row("...", "", "", "")
    console.print(table)


def _moved(console: Console, report: Row, last: Row) -> None:
    from consumers import curves

    now = datetime.now(UTC).strftime("%H:%M:%S")
    rows, events = report["rows"] - last["rows"], report["events"] - last["events"]
    _say(console, f"{now}: {report['rows']} rows ({rows:+d}), {report['events']} events ({events:+d})")
    if "variance" in report:
        _say(console, f"  variance {last['variance']['theta']:.4g} -> {report['variance']['theta']:.4g}")
    for one in curves.moved(report, last):
        was, is_ = (_number(one[key], ".5f") or "none" for key in ("before", "now"))
        by = "" if one["errors"] is None else f" ({one['errors']:.2f} standard errors)"
        _say(console, f"  {one['name']} {was} -> {is_}{by}")
    for remark in report["remarks"]:
        if remark not in last["remarks"]:
            _say(console, f"  {remark}")


def _rules(console: Console, report: Row, top: int) -> None:
    if "changes" in report:
        before, after = report["transactions"]
        table = Table("", "if", "then", f"of {before} before", f"of {after} after", "q")
        for one in report["changes"][:top]:
            was, is_ = (f"{each['both']} of {each['antecedent']}" for each in (one["before"], one["after"]))
            table.add_row(one["kind"], *_sides(one), was, is_, _p(one["q"]))
    elif report["method"] == "class":
        table = Table("if", f"{report['outcome']} (95%)", "of", "lift", "leverage", "q")
        for one in report["rules"][:top]:
            said = _span(one["confidence"], one["low"], one["high"], ".3f")
            lift, leverage = f"{one['lift']:.3f}", f"{one['leverage']:.3f}"
            who = safe(" and ".join(one["if"]) or "everybody")
            table.add_row(who, said, str(one["count"]), lift, leverage, _p(one["q"]))
    else:
        table = Table("if", "then", "n", "support", "confidence", "lift", "leverage", "q")
        for one in report["rules"][:top]:
            figures = [f"{one[name]:.3f}" for name in ("support", "confidence", "lift", "leverage")]
            table.add_row(*_sides(one), str(one["count"]), *figures, _p(one["q"]))
    console.print(table)
    if (left := len(report["changes" if "changes" in report else "rules"]) - top) > 0:
        _say(console, f"{left} more: --top, or --json")
    _notes(console, report)


def _sides(one: Row) -> tuple[str, str]:
    return safe(", ".join(one["if"])), safe(", ".join(one["then"]))


def _notes(console: Console, report: Row) -> None:
    for reason, count in report["refused"].items():
        _say(console, f"left out, {reason}: {count}")
    for remark in report["remarks"]:
        _say(console, remark)


def _test(one: Row) -> str:
    return f"chi-square {one['chi_square']:.3f}, df {one['df']}, p {_p(one['p'])}"


def _p(one: float | None) -> str:
    return "" if one is None else f"{one:.4f}" if one >= 1e-4 else f"{one:.1e}"


def _span(value: float | None, low: float | None, high: float | None, how: str) -> str:
    if value is None:
        return "none"
    return f"{value:{how}} ({_number(low, how) or '-'} to {_number(high, how) or '-'})"


def _number(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def _say(console: Console, said: str) -> None:
    console.print(safe(said), highlight=False, soft_wrap=True)
