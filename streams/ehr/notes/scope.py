"""Which characters of a sentence somebody has denied, doubted, or said of a relative.

The scope of a trigger goes on to the end of its clause, as in ConText, not for a number of words: a clause ends at a
termination, and in a list at the item that is none. Every sentence is walked once a trigger, and sentences are bounded:
the time of a text is in proportion to its length.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass

from schemas.lexicon import words
from streams.ehr.notes.triggers import (
    AFFIRMED,
    BEING,
    BESIDE,
    FAMILY,
    FAMILY_END,
    FINDING,
    FINITE,
    NEGATED,
    NEW_CHUNK,
    POSSESSIVE,
    RELATIVES,
    SEEN,
    TELLING,
    TELLS,
    TREE,
    UNCERTAIN,
    Trigger,
    Way,
)

TURNS = 4  # the words that turn: they say nothing themselves
_SPACES = dict.fromkeys(map(ord, string.punctuation + "’。，、；：（）–—"), " ") | {ord("/"): "/"}
_TOKEN = re.compile(r"\([-+]\)|[^\W_]+(?:['’/][^\W_]+)*|[,:?+()]|(?<=\s)[-–—](?=\s)|[–—]")
_ENDS = frozenset((Way.END, Way.SOFT_END))
_PUNCTUATION = frozenset((",", ":", "?", "+", "(", ")", "-", "–", "—", "(+)", "(-)"))
_BREAKS = frozenset((",", "-", "–", "—", "(+)", ")"))
_OR = frozenset(("or", "nor", "and/or", "oder", "noch"))
_AND = frozenset(("and", "und", "&"))
_LISTS = _OR | _AND
_FOLLOWS = _BREAKS | _LISTS | words("on by to x at in since so thus today")  # cultures negative to date
_PLURAL = words("were are have all both sind waren")
_DOUBT = Trigger(Way.EITHER, UNCERTAIN, listed=False)
_SIGNS = {"(-)": Trigger(Way.EITHER, NEGATED, listed=False), "?": _DOUBT}


@dataclass(frozen=True, slots=True)
class Scope:
    """Characters of the text from `start` to `end`, and what is said of them."""

    start: int
    end: int
    label: int


@dataclass(frozen=True, slots=True)
class _Hit:
    first: int  # token
    after: int  # the token behind its last
    trigger: Trigger


def telling(text: str) -> bool:
    """Whether anything in a text could turn a sentence of it."""
    low = text.lower()
    return (
        not TELLING.isdisjoint(low.translate(_SPACES).split())
        or "?" in low
        or "n't" in low
        or "n’t" in low
        or "(-)" in low
        or "clear of" in low  # "clear" alone stands in every note
        or "clear from" in low
    )


def scopes(text: str, start: int, end: int, whole: tuple[int, int] = (0, 0)) -> Iterator[Scope]:
    """Scopes of one sentence of a text, and the triggers that made them (TURNS).

    A trigger within `whole`, the place of one concept, is part of that concept and turns nothing.
    """
    return _Sentence(text, start, end, whole).scopes()


class _Sentence:
    def __init__(self, text: str, start: int, end: int, whole: tuple[int, int]) -> None:
        found = list(_TOKEN.finditer(text, start, end))
        self.places = [one.span() for one in found]
        self.words = [one[0].lower().removesuffix("'s").removesuffix("’s") for one in found]
        self.capital = [one[0][:1].isupper() for one in found]
        self.count = len(found)
        self.hits = [one for one in self._hits() if not self._within(one, whole)]
        self.at = {one.first: one for one in self.hits}
        self.inside = {token: one for one in self.hits for token in range(one.first, one.after)}
        self.last_or = max((place for place, word in enumerate(self.words) if word in _OR), default=-1)

    def _within(self, hit: _Hit, whole: tuple[int, int]) -> bool:
        return whole[0] <= self.places[hit.first][0] and self.places[hit.after - 1][1] <= whole[1]

    def scopes(self) -> Iterator[Scope]:
        told = -1  # how far the last relative's scope goes: a text of relatives alone is walked once
        for hit in self.hits:
            label = hit.trigger.label
            if label == AFFIRMED:
                continue
            if label == FAMILY:
                if hit.first >= told and (one := self._family(hit)):
                    told = one[1]
                    yield self._scope(*one, FAMILY)
                continue
            yield self._scope(hit.first, hit.after, TURNS)
            for first, after in self._reach(hit):
                if first < after:
                    yield self._scope(first, after, label)

    def _scope(self, first: int, after: int, label: int) -> Scope:
        return Scope(self.places[first][0], self.places[after - 1][1], label)

    # ---------------------------------------------------------------------------------------------------- triggers

    def _hits(self) -> Iterator[_Hit]:
        after = 0
        for token, word in enumerate(self.words):
            if token < after:
                continue
            if word in TREE or word.endswith(("n't", "n’t")):
                hit = self._longest(token)
            elif word in _SIGNS:
                hit = _Hit(token, token + 1, _SIGNS[word])
            else:
                continue
            if hit is not None:
                yield hit
                after = hit.after

    def _longest(self, token: int) -> _Hit | None:
        node, best, after = TREE, None, token
        while after < self.count:
            word = self.words[after]
            if word.endswith(("n't", "n’t")):
                word = "not"
            if (deeper := node.get(word)) is None:
                break
            node, after = deeper, after + 1
            if "" in node:
                best = _Hit(token, after, node[""])
        return best

    # ------------------------------------------------------------------------------------------------------ scopes

    def _reach(self, hit: _Hit) -> Iterator[tuple[int, int]]:
        way = hit.trigger.way
        if way is Way.BOTH:
            yield self._backward(hit), hit.first
            yield hit.after, self._forward(hit)
            return
        behind = way is Way.BEHIND or (way is Way.EITHER and hit.first > 0 and self._joins(hit))
        if not behind:
            end = self._forward(hit)
            if self._content(hit.after, end) or not self._bare(end):
                yield hit.after, end
                return
        yield self._backward(hit), hit.first

    def _joins(self, hit: _Hit) -> bool:
        """Whether a trigger tells of what is before it: "Fever is absent", "Fever: absent", "HIV negative."."""
        word = self.words[hit.first - 1]
        if word in BEING or word in (":", "all", "otherwise"):
            return True
        return word not in _PUNCTUATION and (hit.after >= self.count or self.words[hit.after] in _FOLLOWS)

    def _bare(self, end: int) -> bool:
        return end >= self.count or self.words[end] in _PUNCTUATION

    def _content(self, first: int, after: int) -> int:
        return sum(self.words[token] not in _PUNCTUATION for token in range(first, after))

    def _forward(self, hit: _Hit) -> int:
        """The token that ends the scope of what stands before it."""
        trigger, first = hit.trigger, hit.after
        words = 0
        token = first
        chunk = 0
        while token < self.count:
            word, other = self.words[token], self.at.get(token)
            if other is not None and self._stops(other, hit, words, chunk):
                return token
            if word in _BREAKS or (word in _AND and words):
                if word not in _AND:
                    chunk += 1
                if not self._goes_on(token + 1, word in _AND, trigger):
                    return token
            elif word == ":" and words and self.capital[token - 1] and self.words[token - 1] != "following":
                return max(first, token - 1)  # "no rash Neuro: weak"
            elif word not in _PUNCTUATION:
                words += 1
                if words > trigger.words:
                    return token
            token += 1
        return token

    def _stops(self, other: _Hit, hit: _Hit, words: int, chunk: int) -> bool:
        way, label = other.trigger.way, other.trigger.label
        if way is Way.PSEUDO or label == FAMILY:
            return False
        if way is Way.SOFT_END:
            return words > 0
        if way is Way.END or other.trigger is _DOUBT:
            return True
        if label == NEGATED:
            return way is not Way.BEHIND
        return hit.trigger.label == NEGATED and chunk > 0 and way is not Way.BEHIND

    def _goes_on(self, token: int, joined: bool, trigger: Trigger) -> bool:
        """Whether a chunk, behind a comma or an "and", is one more item of the list that a trigger turns."""
        if token >= self.count:
            return False
        first = self.words[token]
        if first in _OR:
            return True
        if not joined and first in NEW_CHUNK:
            return False
        if self._finite(token, joined):
            return False
        closes = self.last_or >= token
        finding = first in FINDING or first[0].isdigit()
        if joined:
            return not finding
        return closes or (trigger.listed and not finding)

    def _finite(self, token: int, joined: bool) -> bool:
        """Whether a chunk has a verb of its own; "were seen" at its end belongs to the whole list."""
        for place in range(token, self.count):
            word = self.words[place]
            if place > token and (word in _BREAKS or word in _LISTS):
                return False
            if word in FINITE and not (place + 1 < self.count and self.words[place + 1] in SEEN):
                return True
        return False

    def _backward(self, hit: _Hit) -> int:
        """The token that begins the scope of what stands behind it."""
        plural = self.words[hit.first] in _PLURAL
        token = hit.first - 1
        start, words = hit.first, 0
        while token >= 0:
            word, other = self.words[token], self.inside.get(token)
            if (
                other is not None
                and other.trigger.way not in (Way.PSEUDO, Way.SOFT_END)
                and other.trigger.label != FAMILY
            ):
                break
            if word in FINITE and token < hit.first - 1:
                break
            if word in ("that", "—", "–", "-"):
                break
            if word == "," and not (plural or self.words[token + 1] in _LISTS or token + 1 == hit.first):
                break
            if (word in _AND or word == ",") and self._clause_before(token):
                break
            if word not in _PUNCTUATION:
                start, words = token, words + 1
                if words == hit.trigger.words:
                    break
            token -= 1
        return start

    def _clause_before(self, token: int) -> bool:
        for place in range(token - 1, -1, -1):
            word = self.words[place]
            if word in _BREAKS:
                return False
            if word in FINITE:
                return True
        return False

    # ------------------------------------------------------------------------------------------------------ family

    def _family(self, hit: _Hit) -> tuple[int, int] | None:
        """A relative and what is said of one; what stands before, where the relative has it: asthma in her mother."""
        word = self.words[hit.first]
        before = hit.first - 1
        while before >= 0 and self.words[before] in POSSESSIVE:
            before -= 1
        had = self.words[before] if before >= 0 else ""
        if word in RELATIVES and (self._told_by(hit) or had in BESIDE):
            return None
        end = hit.after
        while end < self.count and self.words[end] not in FAMILY_END:
            end += 1
        start = hit.first
        if (word in RELATIVES and had in ("in", "of", "bei")) or word == "runs":
            start = self._backward_of_family(before if had else hit.first - 1)
            end = next((one for one in range(hit.after, end) if self.words[one] in (",", "but")), end)
        if end > hit.after and self.words[end - 1] in ("the", "and", "but", "this"):
            end -= 1
        return start, max(end, hit.after)

    def _told_by(self, hit: _Hit) -> bool:
        """Mother states that he has fever; his wife, who was present, denies it."""
        after = hit.after
        return not TELLS.isdisjoint(self.words[after : after + 3])

    def _backward_of_family(self, token: int) -> int:
        while token > 0:
            word, other = self.words[token - 1], self.inside.get(token - 1)
            if word in FAMILY_END or word in ("but", "has", "denies", "reports"):
                break
            if other is not None and other.trigger.way is Way.END:
                break
            token -= 1
        return token
