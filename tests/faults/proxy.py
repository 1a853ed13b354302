"""What stands between our processes and the servers: links that slow, stall and break, a node that answers badly."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter

import aiohttp
from aiohttp import web


class Link:
    """A TCP link to one port. `mode`: pass, slow (each chunk waits `delay`), stall (half-open: nothing moves).

    `did` counts what that did.
    """

    def __init__(self, name: str, port: int, target: int) -> None:
        self.name, self.port, self.target = name, port, target
        self.mode, self.delay = "pass", 0.0
        self.did: Counter[str] = Counter()
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    def reset(self) -> None:
        self.did[f"{self.name} reset"] += len(self._open)
        for writer in self._open:
            writer.transport.abort()

    async def close(self) -> None:
        self._server.close()
        self.reset()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        back = None
        try:
            await self._held()
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            self._open.add(back)
            done = [asyncio.create_task(self._pump(reader, back)), asyncio.create_task(self._pump(there, writer))]
            await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.cancel()
        except OSError:
            pass
        finally:
            for one in (writer, back):
                if one is not None:
                    self._open.discard(one)
                    one.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._held()
                if self.mode == "slow":
                    self.did[f"{self.name} slowed"] += 1
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()

    async def _held(self) -> None:
        if self.mode == "stall":
            self.did[f"{self.name} stalled"] += 1
        while self.mode == "stall":
            await asyncio.sleep(0.05)


KEPT = ("Content-Type", "X-Elastic-Product")
EVENT = re.compile(rb'\{"event_id":"([0-9a-f]{32})"')


class Node:
    """Elasticsearch behind an HTTP proxy that can misbehave.

    `mode`: pass; 429 or 503 (a `share` of requests); after (the write goes through, the answer never comes); slow;
    refuse (an unknown field slips into one event in forty, so that the real node refuses it), refuse_all (into each);
    stall. `did` counts what
    came of it; `given up` are requests whose client had gone before the mode was over.
    """

    def __init__(self, port: int, target: int, seed: int) -> None:
        self.port, self._target = port, f"http://127.0.0.1:{target}"
        self.mode, self.share, self.delay = "pass", 1.0, 0.0
        self.did: Counter[str] = Counter()
        self.intruded: set[str] = set()  # ids of events that `refuse` has met: no other may be refused
        self._random = random.Random(f"{seed}-node")

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=1 << 28)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def close(self) -> None:
        await self._session.close()
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body, mode = await request.read(), self.mode
        if mode == "stall":
            await self._while(request, mode)
        if mode in ("429", "503") and self._random.random() < self.share:
            self.did[f"index {mode}"] += 1
            return web.json_response({"error": {"type": "planted"}, "status": int(mode)}, status=int(mode))
        if mode == "slow":
            self.did["index slow"] += 1
            await asyncio.sleep(self.delay)
        if mode in ("refuse", "refuse_all") and request.path.endswith("_bulk"):
            body = b"\n".join(self._intruded(line) for line in body.split(b"\n"))
        headers = {name: value for name, value in request.headers.items() if name.lower() != "content-length"}
        headers["Accept-Encoding"] = "identity"  # we read answers too
        try:
            async with self._session.request(
                request.method, self._target + request.raw_path, data=body, headers=headers
            ) as answer:
                content = await answer.read()
                kept = {name: answer.headers[name] for name in KEPT if name in answer.headers}
                status = answer.status
        except aiohttp.ClientError:
            _abort(request)
            return web.Response(status=502)
        self.did["index blocked"] += status == 403 or b'"status":403' in content
        if mode == "after" and request.path.endswith("_bulk"):
            await self._while(request, mode)
            _abort(request)
        return web.Response(status=status, body=content, headers=kept)

    async def _while(self, request: web.Request, mode: str) -> None:
        self.did[f"index {mode}"] += 1
        waiting = True
        while self.mode == mode:
            if waiting and request.transport is None:
                self.did[f"index {mode} given up"] += 1
                waiting = False
            await asyncio.sleep(0.05)

    def _intruded(self, line: bytes) -> bytes:
        if (found := EVENT.match(line)) is None:
            return line
        event = found[1].decode()
        if not chosen(event) and self.mode != "refuse_all":
            return line
        self.did["index refuse"] += 1
        self.intruded.add(event)
        return line[:-1] + b',"intruder":1}'


def _abort(request: web.Request) -> None:
    if request.transport is not None:  # else the client has gone
        request.transport.abort()


def chosen(event_id: str) -> bool:
    """Whether `refuse` picks this event: always the same ones, since a request may be sent again."""
    return int(event_id[:4], 16) % 40 == 0
