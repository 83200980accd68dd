"""The home's memory of the ledger: what no check inside the database can tell."""

import psycopg
import pytest

from api import wiring
from api.last_seen import LastSeen
from support.databases import Database
from support.http import House
from support.tampering import rewrite


def last_seen(place: House) -> LastSeen:
    return LastSeen(place.home, place.parts.services.ledger.record)


def position_of(place: House, topic: str) -> int:
    listed = place.ok("event.list", query=f"topic={topic}")
    return int(listed["items"][0]["position"])


def test_a_ledger_that_grew_is_the_one_seen_before(place: House) -> None:
    memory = last_seen(place)
    assert memory.objection() is None, "nothing was seen yet"
    size = memory.remember()
    place.peer()
    assert memory.objection() is None
    assert memory.remember() > size
    assert memory.objection() is None


def test_history_rewritten_whole_is_told(place: House, database: Database) -> None:
    place.peer()
    memory = last_seen(place)
    memory.remember()
    place.peer("Another Peer")
    rewrite(database, position_of(place, "peer.registered.v1"))
    assert "others than were seen before" in str(memory.objection())
    with pytest.raises(wiring.LostHistoryError, match=r"others than.*last-seen-head"):
        wiring.refuse_lost_history(place.parts.services.ledger, place.home)
    rewrite(database, position_of(place, "peer.registered.v1"), back=True)
    assert memory.objection() is None


def test_the_service_stops_writing_within_a_round(place: House, database: Database) -> None:
    place.peer()
    place.parts.maintenance.round()
    assert place.call("health.ready").status_code == 200
    rewrite(database, position_of(place, "peer.registered.v1"))
    place.parts.maintenance.round()
    refused = place.call(
        "peer.register", {"name": "Late", "base_url": "https://late.example"}, token=place.admin
    )
    assert (refused.status_code, refused.json["code"]) == (503, "lost-history")
    assert place.call("health.ready").status_code == 503
    rewrite(database, position_of(place, "peer.registered.v1"), back=True)


def test_events_cut_off_the_end_are_told(place: House, database: Database) -> None:
    memory = last_seen(place)
    memory.remember()
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE ledger_events DISABLE TRIGGER USER")
        cut = connection.execute(
            "DELETE FROM ledger_events WHERE position = (SELECT size FROM ledger_head) RETURNING *"
        ).fetchone()
        assert "no longer all there" in str(memory.objection())
        assert cut is not None
        connection.execute("INSERT INTO ledger_events VALUES (%s, %s, %s, %s, %s, %s, %s)", cut)
    assert memory.objection() is None


@pytest.mark.parametrize("text", ["", "12", "12 zz", "-1 " + "00" * 32, "1 00"])
def test_a_memory_that_cannot_be_read_is_no_good_news(place: House, text: str) -> None:
    memory = last_seen(place)
    memory.remember()
    memory.file.write_text(text)
    assert "cannot be read" in str(memory.objection())
