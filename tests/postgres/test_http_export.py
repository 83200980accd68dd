"""Exports over HTTP: whole, signed, flat, recorded; and what is left of those that are cut off."""

import io
from typing import Any

import pytest

from ledger.bodies import stored_json
from ledger.events import AuditRead
from ledger.export_reading import ExportReader, Verified
from ledger.exports import ExportError
from ledger.recorded import RecordedEvent
from ledger.tlog.note import VerifierKey
from support.http import ORIGIN, House


def key_of(place: House) -> VerifierKey:
    return place.parts.services.exports.key.verifier(ORIGIN)


def fetched(place: House, query: str = "", token: str | None = None) -> bytes:
    answer = place.call("event.export", token=token or place.admin, query=query)
    assert answer.status_code == 200, answer.text
    data: bytes = answer.content
    return data


def read(place: House, data: bytes) -> tuple[list[RecordedEvent], Verified]:
    reader = ExportReader(io.BytesIO(data))
    events = list(reader.events())
    return events, reader.verify([key_of(place)])


def head(place: House) -> Any:
    return place.parts.services.ledger.record.head()


def lived_in(place: House) -> None:
    for name in ("One", "Two"):
        grant = place.grant(place.peer(name)["id"])
        place.ok(
            "grant.suspend", {"reason": f'because of "{name}"\nand more'}, grant_id=grant["id"]
        )


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_the_whole_ledger_to_its_root(place: House, kind: str) -> None:
    lived_in(place)
    before = head(place)
    events, verified = read(place, fetched(place, f"format={kind}"))
    record = place.parts.services.ledger.record
    assert events == record.range(1, before.size)
    assert verified.root_shown
    manifest = verified.manifest
    assert (manifest.tree_size, manifest.tree_root) == (before.size, before.root)
    assert manifest.origin == ORIGIN
    # Who took it is on record, and the manifest says where.
    assert manifest.record == before.size + 1
    made = record.at(before.size + 1)
    assert made.topic == "export.made.v1"
    assert stored_json(made.event.data) == {
        "format": kind, "filter": [], "first_position": 1,
        "last_position": before.size, "count": before.size, "sha256": manifest.sha256,
    }  # fmt: skip
    assert made.event.actor.roles == ("admin",)


def test_a_part_says_what_it_is_a_part_of(place: House) -> None:
    lived_in(place)
    events, verified = read(place, fetched(place, "topic=grant.suspended.v1&words=more&after=3"))
    assert [one.topic for one in events] == ["grant.suspended.v1"] * 2
    manifest = verified.manifest
    assert manifest.filter == (("topic", "grant.suspended.v1"), ("words", "more"))
    assert manifest.first == 4
    assert not verified.root_shown
    since = events[0].recorded_at.isoformat().replace("+00:00", "Z")
    later, verified = read(place, fetched(place, f"since={since}"))
    assert later[0] == events[0]
    assert not verified.manifest.selective
    nothing, verified = read(place, fetched(place, "words=nothingofthesort"))
    assert nothing == []
    assert verified.manifest.count == 0
    beyond, verified = read(place, fetched(place, f"after={2**53}&before=1"))
    assert beyond == []
    assert verified.manifest.count == 0


def test_an_auditor_may(place: House) -> None:
    read(place, fetched(place, token=place.operator("auditor")))


def test_another_key_is_not_believed(place: House) -> None:
    reader = ExportReader(io.BytesIO(fetched(place)))
    list(reader.events())
    with pytest.raises(ExportError, match="no known key"):
        reader.verify([VerifierKey(ORIGIN, bytes(31) + b"\x01")])


def test_without_the_log_key_nothing_is_sent(place: House) -> None:
    path = place.home / "keys" / "log.key"
    path.rename(path.with_suffix(".away"))
    answer = place.call("event.export", token=place.admin)
    assert (answer.status_code, answer.json["code"]) == (503, "log-key-unusable")
    path.with_suffix(".away").rename(path)
    fetched(place)


def test_a_few_at_a_time(place: House) -> None:
    places = place.parts.services.exports.places
    while places.acquire(blocking=False):
        pass
    answer = place.call("event.export", token=place.admin)
    assert (answer.status_code, answer.json["code"]) == (503, "occupied")
    places.release()
    for _ in range(5):  # each gives its place back
        fetched(place)


def test_what_was_cut_off_is_recorded_as_a_reading(place: House) -> None:
    lived_in(place)
    before = head(place).size
    token = {"HTTP_AUTHORIZATION": f"Bearer {place.admin}"}
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/v1/export", "QUERY_STRING": "", "SERVER_NAME": "x",
        "SERVER_PORT": "1", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO(), "REMOTE_ADDR": "127.0.0.1", **token,
    }  # fmt: skip
    body = place.parts.app(environ, lambda *_: None)
    chunks = iter(body)
    first = next(chunks)
    body.close()
    assert first
    with pytest.raises(ExportError, match="cut off"):
        list(ExportReader(io.BytesIO(first)).events())
    (reading,) = place.parts.services.ledger.record.range(before + 1, before + 5)
    assert reading.topic == "audit.read.v1"
    assert isinstance(reading.event.data, AuditRead)
    assert reading.event.data.operation == "event.export"
    assert reading.event.data.count == before
    read(place, fetched(place))  # and the place was given back


def test_an_export_is_made_while_nothing_can_be_written(place: House) -> None:
    place.parts.services.ledger.stop_writing("a test says so")
    data = fetched(place)
    _, verified = read(place, data)
    assert verified.manifest.record is None
