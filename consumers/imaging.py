"""Images as people ask for them: the picture, what looks alike, a follow-up laid on its prior.

Who may is written into the audit before an object is opened, and pixels are decoded in a process of their own.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consumers.access import Caller
from consumers.search import EVERYTHING, Narrow, ask, permitted, question
from infra.audit import Audit
from infra.crypto import field_key_version, keyed_hash, open_field
from infra.errors import BadMessage, UsageError, WardstreamError
from infra.keystore import KeyStore
from infra.objects import Claim, Objects
from infra.settings import settings
from schemas.imaging import DOMAIN
from schemas.registry import DOMAINS
from schemas.wire.dicom import claim_of
from streams import look
from streams.pool import Pool, PoolFailed

OF = DOMAINS[DOMAIN]
PIXELS = "pixels"  # the audit's word for what was looked at
MOST = 100
MOST_INSTANCES = 10_000  # of a study that is exported at once
LOOK_SECONDS, EXPORT_SECONDS = 120.0, 3600.0  # of one image; text is looked for in every frame


class CannotBeShown(WardstreamError):
    """The pixels of an image do not become a picture; `reason` says why."""

    exit_code = 21

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Stored:
    """An instance that the caller may open."""

    document: str
    patient_ref: str
    claim: Claim = field(repr=False)
    source: dict[str, Any] = field(repr=False)


def show(
    caller: Caller, wanted: str, out: Path, frame: int | None, window: str, steps: Sequence[str], preview: bool
) -> Stored:
    """Write a picture of an instance to `out`, as PNG. Raises UsageError, Denied, CannotBeShown, ObjectMissing."""
    (one,) = stored(caller, [wanted])
    if preview:
        with Objects.local().open_companion(one.claim, look.PREVIEW) as file:
            made = file.read()
    else:
        made = run(look.picture, one.claim, frame, window, tuple(steps))
    keep(out, made)
    return one


def alike(caller: Caller, wanted: str, k: int, narrow: Narrow = EVERYTHING) -> list[dict[str, Any]]:
    """The images whose pixels are most like those of an instance, nearest first. Raises as `show` does."""
    if not 1 <= k <= MOST:
        raise UsageError(f"--k goes from 1 to {MOST}")
    query, asked = question(caller, "*", OF, narrow)
    caller.require(OF, "search", asked)
    own = {"bool": {"filter": [_named([wanted]), {"term": {"kind": "image"}}, {"exists": {"field": "embedding"}}]}}
    found = ask(
        OF, query=permitted(caller, own, asked), size=1, source_includes=["embedding", "instance", "patient_ref"]
    )
    if not (hits := found["hits"]["hits"]):
        raise UsageError(f"there is no image {wanted!r}, or its pixels could not be looked at")
    one = hits[0]["_source"]
    may = caller.fields(OF, "see")
    answer = ask(
        OF,
        knn={
            "field": "embedding",
            "query_vector": one["embedding"],
            "k": k,
            "num_candidates": max(200, 10 * k),
            "filter": [
                permitted(caller, query, asked),
                {"bool": {"must_not": {"term": {"instance": one["instance"]}}}},
            ],
        },
        size=k,
        source_includes=sorted(may | {"patient_ref"}),
    )
    rows = [
        {"id": hit["_id"], "cosine": round(2 * hit["_score"] - 1, 4), **hit["_source"]}
        for hit in answer["hits"]["hits"]
    ]
    refs = {row["patient_ref"] for row in rows if "patient_ref" in row}
    said = {"method": "similar images", "total": str(len(rows))}
    Audit.local().write(caller.act("E", patients=tuple(sorted(refs | {one["patient_ref"]})), detail=said))
    if "patient_ref" not in may:
        for row in rows:
            row.pop("patient_ref", None)
    return rows


def laid(
    caller: Caller, prior: str, follow_up: str, out: Path | None, frames: tuple[int | None, int | None] = (None, None)
) -> dict[str, Any]:
    """How a follow-up lies on its prior: turn, shift, how alike they are before and after. Raises as `show` does."""
    one, other = stored(caller, [prior, follow_up])
    found, made = run(look.laid, one.claim, other.claim, frames)
    if out is not None:
        keep(out, made)
    return {"prior": one.document, "follow_up": other.document, **dataclasses.asdict(found)}


def export(
    caller: Caller,
    wanted: Sequence[str],
    study: str,
    out: Path,
    project: str,
    options: Sequence[str],
    allow_unclean: bool,
    on_progress: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Images without their patients as files in the folder `out`: what became of each.

    Under one `project` a person has one pseudonym, a UID one UID and dates one shift; under another, others. Raises
    UsageError for options that are none or exclude each other; Denied.
    """
    from streams.imaging.deidentify import Option  # pydicom: a third of a second

    if unknown := [one for one in options if one not in set(Option)]:
        raise UsageError(f"there is no option {unknown[0]}: take {', '.join(Option)}")
    if {Option.FULL_DATES, Option.MODIFIED_DATES} <= set(options):
        raise UsageError("dates are either kept or modified")
    if not 1 <= len(project) <= 64:
        raise UsageError("--project is a name of up to 64 characters")
    found = stored(caller, wanted, study)
    secret = keyed_hash(KeyStore.local()[1].keyring.identity, b"image export", project.encode())
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    rows = []
    with pool(EXPORT_SECONDS) as ask:
        for number, one in enumerate(found):
            partial = out / f".{number}.part"
            try:
                done = ask(look.exported, one.claim, str(partial), secret, tuple(options), allow_unclean)
            except (BadMessage, CannotBeShown) as error:
                rows.append({"id": one.document, "outcome": "refused", "reason": error.reason})
            else:
                target = out / f"{done.instance}.dcm"
                os.chmod(partial, 0o600)
                partial.rename(target)
                said = {"id": one.document, "outcome": "exported", "file": str(target), "clean": done.clean}
                rows.append(said | {"frames": done.frames, "blanked": done.blanked})
            on_progress(1)
    return rows


def stored(caller: Caller, wanted: Sequence[str], study: str = "") -> list[Stored]:
    """Instances by event, document or object, in that order; or all of a study. Written into the audit.

    Raises UsageError for one that is not there, Denied where the patient has not permitted the purpose.
    """
    of = {"term": {"study": study}} if study else _named(wanted)
    query = {"bool": {"filter": [of, {"term": {"kind": "instance"}}]}}
    hits = ask(OF, query=query, size=MOST_INSTANCES, sort=["series", "instance_number"])["hits"]["hits"]
    if study:
        found = {hit["_id"]: hit for hit in hits}
    else:
        named = {
            name: hit for hit in hits for name in (hit["_id"], hit["_source"]["event_id"], hit["_source"]["object"])
        }
        if missing := [one for one in wanted if one.partition("-")[0] not in named and one not in named]:
            raise UsageError(f"there is no image {missing[0]!r}")
        found = {one: named.get(one) or named[one.partition("-")[0]] for one in wanted}
    if not found:
        raise UsageError(f"there is no study {study!r}")
    refs = {hit["_source"].get("patient_ref") for hit in found.values()}
    caller.require_persons(refs, fields=(PIXELS,))
    _, keys = KeyStore.local()
    audit = Audit.local()
    made = []
    for hit in found.values():
        audit.write(
            caller.act("R", patients=(hit["_source"]["patient_ref"],), entities=(hit["_id"],), fields=(PIXELS,))
        )
        made.append(_opened(keys, hit))
    return made


def run(function: Callable[..., Any], *args: Any) -> Any:
    """In a process of its own, with the limits of the workers' pool. Raises CannotBeShown, BadMessage, UsageError."""
    with pool(LOOK_SECONDS) as ask:
        return ask(function, *args)


@contextmanager
def pool(seconds: float) -> Iterator[Callable[..., Any]]:
    """The same for several, one after the other."""
    with asyncio.Runner() as runner:
        processes = Pool(1, settings().image_memory_bytes, seconds)

        def ask(function: Callable[..., Any], *args: Any) -> Any:
            try:
                return runner.run(processes.run(function, *args))
            except PoolFailed as failed:
                raise CannotBeShown(failed.reason, f"the pixels cannot be decoded: {failed.reason}") from None

        try:
            yield ask
        finally:
            processes.close()


def keep(out: Path, made: bytes) -> None:
    """Write a picture where the caller alone reads it: it is a patient's, in clear."""
    try:
        with open(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(made)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}") from None


def _named(wanted: Sequence[str]) -> dict[str, Any]:
    """An instance is called by its event, by any document of it, or by its object."""
    events = sorted({one.partition("-")[0] for one in wanted})
    return {"bool": {"should": [{"terms": {"event_id": events}}, {"terms": {"object": list(wanted)}}]}}


def _opened(keys: KeyStore, hit: dict[str, Any]) -> Stored:
    source, made = hit["_source"], hit["_id"]
    sealed = source["sealed"]["claim"]
    key = keys.of_ref(source["patient_ref"], field_key_version(sealed))
    claim = claim_of(open_field(key, OF.name, made, "claim", sealed))
    return Stored(made, source["patient_ref"], claim, source)
