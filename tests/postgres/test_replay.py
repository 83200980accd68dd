"""Replaying into a throw-away place, from the database and from an export, and the verbs that do it."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.cli import run
from api.replaying import Past, ReplayError, differing, from_database, from_export, into_schema
from ledger.database import Reads
from ledger.events import AuditRead
from ledger.exports import LINES, Manifest, last_line
from ledger.record import Filter, Question, Record
from ledger.recorded import RecordedEvent
from ledger.tlog.merkle import root_of
from ledger.tlog.note import VerifierKey, sign, verifier_key
from projections.registry import INLINE
from projections.replay import Folds, Tables, digest_of
from projections.what_if import Without
from support.appending import assert_right
from support.databases import Cluster, Database
from support.past import generate

pytestmark = pytest.mark.postgres

EVENTS = 1500
WHOLE = Past()
ORIGIN = "test.example/fedledger"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PRIVATE.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
LOG_KEY = verifier_key(ORIGIN, PUBLIC)


def nobody(what: str, done: int, total: int) -> None:
    """Is told how far it is, and does not care."""


@pytest.fixture
def past(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Database]:
    filled = cluster.filled(f"past_{EVENTS}", lambda made: generate(made.owner_dsn, EVENTS))
    with filled as database:
        monkeypatch.setenv("FEDLEDGER_DSN", database.service_dsn)
        monkeypatch.setenv("FEDLEDGER_OWNER_DSN", database.owner_dsn)
        monkeypatch.setenv("FEDLEDGER_HOME", str(tmp_path / "home"))
        yield database


@pytest.fixture
def recorded(past: Database) -> list[RecordedEvent]:
    reads = Reads(past.service_dsn, 1)
    events = list(Record(reads).all())
    reads.close()
    return events


def digest(events: list[RecordedEvent]) -> str:
    """The digest of a state folded all in memory: another way to the same bytes."""
    folds = Folds()
    for one in events:
        folds.take(one.event)
    return digest_of(Tables(INLINE), folds).hex


def export_of(events: list[RecordedEvent], path: Path, **changes: Any) -> Path:
    """An export as the service makes it; `changes` of its manifest."""
    data = b"".join(map(LINES["jsonl"], events))
    manifest = Manifest(
        origin=ORIGIN,
        format="jsonl",
        filter=(),
        first=1,
        last=events[-1].position,
        count=len(events),
        sha256=sha256(data).hexdigest(),
        tree_size=events[-1].position,
        tree_root=root_of(event.leaf for event in events),
        record=None,
        made_at=events[-1].recorded_at,
    )
    key = VerifierKey(ORIGIN, PUBLIC)
    note = sign(replace(manifest, **changes).text(), key, PRIVATE.sign)
    path.write_bytes(data + last_line("jsonl", note))
    return path


def readings(past: Database) -> list[tuple[str, str, Any, int]]:
    """What was recorded of reading: by whom, which operation, the conditions, how many events."""
    reads = Reads(past.service_dsn, 1)
    wanted = Filter(Question(topics=("audit.read.v1",)), first=EVENTS + 1)
    events = [one.event for one in Record(reads).all(wanted)]
    reads.close()
    return [
        (event.actor.id, event.data.operation, event.data.filter, event.data.count)
        for event in events
        if isinstance(event.data, AuditRead)
    ]


def test_three_ways_to_the_same_state(
    past: Database, recorded: list[RecordedEvent], tmp_path: Path
) -> None:
    expected = digest(recorded)
    done = from_database(past.service_dsn, WHOLE, tmp_path / "state", nobody)
    assert (done.position, done.events, done.digest) == (EVENTS, EVENTS, expected)
    exported = from_export(export_of(recorded, tmp_path / "x"), WHOLE, tmp_path / "two", nobody)
    assert exported == done
    files = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert files == sorted([*(f"{table.table}.jsonl" for table in INLINE), "state.json"])
    for name in files:
        assert (tmp_path / "state" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    lines = (tmp_path / "state" / "federation_certificates.jsonl").read_bytes().splitlines()
    serials = [json.loads(line)["serial"] for line in lines]
    assert serials == sorted(serials)
    assert len(serials) == done.rows["federation_certificates"] > 10
    assert list(tmp_path.glob(".replay-*")) == [], "nothing is left over"


@pytest.mark.parametrize("position", [1, 77, 700, EVENTS])
def test_up_to_any_point(
    past: Database, recorded: list[RecordedEvent], tmp_path: Path, position: int
) -> None:
    expected = digest(recorded[:position])
    assert from_database(past.service_dsn, Past(position), None, nobody).digest == expected
    path = export_of(recorded, tmp_path / "x")
    assert from_export(path, Past(position), None, nobody).digest == expected
    moment = recorded[position - 1].recorded_at
    until = recorded.index(next((e for e in recorded if e.recorded_at > moment), recorded[-1]))
    last = until if recorded[-1].recorded_at > moment else EVENTS
    at = from_database(past.service_dsn, Past(moment=moment), None, nobody)
    assert (at.position, at.digest) == (last, digest(recorded[:last]))
    assert from_export(path, Past(moment=moment), None, nobody) == at


def test_one_stream_alone(past: Database, recorded: list[RecordedEvent]) -> None:
    chosen = next(one.stream_id for one in recorded if one.topic == "grant.activated.v1")
    done = from_database(past.service_dsn, Past(streams=[chosen]), None, nobody)
    assert done.digest == digest([one for one in recorded if one.stream_id == chosen])


def test_what_cannot_be_replayed_leaves_nothing(
    past: Database, recorded: list[RecordedEvent], tmp_path: Path
) -> None:
    whole = export_of(recorded, tmp_path / "x")
    # A part that does not fold: what it lacks must not be taken for a mistake in what it has.
    some = [one for one in recorded if one.version > 1]
    part = export_of(some, tmp_path / "part", filter=(("words", "any"),))
    late = export_of(recorded[9:], tmp_path / "late", first=10, filter=(("since", "then"),))
    (tmp_path / "cut").write_bytes(whole.read_bytes()[:-200])
    (tmp_path / "there").mkdir()
    out, dsn, nowhere = tmp_path / "out", past.service_dsn, Past(streams=[uuid4()])
    behind = Past(moment=recorded[-1].recorded_at + timedelta(microseconds=1))
    without = Without(1)
    attempts: list[tuple[str, Callable[[], object]]] = [
        ("a part of the ledger", lambda: from_export(part, WHOLE, out, nobody)),
        ("a part of the ledger", lambda: from_export(late, WHOLE, out, nobody)),
        ("a part of the ledger", lambda: differing(None, part, WHOLE, without, nobody)),
        ("a part of the ledger", lambda: differing(None, late, WHOLE, without, nobody)),
        ("no manifest", lambda: from_export(tmp_path / "cut", WHOLE, out, nobody)),
        (f"ends at position {EVENTS}", lambda: from_export(whole, Past(EVENTS + 1), out, nobody)),
        ("ends before that moment", lambda: from_export(whole, behind, out, nobody)),
        ("ends before that moment", lambda: differing(None, whole, behind, without, nobody)),
        ("no stream", lambda: from_export(whole, nowhere, out, nobody)),
        (f"ends at position {EVENTS}", lambda: from_database(dsn, Past(EVENTS + 1), out, nobody)),
        ("no stream", lambda: from_database(dsn, nowhere, out, nobody)),
        ("exists", lambda: from_database(dsn, WHOLE, tmp_path / "there", nobody)),
        ("is no folder", lambda: from_database(dsn, WHOLE, tmp_path / "not" / "there", nobody)),
    ]
    for what, attempt in attempts:
        with pytest.raises(ReplayError, match=what):
            attempt()
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob(".replay-*")) == []


def test_into_a_schema_of_its_own(past: Database) -> None:
    into_schema(past.owner_dsn, WHOLE, "afterwards", nobody)
    with psycopg.connect(past.owner_dsn) as connection:
        for table in INLINE:
            name = table.table
            query = f"(TABLE {name} EXCEPT TABLE afterwards.{name}) UNION ALL (TABLE afterwards.{name} EXCEPT TABLE {name})"
            assert connection.execute(query.encode()).fetchall() == [], name
    with pytest.raises(ReplayError, match="exists"):
        into_schema(past.owner_dsn, WHOLE, "afterwards", nobody)
    assert_right(past)


# ---- the verbs --------------------------------------------------------------------------------


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    capsys.readouterr()
    code = run([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out or "null")


def test_replay_from_the_command_line(
    past: Database,
    recorded: list[RecordedEvent],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, document = said(capsys, "replay", "--to", "700", "--out", str(tmp_path / "state"))
    assert (code, document["digest"]) == (0, digest(recorded[:700]))
    assert json.loads((tmp_path / "state" / "state.json").read_text()) == document
    assert run(["replay", "--to", "700", "--schema", "afterwards", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == document
    assert "DROP SCHEMA afterwards CASCADE" in err
    path = export_of(recorded, tmp_path / "x")
    of_export = ["replay", "--to", "700", "--from-export", str(path), "--log-key"]
    assert said(capsys, *of_export, LOG_KEY) == (0, document)
    # Nothing is folded of what nobody trusted has signed, or what was altered since.
    assert run(of_export[:-1]) == 2
    assert "no log key" in capsys.readouterr().err
    assert run([*of_export, verifier_key(ORIGIN, bytes(32))]) == 6
    assert "this export is not right" in capsys.readouterr().err
    altered = path.read_bytes().replace(b'"reason":null', b'"reason":"no"', 1)
    path.write_bytes(altered)
    assert said(capsys, *of_export, LOG_KEY) == (6, None)
    assert run(["replay", "--log-key", LOG_KEY]) == 2
    assert run(["replay", "--schema", "public"]) == 2
    assert run(["replay", "--to", "yesterday"]) == 2
    assert run(["replay", "--to", "2999-01-01T00:00:00Z"]) == 2
    assert "has not been yet" in capsys.readouterr().err
    assert run(["replay", "--to", str(EVENTS + 100)]) == 1
    kept = readings(past)
    uid = f"uid:{os.getuid()}"
    assert kept == [
        (uid, "replay", (("to", "700"),), 700),
        (uid, "replay", (("schema", "afterwards"), ("to", "700")), 700),
    ]


def test_what_if_from_the_command_line(
    past: Database,
    recorded: list[RecordedEvent],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    activated = next(one for one in recorded if one.topic == "grant.activated.v1")
    proposed = next(one for one in recorded if one.stream_id == activated.stream_id)
    code, document = said(capsys, "replay", "--without", str(proposed.position))
    assert code == 0
    assert document["events"][0]["position"] == proposed.position
    gone = {(one["kind"], one["id"]): one["altered"] for one in document["changed"]}
    assert gone[("grant", str(activated.stream_id))] is None
    path = export_of(recorded, tmp_path / "x")
    without = ["replay", "--without", str(proposed.position)]
    assert said(capsys, *without, "--from-export", str(path), "--log-key", LOG_KEY) == (0, document)
    at = (activated.recorded_at + timedelta(microseconds=0)).isoformat()
    wish = f"grant={activated.stream_id}@{at}"
    code, document = said(capsys, "replay", "--revoke", wish)
    statuses = {one["id"]: one["altered"] for one in document["changed"] if one["kind"] == "grant"}
    assert (code, statuses.get(str(activated.stream_id), "revoked")) == (0, "revoked")
    assert run(["replay", "--revoke", wish]) == 0, "for people, too"
    assert run(["replay", "--without", str(EVENTS + 100)]) == 1
    assert run(["replay", "--without", "1", "--out", "x"]) == 2
    kept = readings(past)
    assert [(operation, pairs) for _, operation, pairs, _ in kept[:2]] == [
        ("replay.what-if", (("without", str(proposed.position)),)),
        ("replay.what-if", (("revoke", wish),)),
    ]
    assert kept[0][3] == EVENTS


def test_every_planted_difference_is_found_and_mended(
    past: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "projections", "verify") == (0, {"events": EVENTS, "differences": []})
    planted = 0
    with psycopg.connect(past.owner_dsn, autocommit=True) as connection:
        for table in INLINE:
            name, key = table.table, table.key[0]
            column = next(c for c, kind in table.columns if kind == "timestamptz")
            row = f"SELECT {key} FROM {name} ORDER BY {key} LIMIT 1"
            changed = connection.execute(
                f"UPDATE {name} SET {column} = '2020-01-01Z' WHERE {key} = ({row})".encode()
            )
            planted += changed.rowcount
        lost = "DELETE FROM federation_grants WHERE id = (SELECT max(id::text)::uuid FROM federation_grants)"
        planted += connection.execute(lost.encode()).rowcount
        made_up = """INSERT INTO federation_credentials VALUES
            ('zzzzzzzzzzzzzzzz', gen_random_uuid(), 'x', now(), now(), NULL)"""
        planted += connection.execute(made_up).rowcount
    code, document = said(capsys, "projections", "verify")
    assert (code, len(document["differences"])) == (6, planted)
    assert planted > len(INLINE)
    missing = {
        "row": "federation_credentials zzzzzzzzzzzzzzzz",
        "difference": "no event is behind it",
    }
    assert missing in document["differences"]
    assert run(["projections", "verify", "--only", "present"]) == 6
    assert "doctor" in capsys.readouterr().err, (
        "events are not called right that nobody has checked"
    )
    code, document = said(capsys, "projections", "rebuild", "--only", "present", "--pause", "10000")
    assert (code, document["present"]["events"]) == (0, EVENTS)
    assert said(capsys, "projections", "verify")[0] == 0
    assert said(capsys, "projections", "rebuild", "--abort") == (0, {"given_up": []})
    assert_right(past)
