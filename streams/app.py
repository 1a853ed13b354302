"""The only Faust app. Importing it needs the broker's address, so only a worker does.

Every setting below answers a way in which Faust's defaults lose or stall messages; ARCHITECTURE.md has the table.
"""

from __future__ import annotations

import logging
import ssl
from typing import Any

import mode.loop

mode.loop.use("uvloop")  # before faust is imported: it makes its loop then

import faust  # noqa: E402
from faust.transport.drivers import aiokafka  # noqa: E402
from faust.types.auth import CredentialsT  # noqa: E402

from infra.kafka import GROUP  # noqa: E402
from infra.settings import settings  # noqa: E402

BUFFERED = 64  # messages between Faust's fetcher and our batches, whatever they weigh
OUTAGE_SECONDS = 3600.0  # an index outage up to this is ridden out without losing the partition


class _Consumer(aiokafka.Consumer):
    """Faust's own without two ways of losing messages at a rebalance; streams/gapless.py watches for others."""

    async def seek_to_committed(self) -> Any:
        """Go back where nothing was committed yet as well, and on where retention has deleted what was committed.

        aiokafka seeks only where there is a commit (`if offset and offset > 0`); elsewhere it would go on behind what
        Faust has just thrown out of its buffers. Behind the earliest offset, Faust would wait for ever for those
        between, and commit nothing.
        """
        committed = await super().seek_to_committed()
        earliest = await self.earliest_offsets(*committed)
        behind = {place: first for place, first in earliest.items() if (committed[place] or 0) <= first}
        if behind:
            await self.seek_wait(behind)
        return {**committed, **behind}

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        """Offsets that did not come do not count as acknowledged; nor does `offset_to`, which is on its way."""


aiokafka.Transport.Consumer = _Consumer


def _credentials() -> CredentialsT | None:
    of = settings()
    context: ssl.SSLContext | None = None
    if of.kafka_security_protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=str(of.kafka_ca) if of.kafka_ca else None)
        if of.kafka_cert is not None:
            context.load_cert_chain(of.kafka_cert, of.kafka_key)
    if of.kafka_security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=of.kafka_username,
            password=of.kafka_password.get_secret_value(),
            mechanism=of.kafka_sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None


def _app() -> Any:
    datadir = settings().home / "faust"
    datadir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return faust.App(
        GROUP,
        broker=[f"kafka://{server}" for server in settings().kafka_servers().split(",")],
        broker_credentials=_credentials(),
        datadir=str(datadir),
        autodiscover=False,
        key_serializer="raw",
        value_serializer="raw",
        topic_allow_declare=False,  # all topics exist before a worker starts; a missing one went unnoticed for 45 s
        topic_disable_leader=True,
        stream_wait_empty=False,
        stream_buffer_maxsize=BUFFERED,
        web_enabled=False,  # its web server shows table data
        broker_session_timeout=10,
        broker_heartbeat_interval=2,
        broker_request_timeout=30,
        broker_max_poll_interval=OUTAGE_SECONDS,
        broker_commit_interval=0.5,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=4 * 1024 * 1024,
        producer_acks=-1,
        producer_request_timeout=30,
        logging_config=None,
    )


logging.getLogger("faust").setLevel(logging.WARNING)
app = _app()
