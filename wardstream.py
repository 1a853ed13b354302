"""The command: one sub-app a package, errors as a sentence and an exit code."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import consumers.cli
import infra.local.cli
import producers.cli
from consumers.access import bootstrap
from infra.elastic import create_index
from infra.errors import WardstreamError
from infra.kafka import GROUP, AclSpec, TopicSpec, create_acls, create_topics, lag
from schemas import outcome_charts, similar, sites
from schemas.envelope import NAMES
from schemas.identities import identities, principal
from schemas.registry import DOMAINS, TOPICS
from schemas.stores import STORES

EPILOG = (
    "Exit codes: 0 all went well; 1 something failed; 2 wrong usage; 3 a server is not there; 4 a downloaded file was"
    " altered; 5 the key was destroyed; 6 a seal is broken; 7 a key file others can read; 8 too many dead letters;"
    " 9 ended by its own watchdog; 10 not permitted; 11 a legal hold; 12 the audit cannot be"
    " written; 13 the audit was altered; 14 the ledger of erasures was altered; 15 an erased person is not gone;"
    " 16 a model that was altered, or may not be loaded; 17 a model that is not better;"
    " 18 nothing that a model or a figure could be made of; 19 the plan is another one by now."
)

app = typer.Typer(
    help="Streaming hospital events, safely, on the real Kafka and the real Elasticsearch.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its tracebacks print local variables, and so patients
    add_completion=False,
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

infra.local.cli.register(app, lambda: prepare_home(), lambda: backlog())
producers.cli.register(app)
consumers.cli.register(app)


def prepare() -> None:
    """Make every topic and index that is missing: before a worker starts, since a missing topic stalls it."""
    create_topics(TopicSpec(topic.name, topic.partitions, topic.config()) for topic in TOPICS)
    for domain in DOMAINS.values():
        create_index(domain.alias, domain.index, domain.mapping(), domain.settings())
    create_index(similar.ALIAS, similar.index(similar.UNFITTED), similar.mapping())
    create_index(sites.ALIAS, sites.INDEX, sites.mapping())
    create_index(outcome_charts.ALIAS, outcome_charts.INDEX, outcome_charts.mapping())


def prepare_home() -> None:
    """Topics, indices, and an account for whoever owns the home."""
    prepare()
    if said := bootstrap():
        Console(stderr=True).print(said, highlight=False)


def backlog() -> dict[str, dict[str, float]]:
    """What no worker has finished, by domain. Raises StackDown."""
    found: dict[str, dict[str, float]] = {}
    for domain in DOMAINS.values():
        waiting = lag(domain.raw.name).values()
        oldest = max(one.oldest_seconds for one in waiting)
        found[domain.name] = {"events": sum(one.events for one in waiting), "oldest_seconds": round(oldest, 1)}
    return found


@app.command()
def setup(
    acls: Annotated[bool, typer.Option("--acls", help="Give our service identities their least rights first.")] = False,
) -> None:
    """Create missing topics and indices: once, on an external Kafka and Elasticsearch. `up` does it by itself."""
    if acls:
        create_acls(
            AclSpec(principal(identity), right.operation, right.resource, right.name, right.pattern)
            for identity, rights in identities(GROUP).items()
            for right in rights
        )
    prepare()


@app.command()
def worker() -> None:
    """Run the agents in this process: read, seal, index. Start as many as there are cores; ends with SIGTERM."""
    from streams.worker import run  # needs the broker's address when it is imported

    run()


@app.command()
def topics(as_json: Json = False) -> None:
    """Print every topic, the fields of the envelope, and every place where something is stored."""
    if as_json:
        rows = [
            {name: getattr(topic, name) for name in ("name", "key", "order", "schema", "partitions", "cleanup")}
            | {"retention_ms": topic.retention_ms}
            for topic in TOPICS
        ]
        stores = [{"name": store.name, "kind": store.kind, "holds": store.holds} for store in STORES]
        typer.echo(json.dumps({"topics": rows, "envelope": NAMES, "stores": stores}, indent=2))
        return
    console = Console()
    table = Table("topic", "key", "order of", "partitions", "kept", "cleanup", "schema", title="Topics")
    for topic in TOPICS:
        kept = "for ever" if topic.retention_ms < 0 else f"{topic.retention_ms // 86_400_000} days"
        table.add_row(topic.name, topic.key, topic.order, str(topic.partitions), kept, topic.cleanup, topic.schema)
    console.print(table)
    console.print("Envelope, as Kafka headers:", ", ".join(NAMES))
    table = Table("store", "kind", "holds", title="Everything that is stored")
    for store in STORES:
        table.add_row(store.name, store.kind, store.holds)
    console.print(table)


def main() -> None:
    try:
        app(prog_name="wardstream")
    except WardstreamError as error:
        Console(stderr=True).print(f"[red]error:[/red] {error} [dim]({error.reason})[/dim]", highlight=False)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
