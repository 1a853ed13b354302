"""The same for Chinese, where no space tells words apart.

否认, 未见, 无 deny; 待排, 可能, 疑似 doubt; 家族史, 父亲 are others. A scope ends at the next comma (，), which parts
statements in Chinese notes; items of a list have 、 between. 否认 goes on to the next statement that affirms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from streams.ehr.notes.scope import TURNS, Scope
from streams.ehr.notes.triggers import FAMILY, NEGATED, UNCERTAIN

HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_CHUNK = re.compile(r"[^，,。；;！!\n]+")
# 无力, 无尿 are findings; 无痛性, 无诱因 say how something is; 无法, 无论 are other words.
_NOT = r"无(?![力尿法论菌创效名痛偿数视]|明显诱因|诱因|明显原因)"
_DENIED = re.compile(
    rf"否认(?:有|曾有)?|未(?:见|闻及?|触及|扪及|及|发现|诉|出现|查见|探及|提示|引出|患)(?:明显|明确|确切)?|没有|不伴有?|均?无异常(?=$)|"
    rf"{_NOT}(?:明显|明确|确切|特殊)?|排除(?=[^，]*$)(?<!不排除)(?<!能排除)(?<!待排除)|不考虑|不支持|除外(?<!不除外)(?<!能除外)(?<!待除外)"
)
_DENIED_BEHIND = re.compile(r"(?:均|皆|呈|为|检查)?(?:阴性|[(（][-－—–][)）]|未引出|已排除|被排除|未见|不明显|\(-\))")
_DOUBTED = re.compile(
    r"(?:不能|不|未能|尚不能|待)(?:完全)?(?:除外|排除)|考虑为?|怀疑|疑似|可疑|拟诊|疑(?![难惑问])|可能(?:为|是|有|系)?(?!性)|不排除|警惕|鉴别|风险|如(?:有|出现)|若(?:有|出现)"
)
_DOUBTED_BEHIND = re.compile(
    r"待排(?:除|查)?|待查|待除外|待定|可能性大?|可能|(?:不能|不|未能|尚不能)(?:完全)?(?:除外|排除)|[?？]"
)
_RELATIVE = re.compile(
    r"家族(?:史|中|成员)?|(?:其|患者(?:的)?)?(?:父母|父亲|母亲|祖父|祖母|外祖父|外祖母|爷爷|奶奶|外公|外婆|兄弟|哥哥|弟弟|姐妹|姐姐|妹妹|叔叔|舅舅|姑姑|姨妈|儿子|女儿)"
    r"|其(?:父|母|兄|弟|姐|妹|子|女)(?![性])"
)
_TOLD_BY = re.compile(r"[^，]{0,4}(?:代?诉|陪同|叙述|述|称|发现|陪|签|送|告知)|联系|电话")
_BEFORE_RELATIVE = re.compile(r"(?:由|与|和|被|随|向|陪)$")
_STOPS = re.compile(r"但|出现|诱因|因(?![为素])|而(?!且)|伴有?|可见|后(?=[有出])|(?<=[、史])有")
_AFFIRMS = re.compile(
    r"\s*(?:有|出现|伴|诉|可见|示|为|给予|予|行|患者|查体|今|于|近|自|继|现|因|曾|因此|体|神|饮食|精神|[\d一二三四五六七八九十]+[年月天日])"
)


def scopes(text: str, start: int, end: int, whole: tuple[int, int] = (0, 0)) -> Iterator[Scope]:
    """As `scope.scopes`, of one sentence that has Chinese."""
    chunks = [one.span() for one in _CHUNK.finditer(text, start, end)]
    for number, (first, last) in enumerate(chunks):
        yield from _denied(text, chunks, number, whole)
        yield from _doubted(text, first, last, whole)
    yield from _family(text, start, end)


def _within(place: tuple[int, int], whole: tuple[int, int]) -> bool:
    return whole[0] <= place[0] and place[1] <= whole[1]


def _denied(text: str, chunks: list[tuple[int, int]], number: int, whole: tuple[int, int]) -> Iterator[Scope]:
    first, last = chunks[number]
    for found in _DENIED.finditer(text, first, last):
        if _within(found.span(), whole):
            continue
        yield Scope(*found.span(), TURNS)
        stop = _STOPS.search(text, found.end(), last)
        yield Scope(found.end(), stop.start() if stop else last, NEGATED)
        if found[0].startswith("否认") and not stop:
            for begins, ends in chunks[number + 1 :]:
                if _AFFIRMS.match(text, begins, ends) or _DENIED.search(text, begins, ends):
                    break
                yield Scope(begins, ends, NEGATED)
    for found in _DENIED_BEHIND.finditer(text, first, last):
        if not _within(found.span(), whole) and found.start() > first:
            yield Scope(*found.span(), TURNS)
            yield Scope(first, found.start(), NEGATED)


def _doubted(text: str, first: int, last: int, whole: tuple[int, int]) -> Iterator[Scope]:
    for found in _DOUBTED.finditer(text, first, last):
        if not _within(found.span(), whole) and text[found.end() : last].strip(" ?？)）"):
            yield Scope(*found.span(), TURNS)
            yield Scope(found.end(), last, UNCERTAIN)
    for found in _DOUBTED_BEHIND.finditer(text, first, last):
        if (
            not _within(found.span(), whole)
            and found.start() > first
            and not text[found.end() : last].strip(" ?？)）诊断")
        ):
            yield Scope(*found.span(), TURNS)
            yield Scope(first, found.start(), UNCERTAIN)


def _family(text: str, start: int, end: int) -> Iterator[Scope]:
    for found in _RELATIVE.finditer(text, start, end):
        if _TOLD_BY.match(text, found.end(), end) or _BEFORE_RELATIVE.search(text, start, found.start()):
            continue
        patient = re.compile(r"[，,](?=患者|本人)").search(text, found.end(), end)
        yield Scope(found.start(), patient.start() if patient else end, FAMILY)
