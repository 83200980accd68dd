"""A topic gets a second version: what was stored as the first stays as it is and is read as the second."""

from typing import Any, ClassVar

import psycopg
import pytest

from api.replaying import Past, from_database
from ledger import bodies, mapper
from ledger.bodies import stored_json
from ledger.database import Reads
from ledger.events import TOPICS, PeerRegistered
from ledger.record import Record
from projections.registry import SOURCES
from projections.verify_tables import check_tables
from support.appending import assert_right, register, store_on
from support.databases import Database

pytestmark = pytest.mark.postgres

FIRST, SECOND = "peer.registered.v1", "peer.registered.v2"


class PeerRegisteredV2(PeerRegistered):
    """A synthetic second version, for this file only: it says where the peer is, too."""

    TOPIC: ClassVar[str] = SECOND
    country: str


def upcast(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "country": "unknown"}


def stored(database: Database) -> list[tuple[Any, ...]]:
    with psycopg.connect(database.service_dsn) as connection:
        query = "SELECT position, topic, body, leaf FROM ledger_events ORDER BY position"
        return connection.execute(query).fetchall()


def test_old_events_stay_fold_verify_and_replay_as_before(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_on(database.service_dsn)
    peers = [register(store).value for _ in range(3)]
    store.close()
    bytes_before = stored(database)
    state_before = from_database(database.service_dsn, Past(), None, lambda *_: None)

    # The release that brings the second version; the class of the first stays in the registry.
    monkeypatch.setattr(bodies, "TOPICS", {**TOPICS, SECOND: PeerRegisteredV2})
    monkeypatch.setitem(mapper.UPCASTS, FIRST, (SECOND, upcast))  # type: ignore[arg-type]

    reads = Reads(database.service_dsn, 1)
    events = [one.event for one in Record(reads).all()]
    reads.close()
    assert [type(event.data) for event in events] == [PeerRegisteredV2] * 3
    assert {stored_json(event.data)["country"] for event in events} == {"unknown"}
    later = store_on(database.service_dsn)
    assert [later.load(type(peer), peer.id) for peer in peers] == peers
    later.close()
    assert assert_right(database) == 3
    for source in SOURCES:
        found: list[Any] = []
        check_tables(database.service_dsn, source, found.append)
        assert found == []
    assert from_database(database.service_dsn, Past(), None, lambda *_: None) == state_before
    assert stored(database) == bytes_before
