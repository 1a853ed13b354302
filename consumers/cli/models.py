"""`models train`, `try`, `check`, `list`, `show`, `promote` and `rollback`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from consumers.access import permit
from consumers.cli.access import Role
from infra.audit import Audit
from infra.errors import ModelAltered, UsageError
from streams.models import Card, Figure, Models, Subgroup, rules

if TYPE_CHECKING:
    from streams.quality.candidates import Comparison
    from streams.quality.tables import Prepared

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="From `models list`.")]
Version = Annotated[str | None, typer.Argument(help="Default: the promoted one, else the newest.")]
Purpose = Annotated[str | None, typer.Option(help="Why; default: the role's first purpose. Audited.")]


def register(app: typer.Typer) -> None:
    commands = typer.Typer(
        help="Trained models: train, try, check, list, show, promote, rollback.", no_args_is_help=True
    )
    app.add_typer(commands, name="models")
    _learning(commands)
    _store(commands)


def _learning(commands: typer.Typer) -> None:
    @commands.command()
    def train(
        target: Annotated[
            str,
            typer.Argument(
                help="department, readmission, length_of_stay, deterioration; status, leaves; death_in_hospital, "
                "death_30d, readmission_30d, or any outcome that is told of cases."
            ),
        ],
        algorithms: Annotated[
            list[str] | None,
            typer.Option("--algorithm", help="decision_tree, ...; repeatable. Default: those of the target."),
        ] = None,
        truth: Annotated[
            Path | None, typer.Option(help="What `simulate --truth` wrote: the card tells the best possible AUC.")
        ] = None,
        role: Role = None,
        purpose: Purpose = None,
        as_json: Json = False,
    ) -> None:
        """Train on the index, as your role sees it. Nothing is promoted; the best is scored in shadow."""
        caller = permit("models", purpose, role)
        from consumers import leaves, models  # with scikit-learn 2 s: not for every command
        from streams.learn import LOGISTIC

        if target == leaves.TARGET:
            if algorithms or truth:
                raise UsageError("leaves has one algorithm, and no simulator tells its truth")
            made = leaves.train(caller)
        else:
            chosen = algorithms or models.algorithms_for(target)
            with _progress("training", 1 + len({*chosen, LOGISTIC})) as advance:
                made = models.train(caller, target, chosen, truth, advance)
        if as_json:
            typer.echo(json.dumps([card.model_dump(mode="json") for card in made], ensure_ascii=False))
            return
        for card in made:
            _print(card, "", [])

    @commands.command("try")
    def try_file(
        file: Annotated[
            Path, typer.Option(exists=True, dir_okay=False, help="A CSV with a head: a row a case, a column a factor.")
        ],
        outcome: Annotated[
            str, typer.Option(help="The column that says whether it came: two values, such as yes, no.")
        ],
        patient: Annotated[
            str, typer.Option(help="The column that says whose a row is. Default: each row another's.")
        ] = "",
        time: Annotated[str, typer.Option(help="The column that says when: judge on the last fifth of the time.")] = "",
        positive: Annotated[
            list[str] | None, typer.Option(help="A value of the outcome that counts as yes; repeatable.")
        ] = None,
        without: Annotated[list[str] | None, typer.Option(help="A column to leave out; repeatable.")] = None,
        as_json: Json = False,
    ) -> None:
        """Whether trees beat logistic regression on a table of your own. Reads no index, keeps nothing.

        Exit code 18 where no model can be judged, with the reason: one class, too few rows.
        """
        from streams.quality import candidates, tables  # with scikit-learn 2 s: not for every command

        try:
            text = file.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise UsageError("the file is not in UTF-8") from None
        names, lines = tables.read(text)
        table = tables.prepared(names, lines, outcome, patient, time, positive or (), without or ())
        with _progress("fitting", candidates.steps(table.timed)) as advance:
            found = candidates.compared(table.rows, table.timed, advance)
        if as_json:
            typer.echo(json.dumps(_compared(table, found), ensure_ascii=False, allow_nan=False))
        else:
            _print_compared(table, found)

    @commands.command()
    def check(
        name: Name,
        version: Version = None,
        role: Role = None,
        purpose: Purpose = None,
        as_json: Json = False,
    ) -> None:
        """Measure a model again, on its own hold-out in today's index. Exit code 1 where a figure is not the card's."""
        caller, chosen = permit("models", purpose, role), version or _default(Models.local(), name)
        from consumers import leaves, models

        found = leaves.check(caller, chosen) if name == leaves.NAME else models.check(caller, name, chosen)
        differing = [one for one in found if not one.same]
        if as_json:
            rows = [dataclasses.asdict(one) | {"same": one.same} for one in found]
            typer.echo(json.dumps({"name": name, "version": chosen, "figures": rows}))
        else:
            table = Table("figure", "card", "now", title=f"{name}/{chosen}")
            for one in found:
                texts = ("" if value is None else f"{value:.6f}" for value in (one.card, one.now))
                table.add_row(one.figure, *texts, style="" if one.same else "bold yellow")
            Console().print(table)
            typer.echo(f"{len(found) - len(differing)} of {len(found)} figures are the card's")
        raise typer.Exit(1 if differing else 0)


def _store(commands: typer.Typer) -> None:
    @commands.command("list")
    def list_models(role: Role = None, purpose: Purpose = None, as_json: Json = False) -> None:
        """Every version of every model. Exit code 16 where one was altered; it is never loaded."""
        Audit.local().write(permit("models", purpose, role).act("R"))
        store = Models.local()
        rows = [_row(store, name, version) for name in store.names() for version in store.versions(name)]
        if as_json:
            typer.echo(json.dumps(rows))
        else:
            table = Table("model", "algorithm", "figure (95%)", "beats", "state")
            table.columns[0].no_wrap = table.columns[4].no_wrap = True
            for row in rows:
                table.add_row(f"{row['name']}/{row['version']}", row["algorithm"].replace("_", " "), *_said(row))
            Console().print(table)
        if altered := [f"{row['name']}/{row['version']}" for row in rows if row["state"] == "altered"]:
            raise ModelAltered(f"altered on the disk: {', '.join(altered)}")

    @commands.command()
    def show(
        name: Name,
        version: Version = None,
        as_rules: Annotated[bool, typer.Option("--rules", help="Print a decision tree as rules.")] = False,
        role: Role = None,
        purpose: Purpose = None,
        as_json: Json = False,
    ) -> None:
        """A model's card: what it was taught, what it can do beside its baselines, and who promoted it."""
        caller, store = permit("models", purpose, role), Models.local()
        chosen = version or _default(store, name)
        Audit.local().write(caller.act("R", entities=(f"{name}/{chosen}",)))
        if as_rules:
            text = rules(store.load(name, chosen))
            typer.echo(json.dumps({"name": name, "version": chosen, "rules": text}) if as_json else text)
            return
        card, state = store.card(name, chosen), _state(store, name, chosen)
        history = [step.model_dump() for step in store.history(name)]
        if as_json:
            said = {"card": card.model_dump(mode="json"), "state": state, "history": history}
            typer.echo(json.dumps(said, ensure_ascii=False))
        else:
            _print(card, state, history)

    @commands.command()
    def promote(
        name: Name,
        version: Annotated[str, typer.Argument(help="Its scores count from now on.")],
        force: Annotated[bool, typer.Option("--force", help="Though it is not better. Audited as forced.")] = False,
        role: Role = None,
        purpose: Purpose = None,
        as_json: Json = False,
    ) -> None:
        """Promote a version. Refused (exit code 17) unless it beats its baselines and the one that is promoted."""
        caller, store = permit("models", purpose, role), Models.local()
        said = {"step": "force" if force else "promote"}
        Audit.local().write(caller.act("U", entities=(f"{name}/{version}",), detail=said))
        store.promote(name, version, by=caller.account, force=force)
        typer.echo(json.dumps(_row(store, name, version)) if as_json else f"{name}/{version} is promoted")

    @commands.command()
    def rollback(name: Name, role: Role = None, purpose: Purpose = None, as_json: Json = False) -> None:
        """Go back to the version that was promoted before, or to none."""
        caller, store = permit("models", purpose, role), Models.local()
        Audit.local().write(caller.act("U", entities=(name,), detail={"step": "rollback"}))
        before = store.rollback(name, by=caller.account)
        row = {"name": name, "promoted": before}
        typer.echo(json.dumps(row) if as_json else f"{name}: {before or 'no version'} is promoted")


@contextmanager
def _progress(what: str, steps: int) -> Iterator[Callable[..., None]]:
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=steps)
        yield lambda *_: progress.advance(task)


def _default(store: Models, name: str) -> str:
    found = store.promoted(name) or next(reversed(store.versions(name)), None)
    if found is None:
        raise UsageError(f"there is no model {name}: there are {', '.join(store.names()) or 'none'}")
    return found


def _row(store: Models, name: str, version: str) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "version": version}
    try:
        card, state = store.card(name, version), _state(store, name, version)
    except ModelAltered:
        return row | {"algorithm": "", "trained_at": "", "metric": "", "figure": None, "state": "altered"}
    figure = card.figures.get(card.metric)
    return row | {
        "algorithm": card.algorithm,
        "trained_at": card.trained_at,
        "metric": card.metric,
        "figure": figure and figure.model_dump(),
        "beats_baseline": card.beats_baseline,
        "beats_incumbent": card.beats_incumbent,
        "state": state,
    }


def _state(store: Models, name: str, version: str) -> str:
    if version == store.promoted(name):
        return "promoted"
    return "shadow" if version == store.shadow(name) else ""


def _said(row: dict[str, Any]) -> tuple[str, str, str]:
    figure = f"{row['metric']} {_figure(Figure.model_validate(row['figure']))}" if row["figure"] else ""
    said = (("baseline", row.get("beats_baseline")), ("incumbent", row.get("beats_incumbent")))
    return figure, ", ".join(name for name, beaten in said if beaten) or "nothing", row["state"]


def _print(card: Card, state: str, history: list[dict[str, Any]]) -> None:
    console = Console()
    console.print(f"[bold]{card.name}/{card.version}[/] {card.algorithm}, {state or 'not in use'}", highlight=False)
    console.print(f"target {card.target}; trained {card.trained_at} by {card.trained_by}", highlight=False)
    for what, data in (("taught on", card.data), ("judged on", card.holdout)):
        if data is not None:
            classes = ", ".join(f"{name}: {count}" for name, count in data.classes.items())
            of = f"{data.rows} rows of {data.patients} {card.of}, {data.first} to {data.last}"
            of += f"; {classes}" if classes else ""
            console.print(f"{what} {of}", highlight=False)
    names = list(dict.fromkeys((*card.figures, *(name for one in card.baselines.values() for name in one))))
    others = {card.algorithm: card.figures, **card.baselines}
    table = Table("figure (95%)", *(name.replace("_", " ") for name in names))
    for of, figures in others.items():
        table.add_row(of.replace("_", " "), *(_figure(figures[name]) if name in figures else "" for name in names))
    console.print(table)
    _print_subgroups(console, card.subgroups, card.of)
    for other, figure in card.differences.items():
        console.print(f"{card.metric} less that of {other}: {_figure(figure)}", highlight=False)
    if card.calibration is not None:
        slope = "" if card.calibration.slope is None else f", slope {card.calibration.slope:.2f}"
        console.print(f"Brier score {card.calibration.brier:.4f}{slope}", highlight=False)
    if card.importance:
        weights = ", ".join(f"{name} {weight:.3f}" for name, weight in list(card.importance.items())[:8])
        console.print(f"AUC that is lost without: {weights}", highlight=False)
    for note in card.notes:
        console.print(note, highlight=False)
    for step in history:
        console.print(f"{step['at']} {step['did']} {step['version'] or 'none'} by {step['by']}", highlight=False)


def _print_subgroups(console: Console, groups: dict[str, Subgroup], of: str) -> None:
    if not groups:
        return
    names = list(dict.fromkeys(name for one in groups.values() for name in one.figures if name in _OF_GROUPS))
    table = Table(f"only {of} of", of, *(name.replace("_", " ") for name in names))
    for group, one in groups.items():
        figures = (_figure(one.figures[name]) if name in one.figures else "" for name in names)
        table.add_row(escape(group), str(one.patients), *figures)
    console.print(table)


_OF_GROUPS = ("auc", "brier", "observed_to_expected")


def _compared(table: Prepared, found: Comparison) -> dict[str, Any]:
    return {
        "rows": found.rows,
        "patients": found.patients,
        "events": found.events,
        "yes": table.yes,
        "judged": found.judged,
        "columns": [dataclasses.asdict(one) for one in table.columns],
        "remarks": table.remarks,
        "figures": {of: {n: f.model_dump() for n, f in some.items()} for of, some in found.figures.items()},
        "calibration": {of: one.model_dump() for of, one in found.calibration.items()},
        "differences": {of: one.model_dump() for of, one in found.differences.items()},
        "subgroups": {of: one.model_dump() for of, one in found.subgroups.items()},
        "better": found.better,
        "proposed": found.proposed,
        "verdict": found.verdict,
    }


def _print_compared(table: Prepared, found: Comparison) -> None:
    console = Console()
    said = f"{found.rows:,} rows of {found.patients:,} patients, {found.events:,} with the outcome ({table.yes})"
    console.print(escape(f"{said}; judged on {found.judged}"), highlight=False)
    used = [one for one in table.columns if not one.dropped]
    told = [f"{one.name} ({one.kind}{f', {one.missing:.0%} missing' if one.missing else ''})" for one in used]
    console.print(escape(f"learned from: {', '.join(told)}"), highlight=False)
    for one in table.columns:
        if one.dropped or one.remark:
            what = f"left out, {one.dropped}" if one.dropped else one.remark
            console.print(escape(f"{one.name}: {what}"), highlight=False)
    for remark in table.remarks:
        console.print(escape(remark), highlight=False)
    figures = Table("candidate", "AUC (95%)", "log loss", "Brier", "slope", "intercept", "AUC less logistic's")
    for of, some in found.figures.items():
        line = found.calibration[of]
        fit = ("" if one is None else f"{one:.2f}" for one in (line.slope, line.intercept))
        loss = (f"{some[name].value:.4f}" for name in ("log_loss", "brier"))
        over = _figure(found.differences[of]) if of in found.differences else ""
        figures.add_row(of.replace("_", " "), _figure(some["auc"]), *loss, *fit, over)
    console.print(figures)
    _print_subgroups(console, found.subgroups, "patients")
    console.print(escape(found.verdict.replace("_", " ")), highlight=False)


def _figure(figure: Figure) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
