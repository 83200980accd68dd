"""Grants: what their operations do."""

from collections.abc import Mapping
from typing import Any, Final, TypeVar
from uuid import UUID

from api import grants as wire
from api.cursors import place
from api.exchange import Answer, Asked, Handler
from api.handlers.history import history
from api.handlers.views import command, page, shown
from api.problems import Issue, scope_pointer
from ledger.errors import InvalidError
from ledger.events import POLICY_ID
from ledger.grant_state import Grant
from ledger.grant_status import effective_status
from ledger.peers import Peer
from ledger.policy import DEFAULT, Policy
from ledger.scope import Scope, ScopeError, parse_scope
from ledger.store import Recorded
from projections import grants
from projections.grants import GrantRow

S = TypeVar("S")


def propose(asked: Asked) -> Answer:
    body = asked.body_as(wire.ProposeGrant)
    recorded = asked.services.ledger.propose_grant(
        asked.call,
        body.peer_id,
        body.subject_user_id,
        _scope(body.scope),
        body.not_before,
        body.expires_at,
    )
    return _command(asked, recorded, created=True)


def list_(asked: Asked) -> Answer:
    query = asked.query_as(wire.GrantFilter)
    return page(
        asked,
        query,
        lambda snapshot, after: (
            []
            if not asked.may_see(query.peer_id)
            else grants.page(
                snapshot.connection,
                snapshot.at,
                status=query.status,
                peer_id=asked.peer_id or query.peer_id,
                resource=query.resource,
                subject_user_id=query.subject_user_id,
                expires_before=query.expires_before,
                sensitive=query.sensitive,
                recorded_by=snapshot.at if asked.moment.past else None,
                after=place(after),
                limit=query.limit + 1,
            )
        ),
        key=lambda row: row.id,
        item=sent,
    )


def sent(row: GrantRow) -> Mapping[str, Any]:
    """A row as it is sent: what `wire.Grant` would be in JSON, which a test holds equal."""
    if not row.approvals:
        return row.__dict__
    approvals = [{name: one[name] for name in wire.Approval.model_fields} for one in row.approvals]
    return {**row.__dict__, "approvals": approvals}


def show(asked: Asked) -> Answer:
    with asked.read() as snapshot:
        row = grants.by_id(snapshot.connection, asked.id("grant_id"), snapshot.at)
        if row is not None and not asked.may_see(row.peer_id):
            row = None
        value = shown(wire.Grant, row)
        return Answer(value, version=value.version, position=snapshot.position)


def approve(asked: Asked) -> Answer:
    body = asked.body_as(wire.ApproveGrant)
    ledger = asked.services.ledger
    return _command(
        asked, ledger.approve_grant(asked.call, asked.id("grant_id"), body.terms_digest)
    )


def amend(asked: Asked) -> Answer:
    body = asked.body_as(wire.AmendGrant)
    recorded = asked.services.ledger.amend_grant(
        asked.call,
        asked.id("grant_id"),
        scope=None if body.scope is None else _scope(body.scope),
        not_before=body.not_before,
        expires_at=body.expires_at,
    )
    return _command(asked, recorded)


def narrow(asked: Asked) -> Answer:
    body = asked.body_as(wire.NarrowGrant)
    recorded = asked.services.ledger.narrow_grant(
        asked.call,
        asked.id("grant_id"),
        scope=None if body.scope is None else _scope(body.scope),
        expires_at=body.expires_at,
    )
    return _command(asked, recorded)


def reject(asked: Asked) -> Answer:
    return _command(asked, asked.services.ledger.reject_grant(asked.call, asked.id("grant_id")))


def suspend(asked: Asked) -> Answer:
    return _command(asked, asked.services.ledger.suspend_grant(asked.call, asked.id("grant_id")))


def resume(asked: Asked) -> Answer:
    return _command(asked, asked.services.ledger.resume_grant(asked.call, asked.id("grant_id")))


def revoke(asked: Asked) -> Answer:
    return _command(asked, asked.services.ledger.revoke_grant(asked.call, asked.id("grant_id")))


def _scope(value: object) -> Scope:
    try:
        return parse_scope(value)
    except ScopeError as error:
        issues = tuple(
            Issue(message, pointer=scope_pointer(path)) for path, message in error.issues
        )
        raise InvalidError(str(error), code="invalid-scope", issues=issues) from None


def _command(asked: Asked, recorded: Recorded[Grant], *, created: bool = False) -> Answer:
    grant = recorded.value
    return command(
        asked,
        recorded,
        lambda: _shown(asked, recorded),
        grant.version,
        location=f"/v1/grants/{grant.id}" if created else None,
    )


def _shown(asked: Asked, recorded: Recorded[Grant]) -> wire.Grant:
    """A folded grant, with what the clock, its peer and the policy make of it now."""
    grant = recorded.value
    peer = _used(asked, recorded, Peer, grant.peer_id)
    if peer is None:
        raise AssertionError("a grant's peer is never gone")
    policy = _used(asked, recorded, Policy, POLICY_ID) or DEFAULT
    own = {name: getattr(grant, name) for name in wire.Grant.model_fields if hasattr(grant, name)}
    derived = {
        "peer_name": peer.name,
        "status": effective_status(grant, peer, policy, asked.services.clock()).value,
        "stored_status": grant.status.value,
        "scope": grant.scope.canonical(),
        "approvals": [
            wire.Approval.model_validate(one, from_attributes=True) for one in grant.approvals
        ],
    }
    return wire.Grant.model_validate(own | derived)


def _used(asked: Asked, recorded: Recorded[Grant], kind: type[S], stream_id: UUID) -> S | None:
    """A state as the command saw it; only where it did not look is the stream read again."""
    if stream_id not in recorded.used:
        return asked.services.ledger.load(kind, stream_id)
    found = recorded.used[stream_id]
    return found if isinstance(found, kind) else None


HANDLERS: Final[Mapping[str, Handler]] = {
    "grant.propose": propose,
    "grant.list": list_,
    "grant.show": show,
    "grant.approve": approve,
    "grant.reject": reject,
    "grant.amend": amend,
    "grant.narrow": narrow,
    "grant.suspend": suspend,
    "grant.resume": resume,
    "grant.revoke": revoke,
    "grant.history": history,
}
