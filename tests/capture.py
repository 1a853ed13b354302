"""Looks for texts in all that crosses loopback: `python tests/capture.py`, with CAP_NET_RAW.

Reads a JSON list of them from the first line of stdin, says "ready", looks until stdin is closed, then says as JSON
what it saw: packets, bytes, dropped, found. Of what crosses it keeps the end of each connection's last packet, since
the network may cut a text in two, and nothing else. A process of its own, so as to keep up.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress

ETH_P_ALL, SOL_PACKET, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 3, 263, 6, 23  # linux/if_ether.h, if_packet.h
SO_RCVBUFFORCE = 33
BUFFER = 64 << 20
FLOWS = 4096
TAIL = 256  # bytes kept of a packet: more than a text in any spelling


def folded(text: str) -> Iterator[bytes]:
    """What stands for a text whatever its case, in lower case: itself, in UTF-16 and in hexadecimal."""
    yield text.lower().encode()
    yield text.lower().encode("utf-16-le")[:-1]  # without its last zero it is the same in both byte orders
    for one in _cases(text):
        yield one.encode().hex().encode()


def in_base64(text: str) -> Iterator[bytes]:
    """The same inside something longer in base64, at each of the three places where it may begin."""
    for one in _cases(text):
        for before in range(3):
            coded = b64encode(bytes(before) + one.encode())
            whole = coded[-(-before * 4 // 3) : (before + len(one.encode())) * 4 // 3]
            yield whole
            yield whole.translate(bytes.maketrans(b"+/", b"-_"))


def _cases(text: str) -> set[str]:
    return {text, text.lower(), text.upper(), text.title()}


class Scanner:
    """Packets in, texts found out."""

    def __init__(self, sought: list[str]) -> None:
        self._folded = {form: one for one in sought for form in folded(one)}
        self._exact = {form: one for one in sought for form in in_base64(one)}
        self._tails: OrderedDict[bytes, bytes] = OrderedDict()
        self.found: set[str] = set()
        self.packets = self.bytes = 0

    def feed(self, frame: bytes) -> None:
        """One Ethernet frame."""
        self.packets += 1
        self.bytes += len(frame)
        flow, payload = parts(frame)
        seen = self._tails.pop(flow, b"") + payload
        self._tails[flow] = seen[-TAIL:]
        if len(self._tails) > FLOWS:
            self._tails.popitem(last=False)
        lower = seen.lower()
        self.found.update(one for form, one in self._folded.items() if form in lower)
        self.found.update(one for form, one in self._exact.items() if form in seen)


def parts(frame: bytes) -> tuple[bytes, bytes]:
    """Addresses and ports of a TCP packet over IPv4 or IPv6, and its payload; of anything else, all is payload."""
    kind = frame[12:14]
    if kind == b"\x08\x00" and frame[23] == socket.IPPROTO_TCP:
        tcp, addresses = 14 + (frame[14] & 15) * 4, frame[26:34]
    elif kind == b"\x86\xdd" and frame[20] == socket.IPPROTO_TCP:
        tcp, addresses = 54, frame[22:54]
    else:
        return b"", frame
    return addresses + frame[tcp : tcp + 4], frame[tcp + (frame[tcp + 12] >> 4) * 4 :]


def main() -> None:
    scanner = Scanner(json.loads(sys.stdin.readline()))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as sock:
        with suppress(PermissionError):  # wants CAP_NET_ADMIN; a smaller buffer may drop, and that is told
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)  # on loopback each packet goes out and comes in
        sock.bind(("lo", 0))
        sock.setblocking(False)
        print("ready", flush=True)
        ended = False
        while not ended:
            readable, _, _ = select.select([sock, sys.stdin], [], [])
            ended = sys.stdin in readable and not os.read(sys.stdin.fileno(), 1)
            with suppress(BlockingIOError):
                while True:
                    scanner.feed(sock.recv(1 << 17))
        _, dropped = struct.unpack("II", sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    seen = {"packets": scanner.packets, "bytes": scanner.bytes, "dropped": dropped}
    print(json.dumps(seen | {"found": sorted(scanner.found)}))


if __name__ == "__main__":
    main()
