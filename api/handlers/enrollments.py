"""Enrollment tokens, their redemption, and renewal: what their operations do."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from api import enrollments as wire
from api.exchange import Answer, Asked, Handler, rehearsed
from api.handlers.views import page, pem, sent
from api.problems import ThrottledError
from api.reading import Snapshot
from ca.issuance import Enrolled
from ledger.errors import NotFoundError
from projections import grants, tokens


def issue(asked: Asked) -> Answer:
    body = asked.body_as(wire.IssueToken)
    recorded = asked.services.ledger.issue_enrollment_token(
        asked.call,
        asked.id("grant_id"),
        ttl=None if body.ttl is None else timedelta(seconds=body.ttl),
        key_digest=body.key_digest,
    )
    if asked.call.dry_run:
        return rehearsed(recorded)
    issued = recorded.value
    return Answer(
        wire.IssuedToken(
            token=issued.text,
            accessor=issued.accessor,
            grant_id=issued.grant.id,
            expires_at=issued.expires_at,
            key_digest=issued.grant.tokens[issued.accessor].key_digest,
        ),
        version=issued.grant.version,
        position=recorded.position,
        location=f"/v1/enrollment-tokens/{issued.accessor}",
        replayed=recorded.replayed,
    )


def list_(asked: Asked) -> Answer:
    query, grant_id = asked.query_as(wire.TokenFilter), asked.id("grant_id")
    with asked.read() as snapshot:
        if grants.by_id(snapshot.connection, grant_id, snapshot.at) is None:
            raise NotFoundError("nothing has this id")
    return page(
        asked,
        query,
        lambda snapshot, after: [
            _shown(row, snapshot)
            for row in tokens.page(
                snapshot.connection,
                grant_id,
                snapshot.at,
                state=query.state,
                expires_before=query.expires_before,
                after=after,
                limit=query.limit + 1,
            )
        ],
        key=lambda token: token.accessor,
        item=sent,
    )


def show(asked: Asked) -> Answer:
    with asked.read() as snapshot:
        row = tokens.by_accessor(snapshot.connection, asked.text("accessor"))
        if row is None:
            raise NotFoundError("nothing has this id")
        return Answer(_shown(row, snapshot), position=snapshot.position)


def _shown(row: tokens.TokenRow, snapshot: Snapshot) -> wire.Token:
    names = wire.Token.model_fields.keys() - {"state"}
    fields = {name: getattr(row, name) for name in names}
    return wire.Token.model_validate(fields | {"state": tokens.effective_state(row, snapshot.at)})


def cancel(asked: Asked) -> Answer:
    accessor = asked.text("accessor")
    with asked.read() as snapshot:
        row = tokens.by_accessor(snapshot.connection, accessor)
    if row is None:
        raise NotFoundError("nothing has this id")
    ledger = asked.services.ledger
    recorded = ledger.cancel_enrollment_token(asked.call, row.grant_id, accessor)
    if asked.call.dry_run:
        return rehearsed(recorded)
    return Answer(position=recorded.position)


def redeem(asked: Asked) -> Answer:
    _hold_up(asked)
    body = asked.body_as(wire.Redeem)
    return _enrolled(asked.services.issuance.redeem(asked.call, body.token, body.csr))


def renew(asked: Asked) -> Answer:
    _hold_up(asked)
    body = asked.body_as(wire.Renew)
    return _enrolled(asked.services.issuance.renew(asked.call, asked.text("serial"), body.csr))


def _hold_up(asked: Asked) -> None:
    """Signing is dear: so much from one source, and no more."""
    if wait := asked.services.enrollments.take(asked.source):
        raise ThrottledError("too many enrollments from one source", retry_after=wait)


def _enrolled(done: Enrolled) -> Answer:
    value = wire.Enrolled(
        serial=done.serial,
        grant_id=done.grant_id,
        not_before=done.not_before,
        not_after=done.not_after,
        certificate=pem(done.certificate),
        chain="".join(map(pem, done.chain)),
    )
    return Answer(value, replayed=done.replayed)


HANDLERS: Final[Mapping[str, Handler]] = {
    "enrollment-token.issue": issue,
    "enrollment-token.list": list_,
    "enrollment-token.show": show,
    "enrollment-token.cancel": cancel,
    "enrollment.redeem": redeem,
    "certificate.renew": renew,
}
