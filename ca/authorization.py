"""Step 1 of the issuance cycle: one append, decided from folded streams, authorizes a certificate.

It asks no authority. What may be authorized is decided by `ledger/enrollment.py` and
`ledger/certificates.py`; here their answers become appends. The numbers are those of SPEC §5.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from ca.csr import Csr, CsrError, check_names, read_csr
from ca.orders import new_order, request_of
from ca.rejections import add_alarm, log_alarm
from ledger import certificates, enrollment
from ledger.authorities import Authority
from ledger.certificates import CloneSuspected
from ledger.commands import approvers_in, policy_in
from ledger.errors import ForbiddenError, InvalidError, RefusedError, UnavailableError
from ledger.grant_state import Grant
from ledger.issuance import AlreadyIssued, Authorized, Order, StillOpen
from ledger.peers import Peer
from ledger.policy import Policy
from ledger.reading import Call, Reading
from ledger.store import ClaimTakenError, Store

CLONE: Final = "clone-suspected"

_Start = Authorized | StillOpen | AlreadyIssued | CloneSuspected


@dataclass(frozen=True, slots=True)
class Started:
    """The issuance to drive on, or to answer with. `new`: this call authorized it.

    `seen`: the states that the decision read, as it left them, by stream.
    """

    issuance_id: UUID
    new: bool
    seen: Mapping[UUID, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one decision folded, and the order that follows from it."""

    grant: Grant
    peer: Peer
    policy: Policy
    authority: Authority
    order: Order


def read_request(csr: bytes | str) -> Csr:
    """Read a stranger's CSR. Raises InvalidError with the `csr-…` code and what is wrong."""
    try:
        return read_csr(csr)
    except CsrError as error:
        raise InvalidError(error.detail, code=error.code) from None


class Authorizations:
    """Authorizes enrollments and renewals, each by the authority that is current by then."""

    def __init__(
        self,
        ledger: Store,
        current: Callable[[], UUID],
        randomness: Callable[[int], bytes],
        arc: str,
    ) -> None:
        """`current` names the authority that new orders go to.

        `randomness(n)` returns n unpredictable bytes; `arc`: of our two extensions.
        """
        self._ledger = ledger
        self._current = current
        self._randomness = randomness
        self._arc = arc

    def enroll(
        self, call: Call, grant: Grant, presented: enrollment.Presented, csr: Csr
    ) -> Started:
        """Redeem a token with a CSR, or find what the same two led to before (6.).

        `grant`: as it was when the token was recognised.

        Raises:
            InvalidError: `csr-subject`.
            RefusedError: `key-taken`; otherwise as `enrollment.redeem`.
        """

        def choose(reading: Reading, seen: _Seen) -> Authorized | StillOpen | AlreadyIssued:
            start = enrollment.redeem(
                seen.grant,
                seen.peer,
                seen.policy,
                approvers_in(reading, seen.grant),
                seen.authority,
                presented,
                request_of(csr),
                seen.order,
                reading.at,
            )
            if isinstance(start, Authorized):
                _check_subject(csr, seen.peer)
            return start

        return self._start(call, grant, choose)

    def renew(self, call: Call, grant: Grant, serial: str, csr: Csr) -> Started:
        """Authorize the successor of a certificate, or find the one the same CSR led to (7.).

        Raises:
            InvalidError: `csr-subject`.
            ForbiddenError: `clone-suspected`; the grant is suspended and an alarm raised.
            RefusedError: `key-taken`; otherwise as `certificates.renew`.
        """

        def choose(reading: Reading, seen: _Seen) -> _Start:
            start = certificates.renew(
                seen.grant,
                seen.peer,
                seen.policy,
                seen.authority,
                serial,
                request_of(csr),
                seen.order,
                reading.at,
            )
            if isinstance(start, Authorized):
                _check_subject(csr, seen.peer)
            return start

        return self._start(call, grant, choose)

    def _start(
        self, call: Call, grant: Grant, choose: Callable[[Reading, _Seen], _Start]
    ) -> Started:
        def decide(reading: Reading) -> Started | ForbiddenError:
            return _append(reading, grant.id, choose(reading, self._seen(reading, grant.id)))

        try:
            recorded = self._ledger.decide(call, decide, seen={grant.id: grant})
        except ClaimTakenError as error:
            if error.stream_id != grant.id:
                raise _taken(error) from None
            # Our own twin was faster: decided anew, this finds what the twin authorized.
            recorded = self._ledger.decide(call, decide)
        if isinstance(recorded.value, ForbiddenError):
            if recorded.events:
                log_alarm(CLONE, str(grant.id))
            raise recorded.value
        return Started(recorded.value.issuance_id, recorded.value.new, recorded.used)

    def _seen(self, reading: Reading, grant_id: UUID) -> _Seen:
        grant = reading.state(Grant, grant_id)
        peer = reading.state(Peer, grant.peer_id)
        policy = policy_in(reading)
        authority = self._authority(reading)
        order = new_order(
            grant,
            peer,
            policy,
            authority,
            reading.at,
            randomness=self._randomness,
            arc=self._arc,
        )
        return _Seen(grant, peer, policy, authority, order)

    def _authority(self, reading: Reading) -> Authority:
        authority = reading.maybe(Authority, self._current())
        if authority is not None and authority.retired_at is not None:
            # Retired since the table was asked, so its successor was adopted before that.
            authority = reading.maybe(Authority, self._current())
        if authority is None:
            raise UnavailableError(
                "the signing authority was never adopted; run fedledger init",
                code="authority-unavailable",
            )
        return authority


def _append(reading: Reading, grant_id: UUID, start: _Start) -> Started | ForbiddenError:
    """Append what a rule decided; return what became of it."""
    if isinstance(start, Authorized):
        reading.append(Grant, grant_id, *start.facts, claims=start.claims)
        return Started(start.issuance_id, new=True)
    if isinstance(start, CloneSuspected):
        if start.facts:
            reading.append(Grant, grant_id, *start.facts)
            add_alarm(reading, CLONE, (str(grant_id),), start.error.detail)
        return start.error
    return Started(start.issuance.id, new=False)


def _check_subject(csr: Csr, peer: Peer) -> None:
    try:
        check_names(csr, peer.name)
    except CsrError as error:
        raise InvalidError(error.detail, code=error.code) from None


def _taken(error: ClaimTakenError) -> RefusedError | UnavailableError:
    if error.kind == "key-digest":
        return RefusedError("the key belongs to another grant; make a new key", code="key-taken")
    # Two equal serials of 126 random bits: the next attempt draws another.
    return UnavailableError("the serial is taken; send the same again", code="busy")
