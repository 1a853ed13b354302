"""`search`, `reveal` and `dlq`."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from consumers import dlq as dead_letters
from consumers import replay as replay_sealed
from consumers.access import permit
from consumers.cli.access import Role
from consumers.reveal import reveal as reveal_field
from consumers.search import Narrow, domain, line, why
from consumers.search import search as search_index
from infra.audit import Audit
from infra.errors import UsageError
from infra.runtime import run_to_end

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OfDomain = Annotated[str, typer.Option("--domain", help="Which domain's index.")]
Kind = Annotated[str | None, typer.Option(help="event, visit, observation, order, note, patient, ...")]
Filters = Annotated[list[str] | None, typer.Option("--filter", help="field=value, exact. Repeatable.")]
Since = Annotated[str | None, typer.Option(help="Only what happened in the last 30m, 24h, 7d.")]
Purpose = Annotated[str, typer.Option(help="Why: TREAT, ETREAT, HOPERAT, PATRQT, ... (HL7 v3 PurposeOfUse). Audited.")]
MaybePurpose = Annotated[str | None, typer.Option("--purpose", help="Why; default: the role's first purpose. Audited.")]
T = TypeVar("T")
CONTROLS = {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)}  # no escape sequence of a message


def safe(text: str) -> str:
    """Text of a message as a terminal may have it: no escape sequence, no markup."""
    return escape(text.translate(CONTROLS))


def register(app: typer.Typer) -> None:
    @app.command()
    def search(
        query: Annotated[
            str,
            typer.Argument(
                help='Words, "a phrase", field:value, has:diabetes -negated -family, id:NUMBER, -without; * is all.'
            ),
        ] = "*",
        of: OfDomain = "ehr",
        kind: Kind = None,
        filters: Filters = None,
        since: Since = None,
        size: Annotated[int, typer.Option(help="Hits shown.")] = 20,
        sort: Annotated[str | None, typer.Option(help="A field; -field turns the order.")] = None,
        explain: Annotated[bool, typer.Option("--explain", help="Say how each score came about.")] = False,
        newest: Annotated[bool, typer.Option("--newest", help="Leave out what was told again since.")] = False,
        fields: Annotated[bool, typer.Option("--fields", help="List the fields you may search and end.")] = False,
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Search a domain's index, best hit first."""
        where, caller = domain(of), permit("search", purpose, role)
        if fields:
            may = caller.fields(where, "search")
            _fields({name: one for name, one in where.mapping()["properties"].items() if name in may}, as_json)
            return
        narrow = Narrow(filters or (), kind, since)
        found = search_index(caller, query, where, narrow, size=size, sort=sort, explain=explain, newest=newest)
        if as_json:
            typer.echo(json.dumps({"total": found.total, "hits": found.hits}, ensure_ascii=False))
            return
        table = Table("when", "kind", "unit", "what", title=f"{found.total} found, {len(found.hits)} shown")
        table.add_column("id", no_wrap=True)  # whole: it is what `reveal` takes
        for hit in found.hits:
            when = str(hit.get("event_time", ""))[:16].replace("T", " ")
            said = escape(line(hit).translate(CONTROLS)).replace("«", "[bold yellow]").replace("»", "[/]")
            table.add_row(when, str(hit.get("kind", "")), str(hit.get("unit", "")), said, hit.get("id", ""))
        Console().print(table)
        if explain:
            for hit in found.hits:
                typer.echo(f"{hit['score']:.4f} {hit['id']}")
                typer.echo("".join(f"  {one.translate(CONTROLS)}\n" for one in why(hit)), nl=False)

    @app.command()
    def reveal(
        event_id: Annotated[str, typer.Argument(help="An event, or one document of it.")],
        name: Annotated[str, typer.Option("--field", help="The sealed field: name, birth_date, phones, ...")],
        purpose: Purpose,
        of: OfDomain = "ehr",
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Show a sealed field in clear. Who, what and why are written into the audit first."""
        shown = reveal_field(permit("reveal", purpose, role), domain(of), event_id, name)
        if as_json:
            rows = [{"id": one.document, "kind": one.kind, "field": one.field, "values": one.values} for one in shown]
            typer.echo(json.dumps(rows, ensure_ascii=False))
            return
        table = Table("document", "kind", name)
        for one in shown:
            table.add_row(one.document, one.kind, escape(", ".join(one.values).translate(CONTROLS)))
        Console().print(table)

    @app.command("replay")
    def rebuild(
        into: Annotated[str, typer.Option(help="Name of the new index, such as ehr-v2.")] = "",
        since: Annotated[datetime | None, typer.Option("--from", help="Only what was received since, UTC.")] = None,
        until: Annotated[datetime | None, typer.Option("--to", help="Only what was received before, UTC.")] = None,
        abandon: Annotated[bool, typer.Option("--abandon", help="Put right what a killed replay has left.")] = False,
        derive: Annotated[
            bool, typer.Option("--derive", help="Make no index: send again what follows from records (beds).")
        ] = False,
        of: OfDomain = "ehr",
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Rebuild an index from the sealed topic beside the live one, then move the alias to it.

        Searches go on and miss nothing; workers go on, but for a moment. With --from or --to the index is only made,
        and the alias stays. The old index stays too, blocked for writing: delete it when you are sure. Exit code 1
        where a record could not be rebuilt: then the alias stays. A replay that fails or is ended leaves nothing; one
        that was killed may leave the live index blocked: --abandon. With --derive the events of other domains that
        follow from the records are sent again; those that were sent before change nothing.
        """
        if derive == bool(into) or (derive and abandon):
            raise UsageError("say --into NAME, or --derive")
        if derive:
            entity = f"what follows from {domain(of).name}"
            Audit.local().write(permit("replay", role=role).act("E", entities=(entity,)))
            sent = _with_progress(partial(replay_sealed.derive, domain(of), _window(since, until)))
            _figures({**dataclasses.asdict(sent), "left_out": dict(sent.left_out)}, as_json)
            raise typer.Exit(0 if sent.complete() else 1)
        Audit.local().write(permit("replay", role=role).act("E", entities=(into,)))
        if abandon:
            moved = run_to_end(replay_sealed.abandon(domain(of), into))
            said = f"{into} {'is the live index' if moved else 'is gone, and the live index takes writes'}"
            typer.echo(json.dumps({"index": into, "live": moved}) if as_json else said)
            return
        made = _with_progress(partial(replay_sealed.rebuild, domain(of), into, _window(since, until)))
        _figures({**dataclasses.asdict(made), "index": into, "left_out": dict(made.left_out)}, as_json)
        raise typer.Exit(0 if made.complete() else 1)

    dlq = typer.Typer(help="Dead letters: list, show, replay.", no_args_is_help=True)
    app.add_typer(dlq, name="dlq")

    @dlq.command("list")
    def list_letters(of: OfDomain = "ehr", role: Role = None, as_json: Json = False) -> None:
        """Every dead letter, with its reason and where it came from."""
        permit("dead_letters", role=role)
        found = dead_letters.letters(domain(of))
        if as_json:
            typer.echo(json.dumps([one.row() for one in found]))
            return
        table = Table("number", "reason", "where", "stage", "source", "read from", "failed at", "replayed")
        table.columns[1].no_wrap = True
        for one in found:
            letter, row = one.letter, one.row()
            read_from = f"{letter.topic}/{letter.partition}/{letter.offset}" if letter.topic else "the wire"
            texts = (letter.reason, letter.where, letter.stage, row["source"], read_from, letter.failed_at)
            table.add_row(one.number, *(escape(text.translate(CONTROLS)) for text in texts), one.replayed_at)
        Console().print(table)
        for reason, count in Counter(one.letter.reason for one in found).most_common():
            typer.echo(f"{count:6} {reason}")

    @dlq.command()
    def show(
        number: Annotated[str, typer.Argument(help="From `dlq list`; or the event's id.")],
        purpose: Purpose,
        of: OfDomain = "ehr",
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Show the message of a dead letter in clear. Audited."""
        where, caller = domain(of), permit("dead_letters_show", purpose, role)
        one = dead_letters.one_of(dead_letters.letters(where), number)
        text = dead_letters.show(caller, one, where).decode("utf-8", errors="backslashreplace")
        if as_json:
            typer.echo(json.dumps(one.row() | {"message": text}, ensure_ascii=False))
            return
        typer.echo(f"{one.letter.reason} {one.letter.where}".strip())
        typer.echo(text.replace("\r\n", "\n").replace("\r", "\n").translate(CONTROLS))

    @dlq.command()
    def replay(
        numbers: Annotated[list[str] | None, typer.Argument(help="From `dlq list`; none: see --reason.")] = None,
        reason: Annotated[str | None, typer.Option(help="All letters with this reason.")] = None,
        again: Annotated[bool, typer.Option("--again", help="Those that were replayed before, too.")] = False,
        of: OfDomain = "ehr",
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Send dead letters again, unchanged: once the code, the peer's profile or the key store is mended."""
        if bool(numbers) == bool(reason):
            raise UsageError("say which letters: their numbers, or --reason")
        where, caller = domain(of), permit("replay", role=role)
        found = dead_letters.letters(where)
        chosen = [dead_letters.one_of(found, one) for one in numbers or ()]
        chosen += [one for one in found if reason and one.letter.reason == reason]
        once = {one.number: one for one in chosen}
        count = dead_letters.replay(caller, [one for one in once.values() if again or not one.replayed_at], where)
        left = len(once) - count
        if as_json:
            typer.echo(json.dumps({"replayed": count, "left_out": left}))
        else:
            typer.echo(f"{count} replayed" + (f", {left} left out: replayed before (--again)" if left else ""))


def _window(since: datetime | None, until: datetime | None) -> replay_sealed.Window:
    return replay_sealed.Window(since and since.replace(tzinfo=UTC), until and until.replace(tzinfo=UTC))


def _with_progress(work: Callable[[Callable[[int], None]], Coroutine[Any, Any, T]]) -> T:
    figures = TextColumn("{task.completed:.0f} records")
    with Progress(SpinnerColumn(), figures, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        return run_to_end(work(partial(progress.advance, progress.add_task("", total=None))))


def _figures(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(row))
        return
    table = Table("figure", "value")
    for name, value in row.items():
        table.add_row(name.replace("_", " "), str(value))
    Console().print(table)


def _fields(properties: dict[str, Any], as_json: bool) -> None:
    rows = {name: one["type"] for name, one in sorted(properties.items()) if one.get("enabled", True)}
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        typer.echo("\n".join(f"{name:28} {kind}" for name, kind in rows.items()))
