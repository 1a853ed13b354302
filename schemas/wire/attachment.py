"""The text of an attachment: plain text, Markdown, HTML and RTF.

One pass each: a text of any length and content costs time in proportion to its length.
"""

from __future__ import annotations

import codecs
import re
from base64 import b64decode
from collections.abc import Callable
from html import unescape

from schemas.lexicon import words


class Unreadable(Exception):
    """Why a text cannot be had: `bad_base64`, `bad_charset` (unknown, or the bytes are none of it)."""


def text_of(data: str, media_type: str, parameters: str = "") -> str:
    """The text of Attachment.data (base64) by its media type; empty for a type that is no text. Raises Unreadable."""
    reader = _READERS.get(media_type)
    if reader is None:
        return ""
    try:
        content = b64decode("".join(data.split()), validate=True)
    except ValueError:
        raise Unreadable("bad_base64") from None
    return reader(content, _charset(parameters)).strip("\n\r\t \x00\ufeff")


def _charset(parameters: str) -> str:
    for one in parameters.split(";"):
        name, _, value = one.partition("=")
        if name.strip().lower() == "charset":
            return value.strip(" \"'")
    return "utf-8"


def _decoded(content: bytes, charset: str) -> str:
    """By the charset that was said, strictly; by a byte order mark against it."""
    if content.startswith(codecs.BOM_UTF8):
        charset = "utf-8-sig"
    elif content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        charset = "utf-16"
    try:
        # GB2312 and GBK are parts of GB18030, and senders say the part while they send the whole.
        name = codecs.lookup(charset).name
        return content.decode("gb18030" if name in ("gb2312", "gbk") else name)
    except (LookupError, ValueError):
        raise Unreadable("bad_charset") from None


# ---------------------------------------------------------------------------------------------------------------- HTML

_BLOCKS = words("p div br tr li ul ol table h1 h2 h3 h4 h5 h6 section article header footer pre hr dt dd")
_HIDDEN = frozenset(("script", "style", "head"))
_TAG = re.compile(r"/?([A-Za-z][A-Za-z0-9]{0,15})")
_SPACES = re.compile(r"[ \t\r\f\v]+")
_BREAKS = re.compile(r" ?\n[ \n]*")


def _html(content: bytes, charset: str) -> str:
    markup = _decoded(content, charset)
    levelled = markup.lower()
    found: list[str] = []
    at = 0
    while (start := markup.find("<", at)) >= 0:
        found.append(markup[at:start])
        if markup.startswith("<!--", start):
            end = markup.find("-->", start)
            at = end + 3 if end >= 0 else len(markup)
            continue
        end = markup.find(">", start)
        if end < 0:
            at = len(markup)
            break
        tag = _TAG.match(levelled, start + 1)
        name = tag[1] if tag else ""
        if tag is None and levelled[start + 1] not in "/!?":  # 3 < 4
            found.append("<")
            at = start + 1
            continue
        at = end + 1
        if name in _BLOCKS:
            found.append("\n")
        elif name in _HIDDEN and levelled[start + 1] != "/":
            close = levelled.find(f"</{name}", at)
            at = close if close >= 0 else len(markup)
    found.append(markup[at:])
    return _BREAKS.sub("\n", _SPACES.sub(" ", unescape("".join(found))))


# ----------------------------------------------------------------------------------------------------------------- RTF

# RTF specification 1.9.1: a control word with its number, a byte in hex, a control symbol, a brace, or text.
_TOKEN = re.compile(r"\\([a-z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\(.)|([{}])|[\r\n]+|([^\\{}\r\n]+)", re.S)
_SKIPPED = words("fonttbl colortbl stylesheet info pict object header footer listtable listoverridetable")
_SIGNS = {"par": "\n", "line": "\n", "row": "\n", "page": "\n", "sect": "\n", "tab": "\t", "cell": "\t"}
_SIGNS |= {
    "emdash": "—",
    "endash": "-",
    "bullet": "•",
    "lquote": "‘",
    "rquote": "’",
    "ldblquote": "“",
    "rdblquote": "”",
}


def _rtf(content: bytes, charset: str) -> str:
    """RTF is ASCII with escapes: `\\'e4` by the code page it names, `\\u228?` by Unicode with a stand-in to skip."""
    page = "cp1252"
    found: list[str] = []
    pending = bytearray()  # bytes of the code page, which may have two to a character
    skipped, behind, left = False, 1, 0
    groups: list[tuple[bool, int]] = []

    def flush() -> None:
        if pending:
            found.append(_decoded(bytes(pending), page))
            pending.clear()

    for word, number, byte, symbol, brace, text in _TOKEN.findall(content.decode("latin-1")):
        if byte:
            if left:
                left -= 1
            elif not skipped:
                pending.append(int(byte, 16))
            continue
        if text and left:
            text, left = text[left:], max(0, left - len(text))
        if text and not skipped and not text.isascii():  # against the specification, and seen
            pending += text.encode("latin-1")
            continue
        flush()
        if brace == "{":
            groups.append((skipped, behind))
        elif brace == "}":
            skipped, behind = groups.pop() if groups else (False, 1)
            left = 0
        elif symbol == "*" or word in _SKIPPED:
            skipped = True
        elif word == "ansicpg" and number:
            page = f"cp{number}" if number != "65001" else "utf-8"
        elif word == "uc" and number:
            behind = min(int(number), 9) if number[0] != "-" else 0
        elif skipped:
            continue
        elif word == "u" and number:
            found.append(chr(int(number) % 0x10000))
            left = behind
        elif word:
            found.append(_SIGNS.get(word, ""))
        elif symbol:
            found.append({"~": " ", "_": "-", "\n": "\n", "\r": "\n"}.get(symbol, symbol if symbol in "\\{}" else ""))
        else:
            found.append(text)
    flush()
    made = "".join(found)
    return made.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_READERS: dict[str, Callable[[bytes, str], str]] = {
    "text/plain": _decoded,
    "text/markdown": _decoded,
    "text/html": _html,
    "application/xhtml+xml": _html,
    "application/rtf": _rtf,
    "text/rtf": _rtf,
}
