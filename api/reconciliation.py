"""Reconciles on the machine that has the home: finishes what is open, and compares a step-ca's log.

The steps are `ca/reconciler.py`'s and `ca/discovery.py`'s; a running service does the former by
itself. It serves nothing.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import psycopg

from api import authorities as places
from api.exchange import Clock
from api.wiring import open_ledger
from ca.discovery import Unknown, discover
from ca.issuance import IssuanceCycle
from ca.reconciler import Reconciler
from ca.signers import Adopted
from ledger.database import conninfo
from ledger.events import Actor
from ledger.store import Call

Log: TypeAlias = tuple[str, Iterable[str]]
"""What people call it, and its lines."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was done and found. `ran` False: another process was reconciling just then."""

    ran: bool
    done: Counter[str]
    seen: Counter[str] = field(default_factory=Counter)
    unknown: list[Unknown] = field(default_factory=list)


def reconcile(dsn: str, home: Path, clock: Clock, logs: Sequence[Log]) -> Reconciled:
    """Close what was left open, then compare each log with the record.

    Raises:
        LedgerError, psycopg.Error: the database says no.
        OSError: a log cannot be read.
    """

    def read() -> AbstractContextManager[psycopg.Connection[Any]]:
        return psycopg.connect(conninfo(dsn), autocommit=True)

    with closing(open_ledger(dsn, clock)) as ledger:
        signers = Adopted(read, partial(places.usable, home))
        cycle = IssuanceCycle(ledger, signers, read)
        report = Reconciler(ledger, cycle, read, dsn).run_once(clock())
        found = Reconciled(report.ran, report.done)
        for name, lines in logs:
            one = discover(ledger, read, _call, lines, name)
            found.seen.update(one.seen)
            found.unknown.extend(one.unknown)
        return found


def _call() -> Call:
    actor = Actor(kind="local", id=f"uid:{os.getuid()}", auth="local")
    return Call(actor=actor, correlation_id=str(uuid4()), reason="reconcile")
