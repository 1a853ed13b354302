"""TLS of our listeners: one socket a listener, and certificates that change beneath it without a connection lost.

The listening socket stays open for a listener's whole life, and so does its queue of callers: what changes is which
context greets them. Connections that are open keep theirs until they end.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509

from infra import metrics
from infra.errors import UsageError
from infra.settings import Settings, settings

LOOK_SECONDS = 1.0
HANDSHAKE_SECONDS = 10.0
SHUTDOWN_SECONDS = 2.0  # a peer that does not say goodbye is left
QUEUE = 100  # callers that wait to be greeted

# Why a handshake failed, by OpenSSL's own word for it.
FAILURES = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_certificate",
    "CERTIFICATE_VERIFY_FAILED": "bad_certificate",
    "HTTP_REQUEST": "not_tls",
    "WRONG_VERSION_NUMBER": "not_tls",
    "RECORD_LAYER_FAILURE": "not_tls",
    "UNSUPPORTED_PROTOCOL": "version",
    "NO_SHARED_CIPHER": "version",
}

Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Protocols = Callable[[], asyncio.BaseProtocol]
Stamp = tuple[tuple[int, int, int], ...]


def loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def files(of: Settings) -> list[Path]:
    """Certificate, key, authority of the clients: those that are set, and none where a listener speaks in clear."""
    if of.tls_cert is None and (of.tls_key or of.tls_client_ca):
        raise UsageError("WARDSTREAM_TLS_KEY or _CLIENT_CA without WARDSTREAM_TLS_CERT: nothing would be encrypted")
    return [path for path in (of.tls_cert, of.tls_key, of.tls_client_ca) if path is not None]


def server_context(of: Settings, feed: str) -> tuple[ssl.SSLContext, float]:
    """A context of the files as they are now, and when its certificate ends, in Unix seconds.

    A fresh one each time: a session of an old context must not be resumed past a new list of authorities.
    Raises OSError, of which ssl.SSLError is one, or ValueError where the files are not what they should be.
    """
    assert of.tls_cert is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(of.tls_cert, of.tls_key, password="")  # or OpenSSL asks the terminal for one
    if of.tls_client_ca is not None:
        context.load_verify_locations(of.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    context.sslobject_class = _counted(feed)
    ends = x509.load_pem_x509_certificate(of.tls_cert.read_bytes()).not_valid_after_utc
    return context, ends.timestamp()


def client_context(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """What a client trusts and shows; None, and so in clear, where it is given neither."""
    if ca is None and cert is None:
        if key is not None:
            raise UsageError("a TLS key without its certificate")
        return None
    try:
        context = ssl.create_default_context(cafile=ca)
        if cert is not None:
            context.load_cert_chain(cert, key, password="")
    except OSError as error:
        raise UsageError(f"cannot use the TLS files: {_why(error)}") from None
    return context


def streams(connected: Connected, limit: int = 1 << 16) -> Protocols:
    """A connection as a pair of streams, as asyncio.start_server makes it; `limit` bytes are read ahead, or twice."""

    def made() -> asyncio.BaseProtocol:
        loop = asyncio.get_running_loop()
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(limit, loop=loop), connected, loop=loop)

    return made


@asynccontextmanager
async def serving(feed: str, protocols: Protocols, host: str, port: int) -> AsyncIterator[int]:
    """Take connections while it lasts, over TLS where a certificate is set; gives the port. Connections outlive it.

    For uvloop: a server of asyncio's own, closed, drops a connection that it has accepted in that instant.
    """
    of = settings()
    with _listening(host, port) as listening:
        if not files(of):
            server = await _greet(listening, protocols, None)
            try:
                yield int(listening.getsockname()[1])
            finally:
                server.close()
            return
        seen = _stamp(of)
        try:
            context, ends = server_context(of, feed)
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot use the files of WARDSTREAM_TLS_*: {_why(error)}") from None
        metrics.CERTIFICATE_EXPIRY.labels(feed).set(ends)
        server = await _greet(listening, protocols, context)
        reloading = asyncio.create_task(_reload(of, feed, seen, server, listening, protocols))
        try:
            yield int(listening.getsockname()[1])
        finally:
            reloading.cancel()
            await asyncio.wait([reloading])


async def _reload(
    of: Settings, feed: str, shown: Stamp, server: asyncio.Server, listening: socket.socket, protocols: Protocols
) -> None:
    """Look at the files; where they changed, greet with them, and until that is possible, with the old.

    It is told once and tried at every look: a file may be half written, and a process may be out of descriptors.
    """
    told = shown
    try:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = _stamp(of)  # before they are read: a change in between is seen at the next look
            if now == shown:
                continue
            try:
                context, ends = server_context(of, feed)
                old, server = server, await _greet(listening, protocols, context)
            except (OSError, ValueError) as error:
                if now != told:
                    logging.error("%s: new TLS files are not usable, the old certificate stays: %s", feed, _why(error))
                told = now
                continue
            old.close()
            shown = now
            metrics.CERTIFICATE_EXPIRY.labels(feed).set(ends)
            logging.warning("%s: TLS files changed, new connections get the new certificate", feed)
    finally:
        server.close()


async def _greet(listening: socket.socket, protocols: Protocols, context: ssl.SSLContext | None) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(
        protocols,
        sock=listening.dup(),
        ssl=context,
        backlog=QUEUE,
        ssl_handshake_timeout=HANDSHAKE_SECONDS if context else None,
        ssl_shutdown_timeout=SHUTDOWN_SECONDS if context else None,
    )


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family, _, _, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    with socket.create_server((str(address[0]), port), family=family, backlog=QUEUE) as listening:
        yield listening


def _stamp(of: Settings) -> Stamp:
    """Differs when a file was written or another was put in its place; a missing one is all zeros."""
    return tuple(_file_stamp(path) for path in files(of))


def _file_stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return found.st_mtime_ns, found.st_ino, found.st_size


def _why(error: Exception) -> str:
    """OpenSSL's or the system's own word for it, and nothing of what stands in the files."""
    if isinstance(error, ssl.SSLError):
        return error.reason or "not PEM"
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


def failure(error: ssl.SSLError) -> str:
    """Why a handshake failed, as a metric may say it; an alert is the peer's refusal of us."""
    given = error.reason or ""
    return FAILURES.get(given, "alert" if "_ALERT_" in given else "other")


def _counted(feed: str) -> type[ssl.SSLObject]:
    """asyncio tells nobody of a handshake that failed; the object that does the handshake knows."""

    class Counted(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                metrics.TLS_FAILURES.labels(feed, failure(error)).inc()
                raise

    return Counted
