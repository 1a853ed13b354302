"""Training on the index, as the caller's role sees it, and measuring again what a model's card says.

A command's own process: nothing of it runs on the stream. Read patient by patient at one point in time, so that memory
holds rows of features and not documents.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from elasticsearch import ApiError
from elasticsearch import ConnectionError as ConnectionLost

from consumers import cases, past
from consumers.access import Caller
from infra.audit import Audit
from infra.crypto import blind_term
from infra.elastic import away, client
from infra.errors import StackDown, Untrainable, UsageError
from infra.keyring import Keyring
from infra.keystore import KeyStore
from schemas.envelope import rfc3339
from schemas.registry import DOMAINS
from schemas.safe_harbor import SMALLEST
from streams import learn
from streams.allocation import features as resources
from streams.ehr import features, targets
from streams.ehr.news2 import CODES
from streams.ehr.targets import Happened
from streams.learn import LOGISTIC, NAIVE, Candidate, Judge, Split
from streams.models import BEST, GAP, Card, Compared, Figure, Models, compare
from streams.quality import risk
from streams.quality.cases import Person
from streams.rows import Row

EHR = DOMAINS["ehr"]
PAGE = 5000
FIELDS = (
    ("event_id", "part", "kind", "event_time", "received_at", "patient_ref", "message_type", "trigger", "unit")
    + ("patient_class", "sex", "age", "died_at", "deceased", "status", "admission_type", "admit_source")
    + ("mode_of_arrival", "hospital_service", "discharge_disposition", "admitted_at", "discharged_at", "admit_reason")
    + ("code", "display", "action", "body", "confirmation", "value_number", "value_code", "value_text", "units")
    + ("observed_at",)
)  # fmt: skip
# Text is read of nothing but the moves of patients, whose messages are ADT's.
WANTED: dict[str, Any] = {
    "bool": {
        "filter": [{"range": {"part": {"gte": 0}}}, {"exists": {"field": "patient_ref"}}],
        "should": [
            {"terms": {"kind": ["event", "visit", "diagnosis"]}},
            {"terms": {"code": sorted(CODES)}},
            {"bool": {"filter": [{"terms": {"kind": ["note", "observation"]}}, {"term": {"message_type": "ADT"}}]}},
        ],
        "minimum_should_match": 1,
    }
}
NEWS2, LAST = "news2", "last_status"
TARGETS = (*features.TARGETS, *resources.TARGETS, *risk.TARGETS)  # besides outcomes that are told

Truth = Mapping[str, Mapping[str, float]]  # keyed hash of a control id -> probability by class


def name_of(target: str) -> str:
    if _of_cases(target):
        return f"{cases.OF.name}-{risk.model_of(target)}"
    return f"{EHR.name if target in features.TARGETS else past.OF.name}-{target}"


def _of_cases(target: str) -> bool:
    """Whether it is an outcome of cases: what no other domain predicts may be one that somebody tells."""
    return target not in features.TARGETS and target not in resources.TARGETS


def algorithms_for(target: str) -> tuple[str, ...]:
    """Those that are trained where nobody asks for others."""
    if _of_cases(target):
        return learn.OUTCOME_ALGORITHMS
    return learn.ALGORITHMS if target in features.TARGETS else ("decision_tree", NAIVE, LOGISTIC)


def train(
    caller: Caller,
    target: str,
    algorithms: Sequence[str],
    truth: Path | None = None,
    done: Callable[[str], None] = lambda what: None,
) -> list[Card]:
    """Train models for a target and add them to the store, the one that is proposed last: it becomes the shadow.

    `truth`: JSON lines of control_id, target and probability (or class: probability), as the simulator writes them.
    `done` is told of each step. Raises Untrainable for rows that no model can be made of, UsageError, Denied and
    StackDown.
    """
    _known(algorithms)
    if truth is not None and target not in features.TARGETS:
        raise UsageError("a simulator's truth is told of health records alone")
    best = _truth(truth, target) if truth else {}
    Audit.local().write(caller.act("E", entities=(name_of(target),), fields=_fields(target)))
    store, until = Models.local(), rfc3339(datetime.now(UTC))
    rows = _rows(caller, target, until, blind=bool(best))
    done("rows")
    return train_rows(store, caller.account, target, rows, algorithms, best, done)


def train_rows(
    store: Models,
    account: str,
    target: str,
    rows: Sequence[Row],
    algorithms: Sequence[str],
    truth: Truth,
    done: Callable[[str], None] = lambda what: None,
) -> list[Card]:
    """The same from rows. Raises Untrainable."""
    split = learn.split(rows)
    if _of_cases(target):
        _enough(split.holdout)
    judge = Judge(split.holdout)
    candidates, ready = {}, learn.ready(split.training)
    for algorithm in dict.fromkeys((*algorithms, LOGISTIC)):
        candidates[algorithm] = learn.fitted(algorithm, ready)
        done(algorithm)
    others = _baselines(target, split, judge, candidates[LOGISTIC].estimator)
    chosen = sorted((candidates[one] for one in algorithms), key=lambda one: one.cross_validated)
    crossed = ", ".join(f"{one.algorithm} {one.cross_validated:.3f}" for one in chosen)
    judged = {
        one.algorithm: _judged(target, split, judge, one.algorithm, one.estimator, others, truth) for one in chosen
    }
    chosen, choice = _proposed(chosen, judged)
    name, made = name_of(target), []
    incumbent = store.promoted(name)
    before = store.load(name, incumbent) if incumbent else None
    for one in chosen:
        card = judged[one.algorithm]
        folds = f"{min(one.folds):.3f} to {max(one.folds):.3f}"
        notes = (
            f"AUC in {learn.FOLDS} folds of the training {card.of}, before calibration: {crossed}; its own {folds}",
            *choice,
            *_remarks(card, judge, truth),
        )
        difference = _over(judge, one.estimator, before) if before is not None else None
        said = {
            "trained_at": rfc3339(datetime.now(UTC)),
            "trained_by": account,
            "notes": notes,
            "incumbent": incumbent,
            "beats_incumbent": None if before is None else difference is not None and difference.low > 0,
            "differences": card.differences | ({"incumbent": difference} if difference else {}),
        }
        card = card.model_copy(update=said)
        made.append(store.card(name, store.add(name, one.estimator, card)))
    return made


def _enough(holdout: Sequence[Row]) -> None:
    """Raises Untrainable: figures of a handful of people say little of a model, and too much of them."""
    for label in learn.classes(holdout):
        if (few := len({row.patient for row in holdout if row.label == label})) < SMALLEST:
            said = f"the hold-out has {few} patients of {label!r}, and wants {SMALLEST}"
            raise Untrainable("too_few_patients", said)


def _proposed(chosen: list[Candidate], judged: Mapping[str, Card]) -> tuple[list[Candidate], list[str]]:
    """Candidates with the one that is proposed last, and why: the best by cross-validation where it beats logistic
    regression on the hold-out, else that. One comparison alone, so that nobody wins by having been one of many."""
    trees = [one for one in chosen if one.algorithm != LOGISTIC]
    plain = [one for one in chosen if one.algorithm == LOGISTIC]
    if not plain or not trees:
        return chosen, []
    best = trees[-1].algorithm
    over = judged[best].differences.get(LOGISTIC)
    said = f"{best}, the best of the others by cross-validation, over logistic regression on the hold-out: "
    said += f"AUC {over.value:+.3f} ({over.low:+.3f} to {over.high:+.3f})" if over else "not to be measured"
    if over is not None and over.low > 0:
        return [*plain, *trees], [f"{best} is proposed", said]
    return [*trees, *plain], ["no candidate is shown to beat logistic regression, which is proposed", said]


def check(caller: Caller, name: str, version: str) -> list[Compared]:
    """Every figure of a card beside the same one of today's index: the hold-out's times and patients are the card's.

    What was erased since, or came late, is a difference, and a true one. Raises as `train` does, and ModelAltered.
    """
    store = Models.local()
    card, estimator = store.card(name, version), store.load(name, version)
    if name != name_of(card.target) or card.holdout is None:
        raise UsageError(f"{name} was not trained here")
    Audit.local().write(caller.act("E", entities=(f"{name}/{version}",), fields=_fields(card.target)))
    return check_rows(card, estimator, _rows(caller, card.target, rfc3339(datetime.now(UTC))))


def check_rows(card: Card, estimator: Any, rows: Sequence[Row]) -> list[Compared]:
    """The same from rows. The logistic baseline is fitted again. Raises Untrainable."""
    assert card.holdout is not None
    split = learn.window(rows, (card.data.first, card.data.last), (card.holdout.first, card.holdout.last))
    judge = Judge(split.holdout)
    logistic = learn.fit(LOGISTIC, split.training).estimator
    others = _baselines(card.target, split, judge, logistic)
    now = _judged(card.target, split, judge, card.algorithm, estimator, others, {})
    return compare(card, now)


# -------------------------------------------------------------------------------------------------------------- figures


@dataclass(frozen=True, slots=True)
class _Other:
    """A baseline on the hold-out: what it says of each row, and of which rows it says anything."""

    figures: dict[str, Figure]
    scores: Any
    which: Any = None


def _baselines(target: str, split: Split, judge: Judge, logistic: Any) -> dict[str, _Other]:
    made = {}
    for name, estimator in ((learn.MAJORITY, learn.majority(split.training)), (LOGISTIC, logistic)):
        p, names = judge.probabilities(estimator)
        made[name] = _Other(judge.figures(p, names), p)
    if target == features.DETERIORATION:  # NEWS2 is a score of that and of nothing else
        known = np.array(["missing=news2" not in row.features for row in judge.rows])
        scores = np.array([float(row.features["news2"]) for row in judge.rows])
        if known.any():
            made[NEWS2] = _Other(judge.ranking(scores, known), np.column_stack((-scores, scores)), known)
    if target == resources.STATUS:  # that it stays as it is, or becomes what such a status usually becomes
        p, names = learn.by_one(split.training, judge.rows, "now=")
        made[LAST] = _Other(judge.figures(p, names), p)
    return made


def _judged(
    target: str,
    split: Split,
    judge: Judge,
    algorithm: str,
    estimator: Any,
    others: Mapping[str, _Other],
    truth: Truth,
) -> Card:
    p, names = judge.probabilities(estimator)
    mine = {name: other for name, other in others.items() if name != algorithm}
    differences = {
        name: one for name, other in mine.items() if (one := judge.difference(p, other.scores, names, other.which))
    }
    return Card(
        algorithm=algorithm,
        target=target,
        of="resources" if target in resources.TARGETS else "patients",
        trained_at="",
        trained_by="",
        data=learn.data(split.training),
        holdout=learn.data(split.holdout),
        features=learn.kinds(estimator),
        metric=learn.METRIC,
        figures=judge.figures(p, names) | _best(judge, p, names, truth),
        baselines={name: other.figures for name, other in mine.items()},
        differences=differences,
        calibration=judge.calibration(p, names),
        subgroups=judge.subgroups(p, names),
        beats_baseline=len(differences) == len(mine) and all(one.low > 0 for one in differences.values()),
        scores=learn.shares(p, names),
        feature_means=learn.means(estimator, split.training),
        missing=learn.missing(split.training),
        importance=judge.importance(estimator, p, names) if _of_cases(target) else {},
    )


def _best(judge: Judge, p: Any, names: Any, truth: Truth) -> dict[str, Figure]:
    """The AUC of the generator's own probabilities on the rows that it tells of, and how much it is above."""
    if not truth:
        return {}
    told = [next((truth[term] for term in row.blind if term in truth), None) for row in judge.rows]
    which = np.array([one is not None for one in told])
    if not which.any():
        return {}
    theirs = np.array([[(one or {}).get(str(name), 0.0) for name in names] for one in told])
    best, gap = judge.figures(theirs, names, which).get(learn.METRIC), judge.difference(theirs, p, names, which)
    return {name: one for name, one in ((BEST, best), (GAP, gap)) if one is not None}


def _over(judge: Judge, estimator: Any, incumbent: Any) -> Figure | None:
    p, names = judge.probabilities(estimator)
    other, theirs = judge.probabilities(incumbent)
    at = {str(name): place for place, name in enumerate(theirs)}
    same = np.column_stack([other[:, at[str(one)]] if str(one) in at else np.zeros(len(other)) for one in names])
    return judge.difference(p, same, names)


def _remarks(card: Card, judge: Judge, truth: Truth) -> Iterator[str]:
    yield f"intervals: 2.5th to 97.5th percentile of {learn.RESAMPLES} resamples of {card.of}"
    yield f"hold-out: the last {learn.HOLDOUT_TIME:.0%} of the time, of {card.of} that are in no training"
    if NEWS2 in card.baselines:
        known = sum("missing=news2" not in row.features for row in judge.rows)
        yield f"NEWS2 and the difference to it: on the {known} rows of the hold-out that have all seven vital signs"
    if not card.beats_baseline:
        short = [name for name, one in card.differences.items() if one.low <= 0]
        yield f"does not beat its baselines: {', '.join(short)}"
    if truth:
        told = sum(any(term in truth for term in row.blind) for row in judge.rows)
        yield f"best possible AUC: the generator's own probabilities, on {told} rows of the hold-out"


# ----------------------------------------------------------------------------------------------------------------- read


def _known(algorithms: Iterable[str]) -> None:
    if strange := sorted(set(algorithms) - set(learn.ESTIMATORS)):
        raise UsageError(f"there is no algorithm {strange[0]!r}: take one of {', '.join(learn.ESTIMATORS)}")


def _fields(target: str) -> tuple[str, ...]:
    if _of_cases(target):
        return cases.TOLD
    return FIELDS if target in features.TARGETS else past.THING_FIELDS


def _truth(path: Path, target: str) -> Truth:
    """A generator's probabilities by keyed hash of control id. Raises UsageError for a file that is none."""
    keys, made = list(Keyring.local().blinds.values()), dict[str, Mapping[str, float]]()
    try:
        for line in path.read_text().splitlines():
            said = json.loads(line)
            if said["target"] != target:
                continue
            p = said["probability"]
            by_class = p if isinstance(p, dict) else {targets.YES: float(p), targets.NO: 1 - float(p)}
            for key in keys:
                made[blind_term(key, "control_id", said["control_id"])] = by_class
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"the truth cannot be read: {type(error).__name__}") from None
    return made


def _rows(caller: Caller, target: str, until: str, blind: bool = False) -> list[Row]:
    """Labelled rows of everybody whom the caller may look at, or of beds and equipment. Raises Denied, StackDown."""
    if target in resources.TARGETS:
        return past.rows(caller, until)
    if _of_cases(target):
        return _outcomes(target, cases.people(caller), until)
    caller.require(EHR, "see", FIELDS)
    _, keys = KeyStore.local()
    made: list[Row] = []
    joined: dict[str, list[Happened]] = defaultdict(list)
    for ref, events in _patients(caller, until, blind):
        if len(keys.family(ref)) == 1:
            made += targets.rows(target, ref, events, until)
        else:  # merged: under several references in the index
            joined[keys.survivor(ref)] += events
    for ref, events in joined.items():
        made += targets.rows(target, ref, events, until, keys.merges_of([ref]))
    return made


def _outcomes(target: str, people: Sequence[Person], until: str) -> list[Row]:
    """Raises UsageError for what is no outcome, and nobody has told as one."""
    if target not in risk.TARGETS and target not in (told := risk.told(people)):
        known = f", or an outcome that is told: {', '.join(told)}" if told else ""
        raise UsageError(f"there is no target {target!r}: take one of {', '.join(TARGETS)}{known}")
    return risk.rows(target, people, until)


def _patients(caller: Caller, until: str, blind: bool) -> Iterator[tuple[str, list[Happened]]]:
    """Each reference with its events. The whole index at one point in time, in order of reference, time and event."""
    hits = _hits(caller, until, blind)
    for ref, mine in groupby(hits, key=lambda one: one["patient_ref"]):
        events = []
        for event_id, parts in groupby(mine, key=lambda one: one["event_id"]):
            documents = list(parts)
            terms = tuple(term for one in documents if one["kind"] == "event" for term in one.get("blind", ()))
            at, received = documents[0]["event_time"], datetime.fromisoformat(documents[0]["received_at"]).timestamp()
            events.append(Happened(event_id, at, documents, terms, ref, received))
        yield ref, events


def _hits(caller: Caller, until: str, blind: bool) -> Iterator[dict[str, Any]]:
    wanted = [WANTED, {"range": {"event_time": {"lte": until}}}, caller.persons().clause()]
    try:
        with client() as server:
            point = server.open_point_in_time(index=EHR.alias, keep_alive="5m")["id"]
            try:
                after = None
                while True:
                    answer = server.search(
                        pit={"id": point, "keep_alive": "5m"},
                        query={"bool": {"filter": wanted}},
                        sort=[{name: "asc"} for name in ("patient_ref", "event_time", "event_id", "part")],
                        search_after=after,
                        size=PAGE,
                        source_includes=[*FIELDS, "blind"] if blind else [*FIELDS],
                        track_total_hits=False,
                    )
                    hits = answer["hits"]["hits"]
                    if not hits:
                        return
                    yield from (one["_source"] for one in hits)
                    after = hits[-1]["sort"]
            finally:
                server.close_point_in_time(id=point)
    except ConnectionLost as error:
        raise away(error) from None
    except ApiError as error:
        raise StackDown(f"Elasticsearch answers {error.status_code}: is there an index {EHR.alias}?") from None
