"""Certificates in the last third of their life, which no test can wait for."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock
from uuid import uuid4

import psycopg

from ca.issuance import Enrolled, IssuanceCycle
from ca.local import LocalAuthority
from ledger import writer
from ledger.events import Actor
from ledger.reading import Call
from support.live import open_ledger

LONG_AGO = timedelta(days=2)
"""How early the grant of such a certificate must have become valid."""


def issued_before(
    dsn: str, home: Path, token: str, csr: str, *, ago: timedelta = timedelta(hours=20)
) -> Enrolled:
    """Redeem a token on a machine whose clock is late by `ago`, in the ledger of `home`.

    Its events take their place behind the others all the same, for the head never goes back.
    """
    stranger = Actor(kind="peer", id="unknown", auth="none", source="192.0.2.1")
    ledger = open_ledger(dsn, _late(ago))
    try:
        cycle = IssuanceCycle(
            ledger,
            [LocalAuthority.open(home / "authority")],
            lambda: psycopg.connect(dsn, autocommit=True),
        )
        # The ledger would refuse such a clock; here it is the point.
        with mock.patch.object(writer, "HEAD_AHEAD", LONG_AGO):
            return cycle.redeem(Call(stranger, str(uuid4())), token, csr)
    finally:
        ledger.close()


def _late(ago: timedelta) -> Callable[[], datetime]:
    return lambda: datetime.now(UTC) - ago  # noqa: TID251 - the test's own clock
