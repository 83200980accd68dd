"""How the tables are read as they were: the moment found, the views of it put before the tables.

It writes nothing and waits for nothing: whether the histories have come far enough is told, and
waited for elsewhere (`projections/follower.py`).
"""

from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import Connection

from projections.history import HISTORY
from projections.registry import RELEASE

_RESOLVE: Final = """
SELECT h.size, coalesce((SELECT position FROM projection_progress
                 WHERE name = %(history)s AND release = %(release)s), 0),
       coalesce(%(position)s::int8,
                (SELECT e.position FROM ledger_events e WHERE e.recorded_at <= %(time)s
                 ORDER BY e.recorded_at DESC, e.position DESC LIMIT 1),
                0),
       coalesce(%(time)s::timestamptz,
                (SELECT e.recorded_at FROM ledger_events e WHERE e.position = %(position)s::int8))
FROM ledger_head h"""
_GO: Final = """SELECT set_config('search_path', CASE
           WHEN current_setting('search_path') LIKE 'as_of, %%' THEN current_setting('search_path')
           ELSE 'as_of, ' || current_setting('search_path') END, true),
       set_config('fedledger.position', %s, true),
       set_config('enable_sort', 'off', true), set_config('enable_mergejoin', 'off', true),
       set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_material', 'off', true)"""
# How many rows held at a position the planner cannot know and guesses far too low; it would then
# fetch and sort them all, or read a whole history to join it with those few. Every list has an index
# in its order, every join one of its key: walking it is never far wrong.


class Found(NamedTuple):
    """A moment in the ledger. `size`: events there are now; `told`: as far the histories go.

    `at` is None when nothing is recorded at the position asked for.
    """

    size: int
    told: int
    position: int
    at: datetime | None


def resolve(connection: Connection[Any], time: datetime | None, position: int | None) -> Found:
    """Find a moment: what stood at `position` (None: the last recorded by `time`), judged at `time`
    (None: when the position was recorded)."""
    wanted = {"history": HISTORY, "release": RELEASE, "time": time, "position": position}
    row = connection.execute(_RESOLVE, wanted).fetchone()
    return Found(*row) if row else Found(0, 0, 0, time)


def go_back(connection: Connection[Any], position: int) -> None:
    """Let every SELECT of this transaction read the tables as they were at `position`."""
    connection.execute(_GO, [str(position)])
