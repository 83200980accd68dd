"""A whole ledger on a real database: its commands, its local authority, its issuance cycle.

    with Live.open(database, tmp_path) as live:
        grant = live.grant(live.peer())
        enrolled = live.redeem(live.token(grant), csrs.request(csrs.ec_key()))

Time stands still until a test moves `live.clock`; the database's own clock is not compared with it.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

from psycopg import Connection
from psycopg_pool import ConnectionPool

from ca.authority import Authority
from ca.issuance import Enrolled, IssuanceCycle, Step
from ca.local import LocalAuthority
from ca.reconciler import Reconciler
from ledger.application import Ledger
from ledger.errors import LedgerError
from ledger.events import Actor, Event
from ledger.folds import FOLDS
from ledger.grant_state import Grant
from ledger.operators import Operator
from ledger.peers import Peer
from ledger.reading import Call
from ledger.scope import Scope
from projections import grants, operators
from projections.registry import INLINE
from projections.verify import check_ledger
from support.databases import Database
from support.given import PLAIN_SCOPE, REASON

START: Final = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
SYSTEM: Final = Actor(kind="system", id="tests", auth="system")
T = TypeVar("T")


class Clock:
    """Time as a test wants it."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def later(self, **by: float) -> None:
        self.now += timedelta(**by)


class Interruptible(Ledger):
    """A ledger whose next append can be held up: `before_append` is called once, after the
    decision has read all it reads and before anything is written."""

    before_append: Callable[[], None] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The recorder's own door, so that no way of appending can go round it.
        self._insert = self.recorder.insert_events
        self.recorder.insert_events = self._held_up

    def _held_up(self, *args: Any, **kwargs: Any) -> Any:
        if (act := self.before_append) is not None:
            self.before_append = None
            act()
        return self._insert(*args, **kwargs)


def open_ledger(dsn: str, clock: Callable[[], datetime]) -> Interruptible:
    """A ledger as another process would open it."""
    return Interruptible(
        dsn, clock=clock, folds=FOLDS, inline=INLINE, clock_skew=timedelta(days=36500)
    )


@dataclass
class Live:
    """One ledger under test. `admin` and `approver` are actors with live credentials."""

    database: Database
    ledger: Interruptible
    authority: Authority
    clock: Clock
    read: Callable[[], Any]
    pool: ConnectionPool[Connection[Any]]
    admin: Actor
    approver: Actor

    @classmethod
    @contextmanager
    def open(
        cls,
        database: Database,
        folder: Path,
        *,
        authority: Authority | None = None,
        now: datetime = START,
    ) -> Iterator["Live"]:
        """A new ledger in an empty database. At the end all of it is checked.

        `authority`: not a local one of its own; one with a clock of its own needs the real `now`.
        """
        clock = Clock(now)
        ledger = open_ledger(database.service_dsn, clock)
        authority = authority or LocalAuthority.create(folder / "ca", name="Test", now=clock())
        pool: ConnectionPool[Connection[Any]] = ConnectionPool(
            database.service_dsn, min_size=0, max_size=16, kwargs={"autocommit": True}, open=True
        )
        try:
            adopt(ledger, authority)
            people = [_person(ledger, role) for role in ("admin", "approver")]
            yield cls(database, ledger, authority, clock, pool.connection, pool, *people)
            report = check_ledger(database.service_dsn)
            assert report.ok, str(report)
        finally:
            pool.close()
            ledger.close()

    # ---- who does what -------------------------------------------------------------------

    def call(self, actor: Actor = SYSTEM, **more: Any) -> Call:
        return Call(actor=actor, correlation_id=f"test-{uuid4()}", reason=REASON, **more)

    def stranger(self, source: str = "192.0.2.1") -> Call:
        actor = Actor(kind="peer", id="unknown", auth="none", source=source)
        return Call(actor=actor, correlation_id=f"test-{uuid4()}")

    def person(self, role: str) -> Actor:
        return _person(self.ledger, role)

    def peer(self, name: str = "Example Peer") -> Peer:
        """An active peer."""
        registered = self.ledger.register_peer(self.call(), name, "https://peer.example").value
        return self.ledger.activate_peer(self.call(), registered.id, "by phone").value

    def grant(
        self, peer: Peer, scope: Scope = PLAIN_SCOPE, *, hours: float = 240, approved: bool = True
    ) -> Grant:
        """A grant that waits for enrollment."""
        grant = self.ledger.propose_grant(
            self.call(self.admin),
            peer.id,
            "u:1",
            scope,
            None,
            self.clock() + timedelta(hours=hours),
        ).value
        if grant.sensitive and approved:
            call = self.call(self.approver)
            grant = self.ledger.approve_grant(call, grant.id, grant.terms_digest).value
        return grant

    def token(self, grant: Grant, **options: Any) -> str:
        issued = self.ledger.issue_enrollment_token(self.call(), grant.id, **options).value
        assert issued.text is not None
        return issued.text

    # ---- issuing -------------------------------------------------------------------------

    def cycle(
        self,
        signer: Authority | None = None,
        *,
        at_step: Callable[[Step], None] | None = None,
        ledger: Ledger | None = None,
    ) -> IssuanceCycle:
        return IssuanceCycle(
            ledger or self.ledger, [signer or self.authority], self.read, at_step=at_step
        )

    def redeem(self, token: str, csr: bytes) -> Enrolled:
        return self.cycle().redeem(self.stranger(), token, csr)

    def reconciler(self, signer: Authority | None = None) -> Reconciler:
        cycle = self.cycle(signer)
        return Reconciler(self.ledger, cycle, self.read, self.database.service_dsn)

    # ---- looking ------------------------------------------------------------------------

    def state(self, grant: Grant) -> Grant:
        found = self.ledger.load(Grant, grant.id)
        assert found is not None
        return found

    def events(self, *topics: str) -> list[Event]:
        """All events of these topics (without `.v1`; none named: all) in the ledger's order."""
        size = self.ledger.record.head().size
        found = [
            entry.event
            for first in range(1, size + 1, 500)
            for entry in self.ledger.record.range(first, min(first + 499, size))
        ]
        wanted = {f"{topic}.v1" for topic in topics}
        return [event for event in found if not wanted or event.data.TOPIC in wanted]

    def topics(self) -> list[str]:
        return [event.data.TOPIC.removesuffix(".v1") for event in self.events()]

    def live_grants(self, peer_id: UUID) -> list[UUID]:
        with self.read() as connection:
            return grants.live_of_peer(connection, peer_id)

    def holders(self, role: str) -> list[UUID]:
        with self.read() as connection:
            return [row.id for row in operators.enabled_with_role(connection, role)]


def adopt(ledger: Ledger, authority: Authority) -> None:
    """Put an authority on record."""
    call = Call(actor=SYSTEM, correlation_id="test-adopt")
    chain, end = authority.chain(), authority.not_after
    ledger.adopt_authority(call, UUID(authority.id), authority.kind, chain, end)


def _person(ledger: Ledger, role: str) -> Actor:
    call = Call(actor=SYSTEM, correlation_id="test-person")
    operator = ledger.register_operator(call, "person", [role]).value
    issued = ledger.issue_credential(call, operator.id, ttl=timedelta(days=300)).value
    assert isinstance(issued.operator, Operator)
    return Actor(
        kind="operator",
        id=str(operator.id),
        roles=(role,),
        auth="bearer",
        credential=issued.accessor,
        source="127.0.0.1",
    )


def all_at_once(acts: Sequence[Callable[[], T]]) -> list[T | LedgerError]:
    """Do all of it at the same moment; a refusal is an outcome like any other."""
    barrier = Barrier(len(acts))

    def act(one: Callable[[], T]) -> T | LedgerError:
        barrier.wait()
        try:
            return one()
        except LedgerError as error:
            return error

    with ThreadPoolExecutor(len(acts)) as threads:
        return list(threads.map(act, acts))
