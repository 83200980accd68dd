"""Finds out what an id is: which things have it, how they stand, and what their story is made of.

It tells no story itself (`api/handlers/about.py`), and looks only where an id of that form can be.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from api.about import Thing
from api.reading import Snapshot
from ledger.canonical import format_time
from ledger.events import LEDGER_ID, POLICY_ID
from ledger.record import Filter
from ledger.recorded import RecordedEvent
from ledger.terms import Question
from projections import alarms, authorities, certificates, grants, operators, peers, tokens
from projections.certificates import CertificateRow
from projections.search import Search

MOST_GRANTS: Final = 1000
"""Of one peer or subject user whose own events are part of the story; the newest ones."""

_SERIAL: Final = re.compile(r"[4-7][0-9a-f]{31}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_ACCESSOR: Final = re.compile(r"[0-9a-z]{16}")
# What changes the worth of everything below a peer; what gives worth to all below a grant, or changes it.
_OF_PEER: Final = ("peer.suspended.v1", "peer.resumed.v1", "peer.revoked.v1")
_OF_GRANT: Final = (
    "grant.proposed.v1",
    "grant.amended.v1",
    "grant.approved.v1",
    "grant.activated.v1",
    "grant.narrowed.v1",
    "grant.suspended.v1",
    "grant.resumed.v1",
    "grant.revoked.v1",
    "grant.expired.v1",
)
_WITH_DIGESTS: Final = ("issuance.authorized.v1", "certificate.issued.v1")


@dataclass(frozen=True, slots=True)
class Found:
    """The things an id names, and the questions whose answers together are its story."""

    things: tuple[Thing, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """One thing: `names` are its ids, `questions` what else belongs to its story."""

    thing: Thing
    names: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()


def resolve(snapshot: Snapshot, search: Search, name: str) -> Found:
    """Return what the id is. `name`: as the ledger writes ids (`api.wire.parse_name`)."""
    known = [one for look in _looks(search, name) for one in look(snapshot, name)]
    names = dict.fromkeys([name, *(each for one in known for each in one.names)])
    others = dict.fromkeys(question for one in known for question in one.questions)
    first = Question(mentions=tuple(names), asked_too=False)
    return Found(tuple(one.thing for one in known), (first, *others))


def without_state(name: str, events: Sequence[RecordedEvent]) -> Thing:
    """What an id is that only events know: told by the first that names it."""
    kind = "other"
    if any(f"correlation:{name}" in one.terms for one in events[:1]):
        kind = "request"
    elif any(one.parts.get("id") == name for one in events[:1]):
        kind = "event"
    elif _is_address(name):
        kind = "address"
    return Thing(kind=kind, id=name, status=None, facts={})


_Look = Callable[[Snapshot, str], Iterable[_Known]]


def _looks(search: Search, name: str) -> list[_Look]:
    """Where an id of this form can be."""
    try:
        UUID(name)
    except ValueError:
        pass
    else:
        if len(name) == 36:
            return [_peer, _grant, _operator, _alarm, _authority, _fixed]
    looks: list[_Look] = [_subject, _peer_by_name]
    if _SERIAL.fullmatch(name):
        looks.insert(0, _certificate)
    if _DIGEST.fullmatch(name):
        looks[:0] = [_key, lambda snapshot, digest: _by_digest(snapshot, search, digest)]
    if _ACCESSOR.fullmatch(name):
        looks[:0] = [_token, _credential]
    return looks


# ---- one function per kind ------------------------------------------------------------------


def _peer(snapshot: Snapshot, name: str) -> Iterable[_Known]:
    return _of_peer(snapshot, peers.by_id(snapshot.connection, UUID(name)))


def _peer_by_name(snapshot: Snapshot, name: str) -> Iterable[_Known]:
    return _of_peer(snapshot, peers.by_name(snapshot.connection, name))


def _of_peer(snapshot: Snapshot, row: peers.PeerRow | None) -> Iterable[_Known]:
    if row is None:
        return
    rows = grants.page(snapshot.connection, snapshot.at, peer_id=row.id, limit=MOST_GRANTS)
    facts = {"name": row.name, "base_url": row.base_url, "grants": len(rows)}
    thing = Thing(kind="peer", id=str(row.id), status=row.state, facts=facts)
    yield _Known(thing, (str(row.id),), _streams(one.id for one in rows))


def _grant(snapshot: Snapshot, name: str) -> Iterable[_Known]:
    row = grants.by_id(snapshot.connection, UUID(name), snapshot.at)
    if row is None:
        return
    facts = {
        "peer_id": str(row.peer_id),
        "peer_name": row.peer_name,
        "subject_user_id": row.subject_user_id,
        "scope": row.scope,
        "not_before": format_time(row.not_before),
        "expires_at": format_time(row.expires_at),
    }
    thing = Thing(kind="grant", id=name, status=row.status, facts=facts)
    yield _Known(thing, (), (_standing((row.peer_id,), _OF_PEER),))


def _operator(snapshot: Snapshot, name: str) -> Iterable[_Known]:
    row = operators.by_id(snapshot.connection, UUID(name))
    if row is not None:
        status = "enabled" if row.enabled else "disabled"
        facts = {"kind": row.kind, "roles": row.roles}
        yield _Known(Thing(kind="operator", id=name, status=status, facts=facts))


def _alarm(snapshot: Snapshot, name: str) -> Iterable[_Known]:
    row = alarms.by_id(snapshot.connection, UUID(name))
    if row is not None:
        status = "open" if row.acknowledged_at is None else "acknowledged"
        facts = {"kind": row.kind, "about": row.about, "detail": row.detail}
        yield _Known(Thing(kind="alarm", id=name, status=status, facts=facts))


def _authority(snapshot: Snapshot, name: str) -> Iterable[_Known]:
    for row in authorities.everything(snapshot.connection):
        if str(row.id) == name:
            status = "adopted" if row.retired_at is None else "retired"
            facts = {"kind": row.kind, "not_after": format_time(row.not_after)}
            yield _Known(Thing(kind="authority", id=name, status=status, facts=facts))


def _fixed(_: Snapshot, name: str) -> Iterable[_Known]:
    for kind, stream in (("ledger", LEDGER_ID), ("policy", POLICY_ID)):
        if str(stream) == name:
            yield _Known(Thing(kind=kind, id=name, status=None, facts={}))


def _certificate(snapshot: Snapshot, name: str) -> Iterable[_Known]:
    row = certificates.by_serial(snapshot.connection, name)
    if row is not None:
        yield _of_certificate(snapshot, row)


def _key(snapshot: Snapshot, name: str) -> Iterable[_Known]:
    rows = certificates.by_key_digest(snapshot.connection, name)
    if rows:
        facts = {"serials": [row.serial for row in rows]}
        yield _Known(Thing(kind="key", id=name, status=None, facts=facts))
    yield from (_of_certificate(snapshot, row) for row in rows)


def _by_digest(snapshot: Snapshot, search: Search, name: str) -> Iterable[_Known]:
    """A fingerprint, the digest of a TBSCertificate or of a CSR: only events know all of these."""
    asked = Question(mentions=(name,), topics=_WITH_DIGESTS, asked_too=False)
    for event in search.page(Filter(asked, last=snapshot.position), limit=1):
        data = event.parts["data"]
        if data.get("key_digest") != name:
            row = certificates.by_serial(snapshot.connection, data["serial"])
            yield from [_of_certificate(snapshot, row)] if row is not None else []


def _of_certificate(snapshot: Snapshot, row: CertificateRow) -> _Known:
    grant = grants.by_id(snapshot.connection, row.grant_id, snapshot.at)
    status = row.state if row.revoked_at is None else "revoked"
    facts = {
        "grant_id": str(row.grant_id),
        "grant_status": grant and grant.status,
        "peer_id": grant and str(grant.peer_id),
        "peer_name": grant and grant.peer_name,
        "kind": row.kind,
        "generation": row.generation,
        "not_before": format_time(row.not_before),
        "not_after": format_time(row.not_after),
        "key_digest": row.key_digest,
        "certificate_sha256": row.certificate_sha256,
        "revoked_at": _written(row.revoked_at),
        "revocation_reason": row.revocation_reason,
    }
    thing = Thing(kind="certificate", id=row.serial, status=status, facts=facts)
    # The token it came by, too: who made it, and who else tried it.
    names = (
        row.serial, str(row.issuance_id), row.certificate_sha256, row.tbs_sha256, row.accessor,
    )  # fmt: skip
    standing = [_standing((row.grant_id,), _OF_GRANT)]
    standing += [_standing((grant.peer_id,), _OF_PEER)] if grant else []
    return _Known(thing, tuple(name for name in names if name), tuple(standing))


def _token(snapshot: Snapshot, name: str) -> Iterable[_Known]:
    row = tokens.by_accessor(snapshot.connection, name)
    if row is not None:
        ended = row.state == "issued" and row.expires_at <= snapshot.at
        facts = {"grant_id": str(row.grant_id), "expires_at": format_time(row.expires_at)}
        status = "expired" if ended else row.state
        thing = Thing(kind="enrollment-token", id=name, status=status, facts=facts)
        yield _Known(thing, (), (_standing((row.grant_id,), _OF_GRANT),))


def _credential(snapshot: Snapshot, name: str) -> Iterable[_Known]:
    row = operators.credential(snapshot.connection, name)
    if row is not None:
        status = "live" if row.live(snapshot.at) else "ended"
        facts: dict[str, Any] = {
            "operator_id": str(row.operator_id),
            "roles": row.roles,
            "expires_at": format_time(row.expires_at),
            "revoked_at": _written(row.revoked_at),
        }
        yield _Known(Thing(kind="credential", id=name, status=status, facts=facts))


def _subject(snapshot: Snapshot, name: str) -> Iterable[_Known]:
    rows = grants.page(snapshot.connection, snapshot.at, subject_user_id=name, limit=MOST_GRANTS)
    if rows:
        live = [str(row.id) for row in rows if row.status == "active"]
        facts = {"grants": len(rows), "active_grants": live}
        thing = Thing(kind="subject-user", id=name, status=None, facts=facts)
        of_peers = _standing(tuple(dict.fromkeys(row.peer_id for row in rows)), _OF_PEER)
        yield _Known(thing, (), (*_streams(row.id for row in rows), of_peers))


def _streams(ids: Iterable[UUID]) -> tuple[Question, ...]:
    """Every event of these grants."""
    streams = tuple(ids)
    return (Question(streams=streams),) if streams else ()


def _standing(streams: tuple[UUID, ...], topics: tuple[str, ...]) -> Question:
    return Question(streams=streams, topics=topics)


def _written(moment: datetime | None) -> str | None:
    return format_time(moment) if moment is not None else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
