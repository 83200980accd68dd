"""Brings the tables made from the events to this release, or builds them anew. It serves nothing.

How is in `projections/`; here are which of them, in which order, and with whose rights.
"""

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from typing import Any, Final

import psycopg

from ledger.head import read_head
from projections import event_terms, words
from projections.follower import Follower
from projections.progress import Progress
from projections.rebuild import Rebuilt, rebuild
from projections.registry import FOLLOWED, RELEASE, SOURCES

Tell = Callable[[str, int, int], object]
"""Told what is being done, how many events of how many."""

NAMES: Final = (*(source.name for source in SOURCES), words.SOURCE)
"""What can be rebuilt and compared by itself."""

_RELEASES: Final = "SELECT name, release FROM projection_progress"
_HOW_MANY: Final = f"SELECT count(*) FROM {event_terms.TABLE}"  # noqa: S608 - a name of ours


class OtherReleaseError(Exception):
    """The tables are another release's; the text says what to run."""


def of_other_releases(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """What is not of this release, by name, and which it is of."""
    followed = dict(connection.execute(_RELEASES).fetchall())
    of = {
        source.name: followed.get(source.followed, RELEASE)
        if source.followed
        else read_head(connection).release
        for source in SOURCES
    }
    of[words.SOURCE] = followed.get(event_terms.NAME, RELEASE)
    return {name: release for name, release in of.items() if release != RELEASE}


def advice(others: Mapping[str, int]) -> str:
    """What to do about tables of other releases, in one line."""
    newest = max(others.values())
    found = f"the tables are those of release {newest}, this program writes those of {RELEASE}"
    if newest > RELEASE:
        return f"{found}: install the newer program"
    return f"{found}: run fedledger migrate with the owner's rights, then start again"


def bring(owner_dsn: str, tell: Tell) -> list[str]:
    """Rebuild what is of an older release; return its names. Interrupted, the next call goes on.

    Raises:
        OtherReleaseError: something is a newer one's, or the owner may not build tables.
        RebuildError, LedgerError: it was not rebuilt, or not all of it.
    """
    with psycopg.connect(owner_dsn, connect_timeout=10) as connection:
        others = of_other_releases(connection)
    if others and max(others.values()) > RELEASE:
        raise OtherReleaseError(advice(others))
    try:
        return list(rebuild_all(owner_dsn, others, tell))
    except psycopg.errors.InsufficientPrivilege as error:
        raise OtherReleaseError(
            f"the owner may not build tables ({error.diag.message_primary}): as a superuser, GRANT "
            "CREATE ON DATABASE to the role of FEDLEDGER_OWNER_DSN, then run fedledger migrate"
        ) from error


def rebuild_all(
    owner_dsn: str,
    names: Collection[str],
    tell: Tell,
    *,
    pause: float = 0.1,
    processes: int | None = None,
) -> dict[str, Rebuilt]:
    """Rebuild what is named; `pause`: seconds for which others may have to wait for each swap;
    `processes`: as of `projections.rebuild.rebuild`.

    Raises:
        RebuildError, LedgerError, psycopg.Error: not done, or not all of it.
    """
    done: dict[str, Rebuilt] = {}
    for source in SOURCES:
        if source.name in names:

            def told(now: Progress, name: str = source.name) -> None:
                tell(f"{name}: {now.phase}", now.events, max(now.base, now.events))

            done[source.name] = rebuild(
                owner_dsn, source, pause=pause, processes=processes, tell=told
            )
    if words.SOURCE in names:
        done[words.SOURCE] = _rebuild_words(owner_dsn, tell)
    return done


def catch_up(dsn: str, tell: Tell) -> None:
    """Bring what is filled after the commit up to the last event.

    Raises:
        LedgerError: the database does not answer.
    """
    with closing(Follower(dsn, FOLLOWED, release=RELEASE)) as follower:
        follower.follow(tell)


def _rebuild_words(owner_dsn: str, tell: Tell) -> Rebuilt:
    began = time.monotonic()
    words.empty(owner_dsn)
    followed = [one for one in FOLLOWED if one.name == event_terms.NAME]
    with (
        closing(Follower(owner_dsn, followed, release=RELEASE)) as follower,
        psycopg.connect(owner_dsn, autocommit=True) as connection,
    ):
        size = read_head(connection).size
        # A service that runs may be at it: then it is waited for.
        while (position := follower.position(event_terms.NAME)) < size:
            follower.follow(tell)
            follower.reach(event_terms.NAME, min(position + 1, size), timeout=60)
        row = connection.execute(_HOW_MANY).fetchone()
    return Rebuilt(
        position=position,
        events=position,
        rows=int(row[0]) if row else 0,
        seconds=time.monotonic() - began,
        pause=0.0,
        attempts=1,
        resumed=False,
    )
