"""What a superuser can do to the record, so that tests can show what reveals it."""

from dataclasses import replace

import psycopg

from ledger.record import RecordedEvent
from ledger.tlog.entry import leaf_hash
from ledger.tlog.merkle import Frontier
from support.databases import Database

REWRITE = """
    ALTER TABLE ledger_events DISABLE TRIGGER USER;
    UPDATE ledger_events SET body = %(body)s, leaf = %(leaf)s WHERE position = %(position)s;
    ALTER TABLE ledger_events ENABLE ALWAYS TRIGGER ledger_events_no_change;
    ALTER TABLE ledger_events ENABLE ALWAYS TRIGGER ledger_events_no_truncate;
    UPDATE ledger_head SET frontier = %(edge)s
"""


def rewrite(database: Database, position: int, *, back: bool = False) -> None:
    """Change the address in the body at `position`, and everything that follows from it.

    `back`: undo it, so that a check at the end finds the ledger right.
    """
    old, new = (b"https://evil.", b"https://") if back else (b"https://", b"https://evil.")
    frontier = Frontier()
    with psycopg.connect(database.superuser_dsn, cursor_factory=psycopg.ClientCursor) as connection:
        rows = connection.execute(
            "SELECT position, stream_id, version, topic, recorded_at, body, leaf "
            "FROM ledger_events ORDER BY position"
        ).fetchall()
        for row in rows:
            stored = RecordedEvent(*row)
            if stored.position == position:
                stored = replace(stored, body=stored.body.replace(old, new))
            leaf = leaf_hash(stored.entry)
            frontier.append(leaf)
            if stored.position == position:
                changed = {"body": stored.body, "leaf": leaf, "position": position}
        connection.execute(REWRITE, changed | {"edge": frontier.edge()})
