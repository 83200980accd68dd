"""Doctor's look at the revocation lists that are published here. It publishes and signs nothing."""

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from datetime import datetime, timedelta
from typing import Any, Final

from psycopg import Connection

from api.findings import Check
from api.wiring import open_ledger
from ca.publishing import Currency, RevocationLists
from ca.signers import Fixed

_ID: Final = "revocation-list"
_ENDS_SOON: Final = timedelta(hours=6)  # a running service publishes twelve hours before the end
_PUBLISH: Final = (
    "A running service publishes: start `fedledger serve` where the authority's key is, or look "
    "in its log for what keeps it from it."
)


def check(
    dsn: str,
    clock: Callable[[], datetime],
    read: Callable[[], AbstractContextManager[Connection[Any]]],
) -> Check:
    """Compare the last list of each local authority with the record.

    Raises:
        LedgerError, psycopg.Error: the database cannot be asked.
    """
    now = clock()
    with closing(open_ledger(dsn, clock, pool_size=1)) as ledger:
        found = RevocationLists(ledger, Fixed(()), read).currency(now)
    return judge(found, now)


def judge(found: list[Currency], now: datetime) -> Check:
    """What is to be said of these lists; the worst goes first."""
    judged = [one for currency in found if (one := _objection(currency, now)) is not None]
    if judged:
        return min(judged, key=lambda one: one.status != "fail")
    if not any(one.next_update for one in found):
        return Check(_ID, "ok", "none yet, and no certificate that could be on one")
    return Check(_ID, "ok", "holds every certificate that counts as revoked")


def _objection(one: Currency, now: datetime) -> Check | None:
    of = f"of authority {one.authority_id}"
    if one.unlisted:
        text = f"{one.unlisted} revoked certificates are not on the list {of}"
        return Check(_ID, "fail", text, _PUBLISH)
    if one.next_update is None:
        text = f"no list {of} was ever published"
        return Check(_ID, "fail", text, _PUBLISH) if one.needed else None
    end = f"{one.next_update:%Y-%m-%d %H:%M} UTC"
    if one.next_update <= now:
        return Check(_ID, "fail", f"the list {of} ended {end}", _PUBLISH)
    if one.next_update - now < _ENDS_SOON:
        return Check(_ID, "warn", f"the list {of} ends {end}, and no new one came", _PUBLISH)
    return None
