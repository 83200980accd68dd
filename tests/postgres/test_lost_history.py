"""The database put back behind a running process: noticed, said once, and nothing written any more."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from ledger.errors import UnavailableError
from ledger.events import CallDenied
from ledger.store import Store
from support.appending import assert_right, event_of, outcomes, register, store_on, update
from support.databases import Database
from support.tampering import rewrite

pytestmark = pytest.mark.postgres

NOTE = CallDenied(operation="GET /v1/events", problem="forbidden", count=1)


@contextmanager
def backup(database: Database) -> Iterator[str]:
    """A copy of the database as it stands now; nobody may be connected."""
    name = f"{database.name}_backup"
    maintain(database, "CREATE DATABASE {copy} TEMPLATE {name}", copy=name, name=database.name)
    try:
        yield name
    finally:
        maintain(database, "DROP DATABASE IF EXISTS {copy}", copy=name)


def restore(database: Database, copy: str) -> None:
    """What a restore does: the database goes away under its users and an older one comes back."""
    maintain(database, "DROP DATABASE {name} WITH (FORCE)", name=database.name)
    maintain(database, "ALTER DATABASE {copy} RENAME TO {name}", copy=copy, name=database.name)


def maintain(database: Database, statement: str, **names: str) -> None:
    with psycopg.connect(database.superuser_dsn, dbname="postgres", autocommit=True) as connection:
        identifiers = {key: sql.Identifier(name) for key, name in names.items()}
        connection.execute(sql.SQL(statement).format(**identifiers))


def refused(store: Store) -> None:
    for outcome in outcomes([lambda: register(store)] * 4):
        assert isinstance(outcome, UnavailableError)
        assert outcome.code == "lost-history"


@pytest.mark.parametrize("others", [0, 2, 5], ids=["shorter", "as long", "longer"])
def test_a_restored_backup_is_noticed(
    database: Database, others: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when others have written on meanwhile, up to or beyond what this process had seen."""
    first = store_on(database.service_dsn)
    register(first)
    first.close()
    with backup(database) as copy:
        store = store_on(database.service_dsn)
        register(store)
        register(store)
        restore(database, copy)
        other = store_on(database.service_dsn)
        for _ in range(others):
            register(other)
        other.close()

        with caplog.at_level(logging.ERROR, "ledger"):
            refused(store)
            refused(store)
        assert [record.name for record in caplog.records].count("ledger.history") == 1
        assert store.lost_history is not None
        assert assert_right(database) == 1 + others
        store.close()


def test_reading_the_head_notices_it_too(database: Database) -> None:
    store = store_on(database.service_dsn)
    store.close()
    with backup(database) as copy:
        store = store_on(database.service_dsn)
        register(store)
        restore(database, copy)
        with pytest.raises(UnavailableError) as caught:
            store.record.head()
        assert caught.value.code == "lost-history"
        refused(store)
        store.close()
    assert assert_right(database) == 0


def test_a_head_put_back_by_hand_is_noticed(database: Database) -> None:
    """Events beyond the head: their positions are never given again."""
    store = store_on(database.service_dsn)
    register(store)
    with psycopg.connect(database.owner_dsn) as connection:
        connection.execute("UPDATE ledger_head SET size = 0, frontier = ''")
    other = store_on(database.service_dsn)
    refused(other)
    refused(store)
    store.close()
    other.close()


def test_a_frontier_of_another_size_is_noticed(database: Database) -> None:
    store = store_on(database.service_dsn)
    register(store)
    with psycopg.connect(database.owner_dsn) as connection:
        connection.execute("UPDATE ledger_head SET frontier = ''")
    refused(store)
    store.close()


def test_contention_is_not_lost_history(database: Database) -> None:
    one, two = store_on(database.service_dsn), store_on(database.service_dsn)
    peer = register(one).value.id
    for n in range(10):
        update((one, two)[n % 2], peer, f"https://{n}.example")
        one.record.head()
        two.record.head()
    assert (one.lost_history, two.lost_history) == (None, None)
    one.close()
    two.close()
    assert assert_right(database) == 11


def test_reading_goes_on(database: Database) -> None:
    store = store_on(database.service_dsn)
    peer = register(store).value.id
    with psycopg.connect(database.owner_dsn) as connection:
        connection.execute("UPDATE ledger_head SET frontier = ''")
    refused(store)
    assert [row.position for row in store.record.stream(peer)] == [1]
    store.close()


def test_history_rewritten_whole_is_noticed_by_who_writes(database: Database) -> None:
    """Nothing inside the database contradicts it: only a memory outside of it can."""
    store = store_on(database.service_dsn)
    for _ in range(5):
        register(store)
    rewrite(database, 2)
    refused(store)
    assert store.lost_history is not None
    store.close()


def test_the_root_of_every_size_is_as_it_was(database: Database) -> None:
    """Across the sizes where stored subtrees begin to stand for their leaves."""
    store = store_on(database.service_dsn)
    roots = {0: store.record.head().root}
    for _ in range(260):
        register(store)
        head = store.record.head()
        roots[head.size] = head.root
    store.save(*[event_of(uuid4(), 1, NOTE) for _ in range(700)])
    head = store.record.head()
    roots[head.size] = head.root
    assert {size: store.record.root_at(size) for size in roots} == roots
    assert store.record.root_at(head.size + 1) is None
    rewrite(database, 2)
    changed = [size for size, root in roots.items() if store.record.root_at(size) != root]
    assert changed, "a changed leaf shows in the sizes that still count it singly"
    store.close()
