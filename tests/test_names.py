"""Text that came without its patient: searchable once the person is known by name, never before, never with a name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.keyring import Keyring
from infra.keystore import KeyStore
from producers import fhir
from producers.publish import Publisher
from producers.seen import Seen
from schemas.ehr import Event
from schemas.peers import Peers
from schemas.registry import DOMAINS
from schemas.wire.fhir import Focus
from streams.ehr.person import known_terms
from streams.fold import MOST_TERMS, Change, Entity, joined
from streams.process import Batch, Incoming, Processor
from streams.stages import STAGES
from tests.broker import Broker
from tests.test_fhir_feed import patient

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EHR = DOMAINS["ehr"]
SAID = "Mrs Vanterpool fell; Xanthippe Vanterpool, born Quillfeather, MRN7001, is well; her husband Ottokar drove"
NAMES = ("Vanterpool", "Xanthippe", "Quillfeather", "MRN7001", "Ottokar")


def person(number: str = "7001", **more: Any) -> dict[str, Any]:
    name = [{"family": "Vanterpool", "given": ["Xanthippe"]}, {"use": "maiden", "family": "Quillfeather"}]
    return patient(number, name=name, contact=[{"name": {"family": "Vanterpool", "given": ["Ottokar"]}}]) | more


def note(number: str = "7001", text: str = SAID) -> dict[str, Any]:
    """A Condition sent alone: the usual case."""
    said: dict[str, Any] = {"resourceType": "Condition", "subject": {"reference": f"Patient/p{number}"}}
    return said | {"code": {"text": "a fall"}, "note": [{"text": text}]}


@dataclass
class Stream:
    """The edge, the agent's processor and an index in memory: what an agent does, without its servers."""

    broker: Broker
    publisher: Publisher
    keys: KeyStore
    processor: Processor
    entities: dict[str, Entity] = field(default_factory=dict)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def send(self, *resources: dict[str, Any]) -> list[Incoming]:
        made = []
        for one in resources:
            arrival = fhir.arrival(Focus(one), "test", Peers(), NOW + timedelta(seconds=len(self.broker.sent)))
            await self.publisher.publish(arrival)
            sent = self.broker.sent[-1]
            assert sent.value is not None
            made.append(Incoming(EHR.raw.name, 0, len(self.broker.sent), sent.key, sent.value, sent.headers))
        return made

    def take(self, *incoming: Incoming, live: dict[str, Entity] | None = None) -> Batch:
        """One batch as `Agent.fold` takes it. `live`: the entities of another index, beside a rebuilt one."""
        batch = self.processor.read(incoming)
        self._keep(batch)
        families = self.processor.families(batch)
        entities = [*(live or {}).items(), *self.entities.items()]
        named = self.processor.name(batch, families, entities)
        self._keep(named)
        batch.take_in(named)
        for prior, survivor, at, _ in self.processor.merges(batch.ready):
            self.keys.alias(prior, survivor, at)
        return batch

    def _keep(self, batch: Batch) -> None:
        for event in batch.ready:
            self.documents |= {write.id: json.loads(write.source) for write in event.writes}
        for one, folded in self.processor.folds(batch.ready).items():
            if (entity := folded(self.entities.get(one))) is not None:
                self.entities[one] = entity

    def text(self, batch: Batch) -> str:
        return "\n".join(str(self.documents[write.id]) for event in batch.ready for write in event.writes)


@pytest.fixture
async def stream(tmp_path: Path, home: Path) -> Any:
    keyring = Keyring.open(tmp_path / "keyring.json")
    keys = KeyStore(f"sqlite:///{tmp_path / 'keystore.sqlite'}", keyring)
    broker = Broker(is_open=True)
    processor = Processor(EHR, STAGES["ehr"], Peers(), keyring, keys)
    async with Publisher(broker, keyring, keys, Seen(tmp_path / "seen.sqlite")) as publisher:  # type: ignore[arg-type]
        yield Stream(broker, publisher, keys, processor)


def words(made: str) -> Iterator[str]:
    return (name for name in NAMES if name in made)


async def test_a_note_after_its_patient_is_searchable(stream: Stream) -> None:
    stream.take(*await stream.send(person()))
    batch = stream.take(*await stream.send(note()))
    made = stream.text(batch)
    assert "is well" in made
    assert "names_unknown" not in made
    assert list(words(made)) == []


async def test_in_one_batch_the_order_does_not_matter(stream: Stream) -> None:
    made = stream.text(stream.take(*await stream.send(note(), person())))
    assert "names_unknown" not in made
    assert "is well" in made
    assert list(words(made)) == []


async def test_a_merged_person_is_known_by_all_that_they_were_called(stream: Stream) -> None:
    """By number alone, then by the server's id alone, then joined: the note lies with the id, the names do not."""
    by_number = person(id=None)
    del by_number["id"]
    stream.take(*await stream.send(by_number))
    early = await stream.send(note())
    assert "names_unknown" in stream.text(stream.take(*early))
    stream.take(*await stream.send(person(name=[{"family": "Neumann"}], contact=[])))
    made = stream.text(stream.take(*early))
    assert "is well" in made
    assert list(words(made)) == []


async def test_a_code_that_is_a_name(stream: Stream) -> None:
    """Of one who is known it is looked for; of one who is not, a word that begins as names do is none."""
    codes = ("Vanterpool", "Positive", "HGB")
    early = await stream.send(*(note() | {"code": {"coding": [{"code": one}]}} for one in codes))
    made = stream.text(stream.take(*early))
    assert [one in made for one in codes] == [False, False, True]
    assert made.count("not_a_code:code") == 4  # diagnosis and note of two
    stream.take(*await stream.send(person()))
    made = stream.text(stream.take(*early))
    assert [one in made for one in codes] == [False, True, True]


async def test_of_somebody_unknown_it_stays_sealed(stream: Stream) -> None:
    nameless = patient("7002")
    batch = stream.take(*await stream.send(nameless, note("7002"), note("7003")))
    made = stream.text(batch)
    assert made.count("names_unknown") == 4  # diagnosis and note of each
    assert "is well" not in made


async def test_what_is_read_again_knows_more_and_never_less(stream: Stream) -> None:
    """The note before its patient: withheld; read again, or for a new index, it is known, by its family's name."""
    early = await stream.send(note())
    assert "names_unknown" in stream.text(stream.take(*early))
    stream.take(*await stream.send(person()))
    live = stream.entities
    for entities in (stream.entities, {}):  # as redelivered; into an empty index beside the live one
        stream.entities = entities
        made = stream.text(stream.take(*early, live=live))
        assert "is well" in made
        assert list(words(made)) == []


async def test_an_earlier_name_is_never_forgotten(stream: Stream) -> None:
    later = person(name=[{"family": "Neumann", "given": ["Xanthippe"]}], contact=[])
    stream.take(*await stream.send(person(), later))
    made = stream.text(stream.take(*await stream.send(note())))
    assert "is well" in made
    assert list(words(made)) == []


async def test_one_who_is_too_many_is_nobody(stream: Stream) -> None:
    """A sender's test patient: so many names that no text could be told from them."""
    many = [{"family": f"Vanterpool{number}x", "given": ["Xanthippe"]} for number in range(MOST_TERMS)]
    stream.take(*await stream.send(person(name=many)))
    assert "names_unknown" in stream.text(stream.take(*await stream.send(note())))


def test_any_order_ends_with_the_same_words() -> None:
    some, others = [f"a{n}" for n in range(MOST_TERMS)], [f"b{n}" for n in range(MOST_TERMS)]
    assert joined(joined((), some), others) == joined(joined((), others), some)
    assert joined(joined((), some), some) == joined((), some)


def test_what_gives_a_patient_away() -> None:
    told = Event(
        name=("Xanthippe M Vanterpool",), birth_date="19800102", addresses=("Elm Road 5, Ulm, 89073",),
        phones=("+49 555 0101234",), mails=("x@vant.example",), identifiers=("7001", "12"),
        kin_names=("Dr. Ottokar Vant",),
    )  # fmt: skip
    assert {"Vanterpool", "Xanthippe", "Elm Road 5", "Elm Road", "Ulm", "89073", "0101234", "x@vant.example"} <= {
        *known_terms(told)
    }
    assert {"7001", "02011980", "Ottokar"} <= {*known_terms(told)}
    assert "12" not in {*known_terms(told)}
    assert Change("patient", "", 0, {}).terms == frozenset()
