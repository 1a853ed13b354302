"""`produce`, `send` and `simulate`."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import signal
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, NoReturn, Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from infra import runtime, tls
from infra.errors import BadMessage, UsageError
from infra.health import health
from infra.kafka import Producer, partitions_of
from infra.keystore import KeyStore
from infra.settings import settings
from producers import ehr, fhir, operations
from producers.feeds import folder
from producers.feeds import http as http_feed
from producers.feeds import mllp as mllp_feed
from producers.feeds import operations as operations_feed
from producers.outcomes import Outcome, Outcomes
from producers.publish import Arrival, Publisher, Receipt
from producers.seen import Seen
from producers.simulate import cases as simulated
from producers.simulate import trial
from producers.simulate.cohort import Cohort
from producers.simulate.hospital import Hospital, SimulatedMessage
from producers.simulate.mllp_client import UNASKED, Answer, Sendable, Sent, send
from producers.simulate.operations import Days, Told
from schemas.peers import Peers
from schemas.registry import DOMAINS, Domain
from schemas.wire.fhir import Focus
from schemas.wire.operations import TYPES
from streams.allocation.policies import POLICIES

if TYPE_CHECKING:
    from streams.allocation.compare import Interval

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Host = Annotated[str, typer.Option(help="Address to listen on; loopback unless you say otherwise.")]
To = Annotated[str, typer.Option(help="Address of the listener.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0 takes a free one.")]
Ca = Annotated[Path | None, typer.Option("--tls-ca", help="PEM file of the listener's authority: speak TLS.")]
Cert = Annotated[Path | None, typer.Option("--tls-cert", help="PEM file of our own certificate (mutual TLS).")]
Key = Annotated[Path | None, typer.Option("--tls-key", help="PEM file of its key.")]
Clear = Annotated[
    bool, typer.Option("--clear", help="Listen beyond loopback without TLS: whoever is on the way reads along.")
]
Source = Annotated[str, typer.Option(help="What the system that sends FHIR is called here, as in the peers' file.")]
PATIENCE_SECONDS = 60.0
WINDOW = 10_000  # messages whose outcomes are waited for together
NAMED = 20  # skipped files


class Serving(Protocol):
    async def serve(self, host: str, port: int, ready: Callable[[int], None], stop: asyncio.Event) -> None: ...


def register(app: typer.Typer) -> None:
    produce = typer.Typer(help="Feeds: take messages in, seal them, publish them.", no_args_is_help=True)
    app.add_typer(produce, name="produce")

    @produce.command()
    def mllp(
        port: Port = 2575,
        host: Host = "127.0.0.1",
        original: Annotated[
            bool, typer.Option("--original", help="Always answer once, with AA, AE or AR, whatever MSH-15/16 say.")
        ] = False,
        clear: Clear = False,
    ) -> None:
        """Listen for HL7 v2 over MLLP until Ctrl-C. AA means: durably accepted.

        Over TLS where WARDSTREAM_TLS_CERT is set.
        """

        def listener(publisher: Publisher, peers: Peers) -> mllp_feed.Listener:
            return mllp_feed.Listener(publisher, partial(_hl7, peers), original=original)

        runtime.run(_listen("MLLP", host, port, listener, clear))

    @produce.command("fhir")
    def produce_fhir(
        port: Port = 8090,
        host: Host = "127.0.0.1",
        source: Source = "fhir",
        clear: Clear = False,
    ) -> None:
        """Listen for FHIR R4 over HTTP until Ctrl-C: bundles and single resources. 2xx means: durably accepted.

        Over TLS where WARDSTREAM_TLS_CERT is set.
        """
        _check_source(source)

        def listener(publisher: Publisher, peers: Peers) -> http_feed.Listener:
            return http_feed.Listener(publisher, partial(_fhir, peers, source))

        runtime.run(_listen("FHIR", host, port, listener, clear))

    @produce.command("dicom")
    def produce_dicom(
        port: Port = 11112,
        host: Host = "127.0.0.1",
        aet: Annotated[str, typer.Option(help="AE title that peers must call; * answers to any.")] = "WARDSTREAM",
        clear: Clear = False,
    ) -> None:
        """Listen as a DICOM node until Ctrl-C: C-ECHO, C-STORE, storage commitment. 0000H means: durably accepted.

        Over TLS where WARDSTREAM_TLS_CERT is set. WARDSTREAM_DICOM_CALLING says who may associate; beyond loopback it
        must, unless every client shows a certificate.
        """
        from producers import imaging
        from producers.feeds import dicom as dicom_feed  # pydicom: a third of a second that other commands are spared

        if not re.fullmatch(r"[ -\[\]-~]{1,16}", aet):
            raise UsageError("--aet takes up to 16 printed characters without a backslash")  # PS3.5 6.2, AE
        clients = dicom_feed.Clients.of(settings().dicom_calling, host)

        def node(publisher: Publisher, peers: Peers) -> dicom_feed.Node:
            return dicom_feed.Node(partial(imaging.local, publisher, peers), aet, clients)

        runtime.run(_listen("DICOM", host, port, node, clear, linger_ms=0))

    @produce.command("files")
    def produce_files(
        paths: Annotated[
            list[Path], typer.Argument(help="Files, folders of .hl7, .json, .ndjson (.gz too), DICOM; a DICOMDIR.")
        ],
        manifest: Annotated[Path | None, typer.Option(help="Write one JSON line a message: what became of it.")] = None,
        source: Source = "fhir",
        as_json: Json = False,
    ) -> None:
        """Publish files of HL7 v2, FHIR R4 (JSON, NDJSON, also in gzip) or DICOM, and wait for the outcome of each.

        A file that is named and cannot be read is a row `refused`. A folder's files of other endings are named as
        skipped.
        Exit code 0 only when each was indexed or is a repeat.
        """
        _check_source(source)
        found = folder.files(paths)

        domains, opened, refused = [DOMAINS[ehr.DOMAIN]], _as_it_is, list[folder.Item]()
        dicom: Callable[[Any, Path], Iterator[folder.Item]] = lambda _, path: folder.no_dicom(path)  # noqa: E731
        if any(map(folder.is_dicom, found)):
            from producers import imaging  # pydicom: a third of a second that others are spared
            from producers.feeds import dicom_files

            domains, opened, dicom = [*domains, DOMAINS[imaging.DOMAIN]], imaging.local, dicom_files.items
            found, refused = dicom_files.expand(found)

        def items(peers: Peers, sink: folder.Publishes) -> Iterator[folder.Item]:
            readers = folder.Readers(partial(_hl7, peers), partial(_fhir, peers, source), partial(dicom, sink))
            return chain(folder.items(found, readers), refused)

        _tell_outcomes(_produce(domains, items, manifest, opened), folder.skipped(paths), as_json)

    @produce.command("operations")
    def produce_operations(
        paths: Annotated[
            list[Path] | None, typer.Argument(help="Files, or folders of .json, .ndjson and .csv files.")
        ] = None,
        site: Annotated[str, typer.Option(help="The site of events that name none.")] = "",
        kind: Annotated[str, typer.Option("--type", help="The type of events that name none, such as price.")] = "",
        port: Annotated[
            int | None, typer.Option(min=0, max=65535, help="Listen over HTTP instead, until Ctrl-C; 0: a free port.")
        ] = None,
        host: Host = "127.0.0.1",
        manifest: Annotated[Path | None, typer.Option(help="Write one JSON line an event: what became of it.")] = None,
        source: Annotated[str, typer.Option(help="What the system that sends them is called here.")] = "operations",
        clear: Clear = False,
        as_json: Json = False,
    ) -> None:
        """Publish events of beds, staff, equipment, prices and requests (docs/operations.md), of cases and what became
        of them (docs/quality.md), and wait for the outcome.

        Exit code 0 only when each was indexed or is a repeat. With --port: POST / takes an event, or an array of them.
        """
        _check_source(source)
        if (paths is None) == (port is None):
            raise UsageError("name files, or a --port to listen on")
        if kind and kind not in TYPES:
            raise UsageError(f"--type is one of {', '.join(TYPES)}")
        defaults = {name: value for name, value in (("site", site), ("type", kind)) if value}
        take = partial(_operation, source, defaults)
        if port is not None:
            runtime.run(
                _listen(
                    "operations",
                    host,
                    port,
                    lambda publisher, _: operations_feed.Listener(publisher, take),
                    clear,
                )
            )
            return
        found = folder.files(paths or (), operations.ENDINGS)
        outcomes = _produce(
            [DOMAINS[one] for one in operations.DOMAINS], lambda *_: operations.items(found, take), manifest
        )
        _tell_outcomes(outcomes, folder.skipped(paths or (), operations.ENDINGS), as_json)

    @app.command("send")
    def send_files(
        paths: Annotated[list[Path], typer.Argument(help="Files, or folders of .hl7 files.")],
        port: Port = 2575,
        host: To = "127.0.0.1",
        ca: Ca = None,
        cert: Cert = None,
        key: Key = None,
        as_json: Json = False,
    ) -> None:
        """Send HL7 v2 files to an MLLP listener, as a sending system would."""
        found = list(folder.messages(folder.files(paths, folder.HL7)))
        bodies = Counter(message.body for message in found)
        repeats = len(found) - len(bodies)
        _deliver(found, len(found), host, port, 0, repeats, as_json, tls.client_context(ca, cert, key), attempts=3)

    @app.command()
    def simulate(
        patients: Annotated[int, typer.Option(min=1, help="People who come to the hospital.")] = 200,
        rate: Annotated[float, typer.Option(min=0, help="Messages a second; 0 for as fast as answers come.")] = 200,
        seed: Annotated[int, typer.Option(help="The same seed tells the same story.")] = 7,
        port: Port = 2575,
        host: To = "127.0.0.1",
        ca: Ca = None,
        cert: Cert = None,
        key: Key = None,
        longitudinal: Annotated[
            bool, typer.Option("--longitudinal", help="Two years of stays with outcomes, up to today, instead.")
        ] = False,
        truth: Annotated[
            Path | None,
            typer.Option(help="With --longitudinal or --cases: write the chance of each outcome, a JSON line each."),
        ] = None,
        out: Annotated[
            Path | None, typer.Option(help="Write the messages to this .hl7 file (cases: .ndjson), and send none.")
        ] = None,
        hospital: Annotated[
            str, typer.Option(help="small or large: the beds, staff and patients of one for --days, instead.")
        ] = "",
        days: Annotated[
            int | None,
            typer.Option(min=1, max=3660, help="With --hospital (28) or --cases (730): until last midnight."),
        ] = None,
        operations: Annotated[
            Path | None, typer.Option(help="With --hospital: write operations events here, a JSON line each.")
        ] = None,
        policy: Annotated[
            str, typer.Option(help="With --hospital: send nothing, try fcfs, greedy or plan beside those before it.")
        ] = "",
        seeds: Annotated[int, typer.Option(min=2, help="With --policy: runs of each, from --seed on.")] = 20,
        jobs: Annotated[int, typer.Option(min=1, help="With --policy: processes.")] = os.cpu_count() or 1,
        cases: Annotated[
            int, typer.Option(min=0, help="So many cases with outcomes, as operations events, into --out instead.")
        ] = 0,
        units: Annotated[str, typer.Option(help="With --cases: their units.")] = ",".join(simulated.UNITS),
        worse: Annotated[
            str, typer.Option(help="With --cases: UNIT:DAY:ODDS_RATIO, a unit where more die from a day on.")
        ] = "",
        corrections: Annotated[
            float, typer.Option(min=0, max=1, help="With --cases: the share that is corrected later.")
        ] = 0,
        repeats: Annotated[
            float, typer.Option(min=0, max=1, help="With --cases: the share of events that is told twice.")
        ] = 0,
        as_json: Json = False,
    ) -> None:
        """Simulate a hospital over MLLP: ADT, ORU, ORM, MDM, SIU; some late, repeated, cancelled or merged."""
        if truth is not None and not longitudinal and not cases:
            raise UsageError("--truth goes with --longitudinal or --cases")
        if (worse or corrections or repeats) and not cases:
            raise UsageError("--worse, --corrections and --repeats go with --cases")
        if cases:
            if out is None:
                raise UsageError("--cases wants --out: publish the file by `produce operations`")
            _write_cases(cases, seed, units, days or 730, (worse, corrections, repeats), out, truth, as_json)
            return
        days = days or 28
        if (operations is not None or policy) and not hospital:
            raise UsageError("--operations and --policy go with --hospital")
        if policy:
            _try_policy(hospital, policy, range(seed, seed + seeds), days, jobs, as_json)
            return
        if hospital:
            told = Days(hospital, seed, days, datetime.now(UTC).date()).tell(POLICIES["greedy"]())
            with operations.open("w") if operations else nullcontext() as rows:
                messages = _messages(told, rows)
                if out is not None:
                    _write(out, messages, as_json)
                else:
                    _deliver(messages, None, host, port, rate, 0, as_json, tls.client_context(ca, cert, key))
            return
        if longitudinal:
            # Up to midnight, so that the same command on the same day tells the same story.
            midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            story = Cohort(seed, patients, midnight).tell()
            events = story.messages
            if truth is not None:
                truth.write_text("".join(json.dumps(one.line()) + "\n" for one in story.truths))
        else:
            events = list(Hospital(seed, patients, datetime.now(UTC)).events())
        if out is not None:
            _write(out, events, as_json)
            return
        repeats = sum(event.fate == "repeat" for event in events)
        _deliver(events, len(events), host, port, rate, repeats, as_json, tls.client_context(ca, cert, key))


def _check_source(name: str) -> None:
    """It stands in every event's envelope and in every document."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise UsageError("--source takes up to 64 letters, digits, dots, dashes and underscores")


@asynccontextmanager
async def _publisher(linger_ms: int = 2) -> AsyncIterator[tuple[Publisher, Peers]]:
    partitions_of(DOMAINS[ehr.DOMAIN].raw.name)  # says plainly when there is no broker or no topic
    keyring, keys = KeyStore.local()
    keys.join("feed")
    seen = Seen(settings().home / "seen.sqlite")
    producer = Producer(linger_ms)
    peers = Peers.load(settings().peers)
    try:
        async with Publisher(producer, keyring, keys, seen) as publisher:
            yield publisher, peers
    finally:
        producer.close()
        seen.close()


def _hl7(peers: Peers, raw: bytes, received_at: datetime, refused: BadMessage | None) -> Arrival:
    return ehr.arrival(raw, peers, received_at, refused)


def _fhir(peers: Peers, name: str, focus: Focus, received_at: datetime) -> Arrival:
    return fhir.arrival(focus, name, peers, received_at)


def _operation(name: str, defaults: Mapping[str, str], said: Mapping[str, Any], received_at: datetime) -> Arrival:
    return operations.arrival(said, name, defaults, received_at)


async def _listen(
    what: str, host: str, port: int, listener: Callable[[Publisher, Peers], Serving], clear: bool, linger_ms: int = 2
) -> None:
    """`linger_ms`: how long an event may wait for others, where each sender waits for its answer before the next: 0."""
    if not (tls.files(settings()) or tls.loopback(host) or clear):
        raise UsageError(f"{host} is not loopback and no WARDSTREAM_TLS_CERT is set; --clear if it must be")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, stop.set)
    console = Console(stderr=True)

    def ready(at: int) -> None:
        console.print(f"{what} on {host}:{at}; metrics on 127.0.0.1:{metrics_port}; Ctrl-C stops", highlight=False)

    async with _publisher(linger_ms) as (publisher, peers):
        health.ready["broker"] = lambda: "Kafka counts as away" if publisher.broker.open else ""
        health.ready["room"] = lambda: "too much is waiting" if publisher.full else ""
        metrics_port = health.serve()
        watch = asyncio.create_task(health.watch_loop())
        health.watchdog()
        try:
            await listener(publisher, peers).serve(host, port, ready, stop)
        except OSError as error:
            raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}") from None
        finally:
            watch.cancel()


def _as_it_is(publisher: Publisher, peers: Peers) -> AbstractContextManager[folder.Publishes]:
    return nullcontext(publisher)


def _produce(
    domains: Sequence[Domain],
    found: Callable[[Peers, folder.Publishes], Iterator[folder.Item]],
    manifest: Path | None,
    opened: Callable[[Publisher, Peers], AbstractContextManager[folder.Publishes]] = _as_it_is,
) -> Counter[tuple[str, str]]:
    """Publish a window, wait for what becomes of it, write its rows, go on; counts by outcome and reason.

    `opened` makes of the publisher one that takes what `found` gives.
    """
    watch = Outcomes(*domains)
    counts: Counter[tuple[str, str]] = Counter()

    async def run(rows: IO[str] | None, advance: Callable[[int], None]) -> None:
        async with _publisher() as (publisher, peers):
            with opened(publisher, peers) as sink:
                items = found(peers, sink)
                while published := await folder.publish(sink, islice(items, WINDOW)):
                    waiting = {
                        one.end.event_id
                        for one in published
                        if isinstance(one.end, Receipt) and not one.end.duplicate and not one.end.reason
                    }
                    advance(len(published) - len(waiting))
                    ended = await asyncio.to_thread(watch.wait, waiting, PATIENCE_SECONDS, advance)
                    for one in published:
                        row = _row(one, ended)
                        counts[row["outcome"], row["reason"]] += 1
                        if rows is not None:
                            rows.write(json.dumps(row) + "\n")

    try:
        with _bar("messages", None) as advance, manifest.open("w") if manifest else nullcontext() as rows:
            asyncio.run(run(rows, advance))
    finally:
        watch.close()
    return counts


def _row(one: folder.Published, ended: dict[str, Outcome]) -> dict[str, Any]:
    """One line of a manifest."""
    end = one.end
    if isinstance(end, BadMessage):
        outcome = Outcome("refused", end.reason, end.where)
    elif end.duplicate:
        outcome = Outcome("duplicate", end.reason, end.where)
    elif end.reason:
        outcome = Outcome("dead_lettered", end.reason, end.where)
    else:
        outcome = ended[end.event_id]
    return {
        "file": str(one.file),
        "position": one.position,
        "message_type": one.kind,
        "outcome": outcome.name,
        "reason": outcome.reason,
        "where": outcome.where,
        "event_id": end.event_id if isinstance(end, Receipt) else "",
    }


def _tell_outcomes(outcomes: Counter[tuple[str, str]], left: Sequence[Path], as_json: bool) -> NoReturn:
    """Exit code 0 only when each was indexed or is a repeat. `left` are files that were not read."""
    skipped = [str(one) for one in left]
    if as_json:
        typer.echo(json.dumps({"messages": outcomes.total(), "outcomes": _by_name(outcomes), "skipped": skipped}))
    else:
        _show_outcomes(outcomes)
        if skipped:
            more = ", ..." if len(skipped) > NAMED else ""
            typer.echo(f"{len(skipped):,} files of other endings not read: {', '.join(skipped[:NAMED])}{more}")
    raise typer.Exit(0 if {name for name, _ in outcomes} <= {"indexed", "duplicate"} else 1)


def _by_name(outcomes: Counter[tuple[str, str]]) -> dict[str, int]:
    named: Counter[str] = Counter()
    for (name, reason), count in sorted(outcomes.items()):
        named[f"{name}:{reason}" if reason else name] += count
    return dict(named)


def _show_outcomes(outcomes: Counter[tuple[str, str]]) -> None:
    table = Table("outcome", "reason", "messages")
    for (name, reason), count in sorted(outcomes.items()):
        table.add_row(name, reason, str(count))
    Console().print(table)


def _write(out: Path, events: Iterable[SimulatedMessage], as_json: bool) -> None:
    written = 0
    with out.open("wb") as file:
        for written, event in enumerate(events, 1):  # noqa: B007 - its last value is the count
            file.write(event.body)
    typer.echo(json.dumps({"written": written}) if as_json else f"{written:,} messages in {out}")


def _write_cases(
    n: int,
    seed: int,
    units: str,
    days: int,
    odd: tuple[str, float, float],
    out: Path,
    truth: Path | None,
    as_json: bool,
) -> None:
    """Cases of the last days, up to last midnight: what comes later has not been told."""
    until = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    since, wards = until - timedelta(days=days), [one.strip() for one in units.split(",") if one.strip()]
    if not wards:
        raise UsageError("--units takes at least one unit")
    worse = _worse(odd[0], wards, since)
    drawn = simulated.draw(n, seed, wards, since, days, worse, *odd[1:])
    written = 0
    with out.open("w") as file:
        for event in simulated.in_order(drawn):
            if datetime.fromisoformat(event["at"]) <= until:
                file.write(json.dumps(event, ensure_ascii=False) + "\n")
                written += 1
    if truth is not None:
        truth.write_text("".join(json.dumps(line) + "\n" for one in drawn for line in one.lines()))
    typer.echo(
        json.dumps({"cases": n, "written": written}) if as_json else f"{written:,} events of {n:,} cases in {out}"
    )


def _worse(said: str, units: Sequence[str], since: datetime) -> simulated.Worse | None:
    if not said:
        return None
    unit, _, rest = said.partition(":")
    try:
        day, ratio = rest.split(":")
        made = simulated.Worse(unit, since + timedelta(days=int(day)), float(ratio))
    except (ValueError, OverflowError):
        raise UsageError("--worse is UNIT:DAY:ODDS_RATIO, such as CARD:365:2.0") from None
    if unit not in units or not 0 < made.odds_ratio < math.inf:
        raise UsageError("--worse names one of the units, and an odds ratio above 0")
    return made


def _messages(story: Iterable[Told], rows: IO[str] | None) -> Iterator[SimulatedMessage]:
    """ADT messages; operations events go to the file on the way."""
    for one in story:
        if isinstance(one, SimulatedMessage):
            yield one
        elif rows is not None:
            rows.write(json.dumps(one.body, ensure_ascii=False) + "\n")


def _try_policy(hospital: str, policy: str, seeds: range, days: int, jobs: int, as_json: bool) -> None:
    """Figures of each policy over the seeds, and of the first the paired difference to each of the others."""
    from streams.allocation.compare import compare

    policies = trial.beside(policy)
    with _bar("runs", len(policies) * len(seeds)) as advance:
        lines = compare(trial.trials(hospital, policies, seeds, days, jobs, advance))
    if as_json:
        head = {"hospital": hospital, "days": days, "seeds": len(seeds), "policies": policies}
        typer.echo(json.dumps(head | {"measures": {line.measure: line.as_dict() for line in lines}}))
        return
    versus = [f"{policy} less {other}" for other in policies[1:]]
    table = Table("measure", *policies, *versus, title=f"{hospital}: {len(seeds)} seeds of {days} days, 95% intervals")
    for line in lines:
        table.add_row(
            line.measure, *(f"{one.mean:,.4g}" for one in line.means.values()), *map(_spread, line.differences.values())
        )
    Console().print(table)


def _spread(one: Interval) -> str:
    return f"{one.mean:,.4g} [{one.low:,.4g}, {one.high:,.4g}]"


def _deliver(
    found: Iterable[Sendable],
    total: int | None,
    host: str,
    port: int,
    rate: float,
    repeats: int,
    as_json: bool,
    context: ssl.SSLContext | None,
    attempts: int = 8,
) -> None:
    """Send over MLLP, show progress, tell the answers. Exit code 0 only when each was acknowledged."""
    answers: Counter[str] = Counter()
    with _bar("sending", total) as advance:

        def note(_: Sendable, answer: Answer | None) -> None:
            answers[answer.code if answer else "none"] += 1
            advance(1)

        sent: Sent = asyncio.run(send(found, host, port, rate, on_answer=note, attempts=attempts, tls=context))
    seen = sorted(sent.latencies)
    figures = {
        "sent": sent.sent,
        "answers": dict(answers),
        "repeats": repeats,
        "resent": sent.resent,
        "seconds": round(sent.seconds, 3),
        "answer_p50_seconds": round(seen[len(seen) // 2], 4) if seen else None,
        "answer_p99_seconds": round(seen[int(len(seen) * 0.99)], 4) if seen else None,
    }
    if as_json:
        typer.echo(json.dumps(figures))
    else:
        table = Table("figure", "value")
        for name, value in figures.items():
            table.add_row(name, str(value))
        Console().print(table)
    raise typer.Exit(0 if set(answers) <= {"AA", "CA", UNASKED} else 1)


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.advance(task, done)
