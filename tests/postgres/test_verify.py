"""check_ledger finds what is wrong, whatever it is."""

import psycopg
import pytest

from projections.verify import check_ledger, check_newest
from support.appending import assert_right, register, store_on
from support.databases import Database

pytestmark = pytest.mark.postgres


def test_the_check_itself_finds_what_is_wrong(database: Database) -> None:
    """Each thing that could be tampered with, in turn: the check says so."""
    store = store_on(database.service_dsn)
    for _ in range(3):
        register(store)
    store.close()
    assert assert_right(database) == 3
    for tampering in TAMPERINGS:
        with psycopg.connect(database.superuser_dsn) as connection:
            # What a superuser can do all the same: take the triggers away first.
            for table in ("ledger_events", "ledger_claims", "ledger_nodes", "ledger_idempotency"):
                connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL".encode())
            connection.execute(tampering.encode())
            connection.commit()
        report = check_ledger(database.owner_dsn)
        assert not report.ok, tampering
        with psycopg.connect(database.superuser_dsn) as connection:
            connection.execute(TAMPERINGS[tampering].encode())
        assert check_ledger(database.owner_dsn).ok, tampering


TAMPERINGS = {
    "UPDATE ledger_events SET recorded_at = recorded_at + '1 us'::interval WHERE position = 3": (
        "UPDATE ledger_events SET recorded_at = recorded_at - '1 us'::interval WHERE position = 3"
    ),
    "UPDATE ledger_events SET version = 2 WHERE position = 2": (
        "UPDATE ledger_events SET version = 1 WHERE position = 2"
    ),
    "UPDATE ledger_events SET topic = 'peer.revoked.v1' WHERE position = 2": (
        "UPDATE ledger_events SET topic = 'peer.registered.v1' WHERE position = 2"
    ),
    "UPDATE ledger_events SET body = body || ' ' WHERE position = 2": (
        "UPDATE ledger_events SET body = substring(body FROM 1 FOR octet_length(body) - 1)"
        " WHERE position = 2"
    ),
    "UPDATE ledger_events SET position = 4 WHERE position = 3": (
        "UPDATE ledger_events SET position = 3 WHERE position = 4"
    ),
    "UPDATE ledger_head SET last_recorded_at = last_recorded_at + '1 s'::interval": (
        "UPDATE ledger_head SET last_recorded_at = last_recorded_at - '1 s'::interval"
    ),
    "UPDATE ledger_head SET size = 7": "UPDATE ledger_head SET size = 3",
    "INSERT INTO ledger_nodes VALUES (8, 0, sha256(''))": "DELETE FROM ledger_nodes",
    "INSERT INTO ledger_claims VALUES ('serial', 'x', gen_random_uuid(), 1)": (
        "DELETE FROM ledger_claims WHERE kind = 'serial'"
    ),
    "UPDATE ledger_claims SET position = position % 3 + 1": (
        "UPDATE ledger_claims SET position = (position + 1) % 3 + 1"
    ),
    "UPDATE ledger_claims SET kind = 'x'": "UPDATE ledger_claims SET kind = 'peer-name'",
    "INSERT INTO ledger_idempotency VALUES ('c', 'm', 'p', 'k', 'b', 2, 2)": (
        "DELETE FROM ledger_idempotency"
    ),
    "UPDATE federation_peers SET state = 'active'": "UPDATE federation_peers SET state = 'pending'",
    "UPDATE federation_peers SET id = gen_random_uuid() WHERE version = 1"
    " AND id = (SELECT stream_id FROM ledger_events WHERE position = 1)": (
        "UPDATE federation_peers SET id = (SELECT stream_id FROM ledger_events WHERE position = 1)"
        " WHERE id NOT IN (SELECT stream_id FROM ledger_events)"
    ),
}


def test_the_newest_part_is_checked_against_the_stored_subtrees(database: Database) -> None:
    """Sizes at which one, two and three stored subtree roots stand for what is taken on trust."""
    store = store_on(database.service_dsn)
    for size in (100, 300, 600, 1000):
        while store.record.head().size < size:
            register(store)
        whole, part = check_ledger(database.owner_dsn), check_newest(database.owner_dsn, 40)
        assert (part.violations, part.size, part.root) == ((), size, whole.root)
    store.close()
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        for table in ("ledger_events", "ledger_nodes"):
            connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL".encode())
        topic = "UPDATE ledger_events SET topic = %s WHERE position = 1000"
        (hash_,) = connection.execute("SELECT hash FROM ledger_nodes WHERE index = 0").fetchone() or (b"",)  # fmt: skip
        node = "UPDATE ledger_nodes SET hash = %s WHERE index = 0"
        for change, wrong, right in (
            (topic, "peer.revoked.v1", "peer.registered.v1"),
            (node, bytes(32), hash_),
        ):
            connection.execute(change, [wrong])
            assert not check_newest(database.owner_dsn, 40).ok, change
            connection.execute(change, [right])
            assert check_newest(database.owner_dsn, 40).ok, change
        connection.execute("DELETE FROM ledger_nodes WHERE index = 0")
        assert not check_newest(database.owner_dsn, 40).ok
