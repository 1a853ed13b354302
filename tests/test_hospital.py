"""The simulated hospital: its wards, who comes at which rate, and what it tells of itself."""

from __future__ import annotations

import json
import math
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import typer
from scipy import stats
from typer.testing import CliRunner

import producers.cli
from infra.errors import UsageError
from producers.simulate.demand import PROFILES, SURGE_DAY, SURGE_DAYS, Demand
from producers.simulate.hospital import SimulatedMessage
from producers.simulate.operations import Days, Operation, Told
from producers.simulate.trial import beside
from producers.simulate.wards import SETTLED_DAYS, premises
from schemas.wire import operations as events
from streams.allocation.demand import Arrival
from streams.allocation.policies import by_priority

YEAR = 364
LARGE = Demand(premises("large", 0, 1), 3, YEAR)
COME = LARGE.arrivals()
END = date(2026, 3, 2)
NEW = datetime(2026, 2, 28, tzinfo=UTC)


@pytest.fixture(scope="module")
def story() -> list[Told]:
    return list(Days("small", 4, 2, END).tell(by_priority))


def emergencies(service: str, since: float = 0.0) -> list[Arrival]:
    return [one for one in COME if one.ref.startswith(f"E{service}") and one.at >= since]


# --- wards


@pytest.mark.parametrize(("name", "beds", "units", "staff"), [("small", 200, 7, 120), ("large", 1000, 30, 600)])
def test_sizes(name: str, beds: int, units: int, staff: int) -> None:
    found = premises(name, 0, 7)
    assert len({one.id for one in found.house.beds}) == len(found.house.beds) == beds
    assert len({one.unit for one in found.house.beds}) == units
    assert len({one.ref for one in found.staff}) == len({one.person.number for one in found.staff}) == staff


def test_no_such_hospital() -> None:
    with pytest.raises(UsageError):
        premises("huge", 0, 1)


def test_every_shift_of_every_unit_is_filled_and_nobody_works_twice() -> None:
    found = premises("large", 0, 14)
    filled = Counter((*one.units, one.starts) for one in found.house.nurses)
    assert len(filled) == 30 * 14 * 3
    assert min(filled.values()) >= 1
    last: dict[str, float] = {}
    for one in found.house.nurses:
        assert one.starts - last.get(one.ref, -math.inf) >= 11  # hours of rest, as Directive 2003/88/EC art. 3 wants
        last[one.ref] = one.ends


def test_every_need_has_a_bed_somewhere() -> None:
    found = {one.features for one in LARGE.premises.house.beds}
    small = Demand(premises("small", 0, 1), 3, 200)
    for arrivals, features in ((COME, found), (small.arrivals(), {one.features for one in small.premises.house.beds})):
        wanted = {phase.needs for one in arrivals for phase in one.phases}
        assert all(any(needs <= bed for bed in features) for needs in wanted)


# --- who comes


def test_the_same_seed_the_same_patients() -> None:
    few = Demand(LARGE.premises, 3, 10)
    assert few.arrivals() == few.arrivals()
    assert few.arrivals() == tuple(one for one in COME if one.at < 240)  # a short demand is a long one's beginning
    assert Demand(LARGE.premises, 4, 10).arrivals() != few.arrivals()


def test_references_are_of_one_patient() -> None:
    assert len({one.ref for one in COME}) == len(COME)
    assert [one.at for one in COME] == sorted(one.at for one in COME)
    assert COME[0].at >= -24 * SETTLED_DAYS


@pytest.mark.parametrize("service", PROFILES)
def test_emergencies_come_at_the_rate_that_is_given(service: str) -> None:
    """By the time-rescaling theorem (Brown et al. 2002, doi:10.1162/08997660252741149) the integral of the rate up to
    each coming is uniform over the whole integral, and their number is Poisson."""
    total, upto = 0.0, []
    step = 0.25
    for hour in range(int(YEAR * 24 / step)):
        upto.append(total)
        total += LARGE.rate(service, hour * step) * step
    come = emergencies(service)
    scaled = [upto[int(one.at / step)] + LARGE.rate(service, one.at) * (one.at % step) for one in come]
    assert stats.kstest(scaled, stats.uniform(0, total).cdf).pvalue > 1e-3
    assert abs(len(come) - total) < 4 * math.sqrt(total)


def test_hours_weekdays_season_and_surge_show() -> None:
    hours = Counter(int(one.at % 24) for one in emergencies("MED"))
    assert hours[12] > 3 * hours[4]
    days = Counter(int(one.at // 24) % 7 for one in emergencies("MED"))
    assert days[0] == max(days.values())
    winter, summer = (sum(low <= one.at / 24 < low + 60 for one in emergencies("PUL")) for low in (305, 150))
    assert winter > 1.2 * summer
    middle = SURGE_DAY + SURGE_DAYS / 2
    assert LARGE.surge("MED", middle * 24) == pytest.approx(0.25)
    assert LARGE.surge("MED", SURGE_DAY * 24) == LARGE.surge("MED", (SURGE_DAY + SURGE_DAYS) * 24) == 0


def test_the_surge_brings_influenza() -> None:
    def share(low: float, high: float) -> float:
        some = [one for one in emergencies("MED") if low <= one.at / 24 < high]
        return sum(one.phases[0].isolation == "influenza" for one in some) / len(some)

    assert share(SURGE_DAY + 4, SURGE_DAY + 10) > 3 * share(100, 300)


@pytest.mark.parametrize("service", ["SUR", "ORT", "CAR"])
def test_planned_stays_begin_in_the_morning_on_working_days(service: str) -> None:
    come = [one for one in COME if one.elective and one.ref.startswith(f"W{service}") and one.at >= 0]
    assert all(7 <= one.at % 24 <= 10 for one in come)
    found = Counter(int(one.at // 24) % 7 for one in come)
    expected = [sum(LARGE.planned(service, day) for day in range(start, YEAR, 7)) for start in range(7)]
    assert all(abs(found[day] - expected[day]) < 4 * math.sqrt(expected[day]) for day in range(7))
    assert found[5] < 0.2 * found[1]


@pytest.mark.parametrize("service", PROFILES)
def test_stays_are_log_normal(service: str) -> None:
    profile = PROFILES[service]
    # of a patient of intensive care, the first phase; of others, those who were not made worse on the way
    days = [
        (one.phases[1].at if len(one.phases) > 1 else one.hours) / 24
        for one in emergencies(service)
        if service == "ICU" or all(phase.service != "ICU" for phase in one.phases)
        if service == "ICU" or len(one.phases) == 1
    ]
    logs = [math.log(one) for one in days if one < 60]  # none is longer
    found = stats.kstest(logs, stats.norm(math.log(profile.median), profile.sigma).cdf)
    assert found.pvalue > 1e-3


def test_expected_stays_are_wrong_and_get_better() -> None:
    long = [one for one in COME if one.hours > 24 * 6]
    wrong = [[math.log((one.expected[day] - day * 24) / (one.hours - day * 24)) for one in long] for day in (0, 5)]
    for errors in wrong:  # of what is left, always by as large a factor
        assert abs(sum(errors) / len(errors)) < 0.03
        assert stats.tstd(errors) == pytest.approx(0.45, abs=0.03)
    ends = [[abs(one.expected[day] - one.hours) for one in long] for day in (0, 5)]
    assert sum(ends[1]) < 0.8 * sum(ends[0])


def test_beds_are_as_full_as_they_should_be() -> None:
    """Bed days that come, over bed days that there are, without the surge: within a tenth of what was asked for."""
    days = Counter[str]()
    for one in COME:
        if 30 <= one.at / 24 < YEAR:
            ends = [phase.at for phase in one.phases[1:]] + [one.hours]
            for phase, end in zip(one.phases, ends, strict=True):
                days[phase.service] += (end - phase.at) / 24  # type: ignore[assignment]
    for service, beds in LARGE.premises.services.items():
        if service not in ("ICU", "PED"):
            assert days[service] / (beds * (YEAR - 30)) == pytest.approx(0.84, rel=0.1), service


# --- what it tells


def test_the_same_arguments_tell_the_same_story(story: list[Told]) -> None:
    assert list(Days("small", 4, 2, END).tell(by_priority)) == story


def test_another_end_uses_other_message_ids(story: list[Told]) -> None:
    other = Days("small", 4, 2, END + timedelta(days=7)).tell(by_priority)
    assert not {_id(one) for one in story if isinstance(one, SimulatedMessage)} & {
        _id(one) for one in other if isinstance(one, SimulatedMessage)
    }


def _id(message: SimulatedMessage) -> bytes:
    return message.body.split(b"|", 10)[9]


def test_in_order_of_time_and_within_the_days(story: list[Told]) -> None:
    assert [one.at for one in story] == sorted(one.at for one in story)
    assert story[0].at == NEW
    assert story[-1].at <= NEW + timedelta(days=2)


def test_adt_is_read_as_what_it_tells(story: list[Told]) -> None:
    sent = [one for one in story if isinstance(one, SimulatedMessage)]
    assert {one.message_type for one in sent} == {f"ADT^A0{event}" for event in (1, 2, 3, 4, 5, 8)}
    assert len({_id(one) for one in sent}) == len(sent)
    beds = {one.id for one in premises("small", 0, 1).house.beds}
    for one in sent:
        lines = {line.split(b"|", 1)[0]: line.decode().split("|") for line in one.body.split(b"\r")}
        unit, room, bed, house = lines[b"PV1"][3].split("^")
        assert house == "HARBOUR"
        assert (unit, room) == ("ED", "WAIT") or f"{unit}|{room}|{bed}" in beds
        if one.message_type in ("ADT^A01", "ADT^A02"):
            assert lines[b"PV2"][9]  # PV2-9


def test_a_bed_has_one_patient_on_the_wire(story: list[Told]) -> None:
    lies: dict[str, str] = {}
    for one in story:
        if isinstance(one, SimulatedMessage):
            fields = {line.split(b"|", 1)[0]: line.decode().split("|") for line in one.body.split(b"\r")}
            place, prior, event = fields[b"PV1"][3], fields[b"PV1"][6], one.message_type[-3:]
            if event == "A02":
                assert lies.pop(prior) == one.patient
            if event in ("A01", "A02"):
                assert place not in lies
                lies[place] = one.patient
            elif event == "A03":
                assert lies.pop(place) == one.patient
    assert len(lies) > 100


def test_operations_say_what_adt_does_not(story: list[Told]) -> None:
    told = [one.body for one in story if isinstance(one, Operation)]
    assert {one["type"] for one in told} == {"location", "shift", "resource", "price", "placement", "request"}
    beds = [one for one in told if one["type"] == "location" and "services" in one]
    assert len(beds) == 200
    asked = {one["id"] for one in told if one["type"] == "request" and one["action"] == "set"}
    given_up = {one["id"] for one in told if one["type"] == "request" and one["action"] == "cancel"}
    assert given_up <= asked
    assert all(one["at"].endswith("Z") for one in told)
    assert all(one["starts_at"] < one["ends_at"] for one in told if one["type"] == "shift")


def test_operations_are_read_by_our_own_feed(story: list[Told]) -> None:
    read = [events.read(one.body, "operations:test") for one in story if isinstance(one, Operation)]
    assert len(read) > 100


# --- the command


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    producers.cli.register(made)
    return made


def test_the_command_writes_both(app: typer.Typer, tmp_path: Path) -> None:
    hl7, rows = tmp_path / "day.hl7", tmp_path / "day.ndjson"
    done = CliRunner().invoke(
        app,
        ["simulate", "--hospital", "small", "--days", "1", "--out", str(hl7), "--operations", str(rows), "--json"],
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["written"] == hl7.read_bytes().count(b"MSH|")
    assert {json.loads(line)["site"] for line in rows.read_text().splitlines()} == {"HARBOUR"}


def test_the_command_compares(app: typer.Typer) -> None:
    arguments = ["--hospital", "small", "--policy", "greedy", "--days", "2", "--seeds", "2", "--jobs", "1", "--json"]
    done = CliRunner().invoke(app, ["simulate", *arguments])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["policies"] == ["greedy", "fcfs"]
    waits = found["measures"]["wait_hours"]
    assert waits["differences"]["fcfs"]["mean"] == pytest.approx(
        waits["means"]["greedy"]["mean"] - waits["means"]["fcfs"]["mean"]
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--policy", "greedy"],
        ["--operations", "x.ndjson"],
        ["--hospital", "huge"],
        ["--hospital", "small", "--policy", "best"],
    ],
)
def test_what_the_command_refuses(app: typer.Typer, arguments: list[str]) -> None:
    done = CliRunner().invoke(app, ["simulate", *arguments])
    assert isinstance(done.exception, UsageError)


def test_who_is_compared_with_whom() -> None:
    assert beside("fcfs") == ("fcfs",)
    assert beside("greedy") == ("greedy", "fcfs")
