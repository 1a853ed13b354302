"""Statistics over any cohort: the documents that a query finds, or documents of the patients whom it finds.

The query, the role, consent and the small-cell limit are those of search. Up to 200,000 documents every value is read
and figures are exact; above, Elasticsearch counts, and quantiles are its t-digest's. A Safe Harbor role's figures are
always of values read, because patients have to be counted, through merges, behind every cell.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from consumers import cohort as tables
from consumers import counted
from consumers import query as language
from consumers.access import Caller
from consumers.cohort import STEPS, Cohort, Column, Row
from consumers.consent import Persons
from consumers.search import EVERYTHING, Narrow, answered, hashed, permitted, question
from consumers.versions import newest
from infra.audit import Audit
from infra.elastic import scan
from infra.errors import UsageError
from infra.keystore import KeyStore
from schemas import safe_harbor
from schemas.policy import COMMON
from schemas.registry import Domain
from schemas.safe_harbor import BESIDES, SMALLEST

EXACT = 200_000  # documents whose values are read one by one
TYPES = {"integer": "number", "long": "number", "double": "number", "keyword": "category", "boolean": "category"}
# Of what the agent puts on every document, these tell nothing of a cohort.
DULL = frozenset(name for name, group in COMMON.items() if group in ("record", "staff", "text")) - {
    "kind",
    "event_time",
}
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants to know. Empty strings and None for what he or she does not."""

    query: str
    narrow: Narrow = EVERYTHING
    measure: str = ""  # figures of these documents of the patients whom the query finds, in place of what it finds
    fields: Sequence[str] = ()
    by: str = ""
    versus: str = ""
    overlap: bool = False  # patients of both cohorts stay in the second
    over: str = ""
    histogram: bool = False
    top: int = 20


@dataclass(slots=True)
class People:
    """Our own numbers for patients: one for all references of a person."""

    survivors: Mapping[str, str]
    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, ref: str | None) -> int:
        return -1 if ref is None else self.numbers.setdefault(self.survivors.get(ref, ref), len(self.numbers))

    def references(self, refs: Collection[str]) -> frozenset[str]:
        """These persons under every reference they have."""
        whole = {self.survivors.get(ref, ref) for ref in refs}
        return frozenset(whole | {ref for ref, survivor in self.survivors.items() if survivor in whole})


def stats(caller: Caller, asked: Asked, of: Domain, progress: Progress = lambda done, total: None) -> Row:
    """The report, ready for JSON. Written into the audit before it is given.

    Raises UsageError for what cannot be asked, Denied for what may not be, and StackDown where no index answers.
    """
    known = columns(caller, of)
    chosen = [_column(name, known, of, caller) for name in asked.fields]
    _sensible(asked, chosen)
    by = _column(asked.by, known, of, caller) if asked.by else None
    if by is not None and by.type != "category":
        raise UsageError(f"--by takes a field of few words, and {by.name} is a {by.type}")
    people = People(KeyStore.local()[1].merged())
    names = {one.name for one in (*chosen, *([by] if by else []))} | ({"event_time"} if asked.over else set())
    names |= {name for one in chosen if one.units for name in ("code", "code_system", *one.units)}
    queries = [_query(caller, asked, text, of, names, people) for text in (asked.query, asked.versus) if text]
    total = counted.total(of, queries[0])
    once = total <= EXACT
    if once:  # what was told again counts once; of more it would take longer than the figures themselves
        queries = [newest(of, one) for one in queries]
        total = counted.total(of, queries[0])

    reads = bool(caller.safe_harbor or asked.versus or asked.histogram or (asked.fields and total <= EXACT))
    if not chosen and (caller.safe_harbor or asked.versus):
        chosen = counted.occurring(of, queries, [one for one in known.values() if one.name not in DULL])
        if asked.versus:
            chosen = [one for one in chosen if one.type in ("number", "category")]
    if reads:
        wanted = [*chosen, *([by] if by else [])]
        read = [_read(caller, of, query, wanted, bool(asked.over), people, progress) for query in queries]
        made = _versus(read, chosen, asked, caller) if asked.versus else _exact(read[0], chosen, by, asked, caller)
    else:
        shown = chosen or [one for one in known.values() if one.name not in DULL]
        made = _aggregated(of, queries[0], shown, by, asked, people)
    made = {"of": "documents", "versions": "newest" if once else "all", **made}
    detail = {"query": hashed("query", "\n".join(filter(None, (asked.query, asked.measure, asked.versus))))}
    detail |= {"use": "statistics", "total": str(made["cohort"]["documents"])}
    fields = names | {one.name for one in chosen}
    Audit.local().write(caller.act("E", fields=tuple(sorted(fields)), detail=detail))
    return made


def columns(caller: Caller, of: Domain) -> dict[str, Column]:
    """The fields whose figures a caller may have: those that he or she may both search and see."""
    properties, may = of.mapping()["properties"], caller.fields(of, "search") & caller.fields(of, "see")
    carriers: dict[str, set[str]] = defaultdict(set)
    for part in of.parts:
        for name in part.model_fields:
            carriers[name].add(part.kind)
    made = {}
    for name in sorted(may & properties.keys()):
        kind = "category" if properties[name].get("fields") else TYPES.get(properties[name]["type"], "")
        kind = kind or {"date": "time"}.get(properties[name]["type"], "text")
        kinds = frozenset(carriers[name]) if name in carriers else None
        made[name] = Column(name, kind, of.measured.get(name, ()), kinds)
    return made


def _column(name: str, known: Mapping[str, Column], of: Domain, caller: Caller) -> Column:
    language.field(name, of.mapping()["properties"])  # says which names are near
    name = name.partition(".")[0]
    for verb in ("search", "see"):
        caller.require(of, verb, [name])
    return known[name]


def _sensible(asked: Asked, chosen: Sequence[Column]) -> None:
    if asked.over and asked.over not in STEPS:
        raise UsageError(f"--over is one of {', '.join(STEPS)}")
    if asked.versus and (asked.by or asked.over or asked.histogram):
        raise UsageError("--versus compares two cohorts: without --by, --over and --histogram")
    if asked.by and (asked.over or asked.histogram):
        raise UsageError("--by makes groups: ask for --over or --histogram of one of them, with --filter")
    if asked.histogram and (len(chosen) != 1 or chosen[0].type != "number"):
        raise UsageError("--histogram takes one --field, of numbers")
    if not 1 <= asked.top <= 1000:
        raise UsageError("--top goes from 1 to 1000")


def _query(caller: Caller, asked: Asked, text: str, of: Domain, names: Collection[str], people: People) -> Row:
    """Documents of a cohort, as far as the caller may ask and see. Raises Denied."""
    wanted, fields = question(caller, text, of, asked.narrow)
    measured, more = question(caller, asked.measure, of) if asked.measure else (None, set[str]())
    caller.require(of, "search", fields | more | set(names))
    caller.require(of, "see", names)
    found = permitted(caller, wanted, fields)
    if measured is None:
        return found
    refs = people.references(counted.references(of, found))
    return {"bool": {"filter": [permitted(caller, measured, more), Persons(False, refs).clause()]}}


# ------------------------------------------------------------------------------------------------------- values, read


def _read(
    caller: Caller, of: Domain, query: Row, wanted: Sequence[Column], times: bool, people: People, progress: Progress
) -> Cohort:
    """The values of a cohort; as the Safe Harbor view leaves them, for a role that has that view."""
    names = {"kind", *(one.name for one in wanted), *(["event_time"] if times else [])}
    if any(one.units for one in wanted):
        names |= {"code", "code_system", "units", *(name for one in wanted for name in one.units)}
    if any(one.units for one in wanted) and "display" in caller.fields(of, "see"):
        names.add("display")
    names &= of.mapping()["properties"].keys()
    values: dict[str, list[Any]] = {name: [] for name in names}
    persons: list[int] = []
    marks, sources = of.marks(), names | (BESIDES if caller.safe_harbor else {"patient_ref"})
    with answered(of):
        total = counted.total(of, query)
        for page in scan(of.alias, query, sorted(sources)):
            for document in page:
                persons.append(people.number(document.get("patient_ref")))
                one = safe_harbor.view(document, marks, str) if caller.safe_harbor else document
                for name, kept in values.items():
                    kept.append(one.get(name))
            progress(len(persons), total)
    return Cohort(np.array(persons, dtype=np.int64), values)


def _exact(read: Cohort, chosen: Sequence[Column], by: Column | None, asked: Asked, caller: Caller) -> Row:
    limited = caller.safe_harbor
    made: Row = {"cohort": tables.counted(read, read.rows(), limited)}
    if limited and read.distinct(read.rows()) < SMALLEST:
        return made | {"fields": []}
    if by is not None:
        made |= _groups(read, chosen, by, asked, limited)
    else:
        fields = [
            row for one in chosen for row in tables.describe(read, read.rows(), one, limited=limited, top=asked.top)
        ]
        made["fields"] = fields
    if asked.over:
        made["over"] = {"step": asked.over, "steps": tables.trend(read, _times(read), asked.over, _one(read, chosen))}
    if asked.histogram:
        made["histograms"] = [
            _histogram(read, key, rows, chosen[0], limited)
            for key, rows in _series(read, chosen[0], limited, asked.top)
        ]
    return made


def _groups(read: Cohort, chosen: Sequence[Column], by: Column, asked: Asked, limited: bool) -> Row:
    groups, left = tables.groups(read, by.name, limited, asked.top)
    made: Row = {"by": by.name, "groups": []}
    for name, rows in groups.items():
        fields = [row for one in chosen for row in tables.describe(read, rows, one, limited=limited, top=asked.top)]
        made["groups"].append({"group": name, **tables.counted(read, rows, limited), "fields": fields})
    if left:
        made["others"] = tables.counted(read, left, limited)
    return made


def _series(read: Cohort, column: Column, limited: bool, top: int) -> list[tuple[tuple[str, str, str], Sequence[int]]]:
    """The rows of a number by code and unit, as far as they are shown."""
    present = [row for row in read.rows() if read.values[column.name][row] is not None]
    cells = tables.measured(read, present, column) if column.units else {("", "", ""): present}
    if limited:
        cells, _ = tables.shown(read, cells)
    return sorted(((key, rows) for key, rows in cells.items() if rows), key=lambda one: (-len(one[1]), one[0]))[:top]


def _histogram(read: Cohort, key: tuple[str, str, str], rows: Sequence[int], column: Column, limited: bool) -> Row:
    bins = tables.histogram(*tables.numbers_of(read, rows, column.name), limited)
    said = dict(zip(("code_system", "code", "units"), key, strict=True)) if column.units else {}
    return {"field": column.name, **said, "of": "patients" if limited else "documents", "bins": bins}


def _times(read: Cohort) -> list[int]:
    return [round(datetime.fromisoformat(one).timestamp() * 1000) for one in read.values["event_time"]]


def _one(read: Cohort, chosen: Sequence[Column]) -> tuple[Sequence[int], str] | None:
    """The number whose median goes over time. Raises UsageError where it is of several codes or units."""
    if not chosen or chosen[0].type != "number":
        return None
    series = _series(read, chosen[0], False, 2)
    if len(series) > 1:
        raise UsageError(f"{chosen[0].name} is here of several codes or units: choose one, code:... units:...")
    return (series[0][1], chosen[0].name) if series else None


def _versus(read: Sequence[Cohort], chosen: Sequence[Column], asked: Asked, caller: Caller) -> Row:
    limited = caller.safe_harbor
    first, second = read
    both = tables.shares_persons(first, second)
    if not asked.overlap:
        second = second.without(both)
    made: Row = {"cohort": tables.counted(first, first.rows(), limited)}
    told = safe_harbor.total(len(both), len(both)) if limited else len(both)
    made["second"] = tables.counted(second, second.rows(), limited)
    made["both"] = {"patients": told, "left_out_of_second": not asked.overlap}
    few = limited and min(one.distinct(one.rows()) for one in (first, second)) < SMALLEST
    made["compared"] = [] if few else tables.versus(first, second, chosen, limited=limited)
    return made


def _aggregated(
    of: Domain, query: Row, chosen: Sequence[Column], by: Column | None, asked: Asked, people: People
) -> Row:
    refs = counted.references(of, query)
    total = counted.total(of, query)
    made: Row = {"cohort": {"documents": total, "patients": len({people.number(ref) for ref in refs})}}
    if by is None:
        made["fields"] = counted.fields(of, query, counted.occurring(of, [query], chosen), asked.top)
    else:
        made |= {"by": by.name, "groups": counted.groups(of, query, chosen if asked.fields else (), by, asked.top)}
    if asked.over:
        made["over"] = {
            "step": asked.over,
            "steps": counted.trend(of, query, chosen if asked.fields else (), asked.over),
        }
    return made
