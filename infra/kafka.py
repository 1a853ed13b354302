"""Kafka: the one producer of this process, the topics, and bounded reads.

Every message leaves through `Producer`: idempotent, acks=all, and partitioned by `murmur2_random`, which is what
Java clients and Faust agree on for a key. A send is done when the broker has confirmed it, not before.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import merge
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka import Producer as Librdkafka
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from infra.errors import NotTrusted, StackDown, WardstreamError
from infra.settings import Settings, settings

DELIVERY_SECONDS = 15.0
FLUSH_SECONDS = 2.0
METADATA_SECONDS = (2, 8)
SILENT_POLLS = 150  # of 0.2 s each
MAX_REQUEST_BYTES = 14_000_000
READ_AHEAD_KB = 16_384  # of a reader: one message of the largest, and some
GROUP = "wardstream"  # consumer group of the workers


# What a broker, or TLS, says to those whom it does not know or does not let do this.
REFUSALS = {
    KafkaError._AUTHENTICATION: "does not know this user, or not with this password",
    KafkaError.SASL_AUTHENTICATION_FAILED: "does not know this user, or not with this password",
    KafkaError._SSL: "and we have no TLS: one side does not trust the other's certificate",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "does not permit us this with the topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "does not permit us the consumer group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "does not permit us this with the cluster",
}


class PublishFailed(WardstreamError):
    """The broker did not confirm in time: nothing may be acknowledged."""

    exit_code = 3
    reason = "broker_unavailable"


class NotSent(PublishFailed):
    """Nothing was sent, since the broker counts as away; after any other failure it may have what was sent."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    topic: str
    key: bytes | None
    value: bytes | None  # None is a tombstone
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    partition: int | None = None  # None: by key


def connection(of: Settings) -> dict[str, Any]:
    """librdkafka's connection settings, for the embedded broker and for one with TLS and SASL alike."""
    config: dict[str, Any] = {
        "bootstrap.servers": of.kafka_servers(),
        "security.protocol": of.kafka_security_protocol,
        "reconnect.backoff.max.ms": 1000,
        "log_level": 3,
    }
    if not of.kafka:
        config["broker.address.family"] = "v4"  # the embedded broker's; ::1 would be tried first, in vain
    if of.kafka_security_protocol.startswith("SASL"):
        config |= {
            "sasl.mechanism": of.kafka_sasl_mechanism,
            "sasl.username": of.kafka_username,
            "sasl.password": of.kafka_password.get_secret_value(),
        }
    for option, path in (
        ("ssl.ca.location", of.kafka_ca),
        ("ssl.certificate.location", of.kafka_cert),
        ("ssl.key.location", of.kafka_key),
    ):
        if path is not None:
            config[option] = str(path)
    return config


def trouble(error: KafkaError) -> StackDown:
    """What a person should hear of an error: the broker is away, or it is there and refuses us."""
    if error.code() in REFUSALS:
        return NotTrusted(f"Kafka {REFUSALS[error.code()]} ({error.name()})")
    return StackDown(f"Kafka does not answer: {error.name()}")


def _metadata(*topic: str) -> Any:
    """All topics that we may see, or one. Raises StackDown where no broker answers, NotTrusted where one refuses us.

    A wrong password is a time-out for whoever asked; only the error callback hears why. So it is asked twice: who is
    refused need not wait as long as whose broker starts.
    """
    heard: list[KafkaError] = []
    admin = AdminClient(connection(settings()) | {"error_cb": heard.append})
    for seconds in METADATA_SECONDS:
        try:
            found = admin.list_topics(*topic, timeout=seconds)
            break
        except KafkaException as error:
            admin.poll(0)
            refused = next((one for one in heard if one.code() in REFUSALS), None)
            if refused is not None or seconds == METADATA_SECONDS[-1]:
                raise trouble(refused or error.args[0]) from None
    for one in found.topics.values():
        if one.error is not None and one.error.code() in REFUSALS:
            raise trouble(one.error)
    return found


class Producer:
    """Confirmed sends from asyncio or from plain code; one thread serves delivery reports."""

    def __init__(self, linger_ms: int = 2) -> None:
        self._config = connection(settings()) | {
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": linger_ms,
            "delivery.timeout.ms": int(DELIVERY_SECONDS * 1000),
            "message.max.bytes": MAX_REQUEST_BYTES,
            "queue.buffering.max.kbytes": 256_000,
            "error_cb": self._on_error,
        }
        self._serving: list[Any] = []  # the one in use last; before it, those that still owe delivery reports
        self._open()
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="kafka-delivery", daemon=True)
        self._thread.start()

    def _open(self) -> None:
        self._fatal = False
        self._librdkafka = Librdkafka(self._config)
        self._serving.append(self._librdkafka)

    async def send(self, messages: Iterable[Outgoing]) -> None:
        """Send in order and wait until the broker has confirmed all of them. Raises PublishFailed otherwise."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def finish(error: KafkaError | None) -> None:
            if not done.done():
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(PublishFailed(f"Kafka did not confirm: {error.name()}"))

        batch = list(messages)
        if not batch:
            return
        counter = _Counter(len(batch), lambda error: loop.call_soon_threadsafe(finish, error))
        for message in batch:
            while not self._produce(message, counter):  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # the local queue is full: the caller waits, and so its peer
        await done

    def send_now(self, messages: Iterable[Outgoing]) -> None:
        """`send` for code without an event loop."""
        batch = list(messages)
        if not batch:
            return
        done = threading.Event()
        errors: list[KafkaError | None] = []

        def finish(error: KafkaError | None) -> None:
            errors.append(error)
            done.set()

        counter = _Counter(len(batch), finish)
        for message in batch:
            while not self._produce(message, counter):
                time.sleep(0.01)
        done.wait()
        if errors[0] is not None:
            raise PublishFailed(f"Kafka did not confirm: {errors[0].name()}")

    def close(self) -> None:
        """Wait a little for what is under way; whoever needed its confirmation has waited for it already."""
        self._librdkafka.flush(FLUSH_SECONDS)
        self._closing = True
        self._thread.join()

    def _produce(self, message: Outgoing, counter: _Counter) -> bool:
        if self._fatal:
            self._open()  # an idempotent producer does not recover from a fatal error; a new one starts a new sequence
        place: dict[str, Any] = {} if message.partition is None else {"partition": message.partition}
        try:
            self._librdkafka.produce(
                message.topic,
                key=message.key,
                value=message.value,
                headers=list(message.headers),
                on_delivery=counter.report,
                **place,
            )
        except BufferError:
            return False
        except KafkaException as error:
            counter.report(error.args[0], None)
        return True

    def _serve(self) -> None:
        while not self._closing:
            for one in self._serving[:-1]:
                one.poll(0)
                if not len(one):
                    self._serving.remove(one)
            self._serving[-1].poll(0.1)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._FATAL:
            self._fatal = True


class _Counter:
    """Calls `finish` once: with the first error, or with None after the last confirmation."""

    def __init__(self, pending: int, finish: Any) -> None:
        self._pending, self._finish = pending, finish
        self._error: KafkaError | None = None

    def report(self, error: KafkaError | None, _: Message | None) -> None:
        self._error = self._error or error
        self._pending -= 1
        if self._pending == 0:
            self._finish(self._error)


def headers(message: Message) -> dict[str, bytes]:
    """Headers of a consumed message; a name without a value counts as empty."""
    given: Any = message.headers() or ()
    return {name: value or b"" for name, value in given}


@dataclass(frozen=True, slots=True)
class TopicSpec:
    name: str
    partitions: int
    config: dict[str, str]


def create_topics(specs: Iterable[TopicSpec]) -> list[str]:
    """Make the topics that are missing; gives their names. Raises StackDown where no broker answers or lets us."""
    existing = _metadata().topics
    admin = AdminClient(connection(settings()))
    missing = [spec for spec in specs if spec.name not in existing]
    replication = settings().kafka_replication
    # acks=all waits for as many as are in sync: with one of them, the promise would hang on that one disk.
    safe = {"min.insync.replicas": str(replication // 2 + 1)}
    new = [
        NewTopic(spec.name, num_partitions=spec.partitions, replication_factor=replication, config=spec.config | safe)
        for spec in missing
    ]
    for future in (admin.create_topics(new) if new else {}).values():
        try:
            future.result(timeout=30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another process was first
                raise trouble(error.args[0]) from None
    return [spec.name for spec in missing]


@dataclass(frozen=True, slots=True)
class AclSpec:
    """One permission, in Kafka's words."""

    principal: str
    operation: str
    resource: str
    name: str
    pattern: str


def create_acls(specs: Iterable[AclSpec]) -> None:
    """Permit these, from any host; those that are there already stay. Raises StackDown."""
    wanted = [
        AclBinding(spec.resource, spec.name, spec.pattern, spec.principal, "*", spec.operation, "ALLOW")
        for spec in specs
    ]
    admin = AdminClient(connection(settings()))  # held until it has answered
    asked = admin.create_acls(wanted, request_timeout=10)
    try:
        for future in asked.values():
            future.result(timeout=30)
    except KafkaException as error:
        raise trouble(error.args[0]) from None


def topic_settings(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Every setting of each topic as the broker has it. Raises StackDown where the broker or a topic is missing."""
    wanted = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    if not wanted:
        return {}
    admin = AdminClient(connection(settings()))  # held until it has answered: without it, every future fails
    asked = admin.describe_configs(wanted, request_timeout=10)
    try:
        return {
            resource.name: {name: entry.value for name, entry in future.result(timeout=30).items()}
            for resource, future in asked.items()
        }
    except KafkaException as error:
        raise trouble(error.args[0]) from None


def change_topics(changes: Mapping[str, Mapping[str, str]]) -> None:
    """Set these settings of these topics and leave their others alone. Raises StackDown."""
    wanted = [
        ConfigResource(
            ResourceType.TOPIC,
            topic,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in some.items()
            ],
        )
        for topic, some in changes.items()
    ]
    if not wanted:
        return
    admin = AdminClient(connection(settings()))  # held until it has answered
    asked = admin.incremental_alter_configs(wanted, request_timeout=10)
    try:
        for future in asked.values():
            future.result(timeout=30)
    except KafkaException as error:
        raise trouble(error.args[0]) from None


def partitions_of(topic: str) -> int:
    """Number of partitions. Raises StackDown where the broker or the topic is missing."""
    found = _metadata(topic).topics[topic]
    if not found.partitions:
        raise StackDown(f"there is no topic {topic}: run `wardstream up`")
    return len(found.partitions)


class Reader:
    """Reads a topic outside any consumer group: nothing is committed, nobody's position moves."""

    def __init__(self, topic: str, *, from_end: bool = False, only: int | None = None) -> None:
        """`only`: one partition; all without it."""
        self._topic = topic
        self._consumer = Consumer(
            connection(settings())
            | {
                "group.id": f"{GROUP}-reading",  # nobody joins it; the broker wants to see a right to it all the same
                "enable.auto.commit": False,
                "fetch.message.max.bytes": MAX_REQUEST_BYTES,
                "queued.max.messages.kbytes": READ_AHEAD_KB,
                "max.poll.interval.ms": 86_400_000,  # no group waits for us, and one partition may wait for others
                "fetch.wait.max.ms": 20,  # an idle fetch holds the connection: asking where a topic ends waits for it
            }
        )
        numbers = range(partitions_of(topic)) if only is None else (only,)
        partitions = [TopicPartition(topic, number) for number in numbers]
        self._ends = {p.partition: self._consumer.get_watermark_offsets(p, timeout=10) for p in partitions}
        self._starts = {number: high if from_end else low for number, (low, high) in self._ends.items()}
        for partition in partitions:
            partition.offset = self._ends[partition.partition][1] if from_end else OFFSET_BEGINNING
        self._consumer.assign(partitions)

    def until_end(self) -> Iterator[Message]:
        """Every message up to the ends as they were when the reader was made, and none after them."""
        return (one for one in self._taken() if (one.offset() or 0) < self._ends[one.partition() or 0][1])

    def to_end(self) -> Iterator[Message]:
        """What came since, up to the ends as they are now; and what comes in with it, which is not seen again."""
        for number in self._ends:
            self._ends[number] = self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), timeout=10)
        return self._taken()

    def _taken(self) -> Iterator[Message]:
        """All that is read until every partition is at its end."""
        ends = {number: high for number, (low, high) in self._ends.items() if high > low}
        silent = 0
        while True:
            # By position and not by the last message: a compacted or transactional topic may end in a hole.
            for place in self._consumer.position([TopicPartition(self._topic, number) for number in ends]):
                at = place.offset if place.offset >= 0 else self._starts[place.partition]  # nothing consumed yet
                if at >= ends[place.partition]:
                    del ends[place.partition]
            if not ends:
                return
            messages = self._consumer.consume(500, timeout=0.2)
            for message in messages:
                if (error := message.error()) is not None:
                    raise trouble(error)
                yield message
            silent = 0 if messages else silent + 1  # counted and not timed: whoever takes them may take his time
            if silent > SILENT_POLLS:
                raise StackDown("Kafka stopped answering while a topic was read")

    def poll(self, seconds: float) -> list[Message]:
        """What arrives within `seconds`."""
        return [message for message in self._consumer.consume(500, timeout=seconds) if message.error() is None]

    def close(self) -> None:
        self._consumer.close()


class OrderedReader:
    """Reads a topic outside any group, its partitions as one, in the order in which messages were written to it."""

    def __init__(self, topic: str) -> None:
        self._readers = [Reader(topic, only=number) for number in range(partitions_of(topic))]

    def to_end(self) -> Iterator[Message]:
        """As Reader's. Each partition keeps its own order whatever its timestamps are."""
        return merge(*[one.to_end() for one in self._readers], key=lambda message: message.timestamp()[1])

    def close(self) -> None:
        for one in self._readers:
            one.close()


def read_whole(topic: str) -> Iterator[Message]:
    """Every message of a topic up to its present ends."""
    reader = Reader(topic)
    try:
        yield from reader.until_end()
    finally:
        reader.close()


@dataclass(frozen=True, slots=True)
class Lag:
    """What of a partition the workers have not finished: how many events, and how long the oldest has waited."""

    committed: int  # next offset to be finished
    end: int
    oldest_seconds: float

    @property
    def events(self) -> int:
        return self.end - self.committed


def lag(topic: str) -> dict[int, Lag]:
    """By partition. Raises StackDown where the broker or the topic is missing."""
    places = [TopicPartition(topic, number) for number in range(partitions_of(topic))]
    consumer = Consumer(connection(settings()) | {"group.id": GROUP, "enable.auto.commit": False})
    try:
        found: dict[int, Lag] = {}
        waiting: dict[int, TopicPartition] = {}
        for place in consumer.committed(places, timeout=10):
            low, end = consumer.get_watermark_offsets(TopicPartition(topic, place.partition), timeout=10)
            committed = min(max(place.offset, low), end)
            found[place.partition] = Lag(committed, end, 0.0)
            if committed < end:
                waiting[place.partition] = TopicPartition(topic, place.partition, committed)
        consumer.assign(list(waiting.values()))
        deadline = time.monotonic() + 5
        while waiting and time.monotonic() < deadline:
            for message in consumer.consume(1, timeout=0.2):
                number = message.partition()
                if message.error() is None and number in waiting:
                    waiting_for = max(0.0, time.time() - message.timestamp()[1] / 1000)
                    found[number] = Lag(found[number].committed, found[number].end, waiting_for)
                    consumer.incremental_unassign([waiting.pop(number)])
        return found
    except KafkaException as error:
        raise StackDown(f"Kafka does not answer: {error.args[0].name()}") from None
    finally:
        consumer.close()
