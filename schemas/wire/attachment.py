"""The text of an attachment: plain text, Markdown, HTML, RTF and HL7 CDA.

One pass each: a text of any length and content costs time in proportion to its length.
"""

from __future__ import annotations

import codecs
import re
from base64 import b64decode
from collections.abc import Callable
from html import unescape

from infra.errors import BadMessage
from schemas.lexicon import words
from schemas.wire import cda
from schemas.wire.cda import Text
from schemas.wire.hl7v2 import codec_of


class Unreadable(Exception):
    """Why a text cannot be had: `bad_base64`, `bad_charset` (unknown, or the bytes are none of it)."""


class NotRead(Exception):
    """A type that is no text, or XML that is no CDA."""


def text_of(data: str, media_type: str, parameters: str = "") -> Text:
    """The text of Attachment.data (base64) by its media type. Raises NotRead, Unreadable."""
    reader = _READERS.get(media_type)
    if reader is None and media_type not in cda.MEDIA_TYPES:
        raise NotRead
    try:
        content = b64decode("".join(data.split()), validate=True)
    except ValueError:
        raise Unreadable("bad_base64") from None
    if reader is None:
        try:
            return cda.read(content)
        except cda.NotCda:
            raise NotRead from None
    return Text(reader(content, _charset(parameters)).strip("\n\r\t \x00\ufeff"))


def _charset(parameters: str) -> str:
    for one in parameters.split(";"):
        name, _, value = one.partition("=")
        if name.strip().lower() == "charset":
            return value.strip(" \"'")
    return "utf-8"


def _decoded(content: bytes, charset: str) -> str:
    """By the charset that was said, strictly; by a byte order mark against it."""
    try:
        if content.startswith(codecs.BOM_UTF8):
            return content.decode("utf-8-sig")
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return content.decode("utf-16")
        return content.decode(codec_of(charset))
    except (BadMessage, UnicodeDecodeError):
        raise Unreadable("bad_charset") from None


# ---------------------------------------------------------------------------------------------------------------- HTML

_BLOCKS = words("p div br tr li ul ol table h1 h2 h3 h4 h5 h6 section article header footer pre hr dt dd")
_HIDDEN = frozenset(("script", "style", "head"))
_TAG = re.compile(r"</?([A-Za-z][A-Za-z0-9]{0,15})|<[!?]")
_SPACES = re.compile(r"[ \t\r\f\v]+")
_BREAKS = re.compile(r" ?\n[ \n]*")


def _html(content: bytes, charset: str) -> str:
    markup = _decoded(content, charset)
    found: list[str] = []
    at = 0
    while (start := markup.find("<", at)) >= 0:
        found.append(markup[at:start])
        tag = _TAG.match(markup, start)
        if tag is None:  # 3 < 4
            found.append("<")
            at = start + 1
            continue
        name = (tag[1] or "").lower()
        if name in _HIDDEN and markup[start + 1] != "/":
            close = re.compile(f"</{name}", re.I).search(markup, tag.end())
            at = close.start() if close else len(markup)
            continue
        end = "-->" if markup.startswith("<!--", start) else ">"
        at = markup.find(end, start)
        if at < 0:
            return _laid_out(found)
        at += len(end)
        if name in _BLOCKS:
            found.append("\n")
    return _laid_out([*found, markup[at:]])


def _laid_out(found: list[str]) -> str:
    return _BREAKS.sub("\n", _SPACES.sub(" ", unescape("".join(found))))


# ----------------------------------------------------------------------------------------------------------------- RTF

# RTF specification 1.9.1: a control word with its number, a byte in hex, a control symbol, a brace, or text.
_TOKEN = re.compile(r"\\([a-z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\(.)|([{}])|[\r\n]+|([^\\{}\r\n]+)", re.S)
_SKIPPED = words("fonttbl colortbl stylesheet info pict object header footer listtable listoverridetable")
_SIGNS = {"par": "\n", "line": "\n", "row": "\n", "page": "\n", "sect": "\n", "tab": "\t", "cell": "\t"}
_SIGNS |= {
    "emdash": "-",
    "endash": "-",
    "bullet": "*",
    "lquote": "'",
    "rquote": "'",
    "ldblquote": '"',
    "rdblquote": '"',
}
_PAGES = {"65001": "utf-8", "936": "gb18030", "54936": "gb18030"}


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

    for token in _TOKEN.finditer(content.decode("latin-1")):
        word, number, byte, symbol, brace, text = token.groups("")
        if byte:
            if left:
                left -= 1
            elif not skipped:
                pending.append(int(byte, 16))
            continue
        if text and left:
            text, left = text[left:], max(0, left - len(text))
            if not text:
                continue
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
            page = _PAGES.get(number, f"cp{number}")
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
