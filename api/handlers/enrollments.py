"""Enrollment tokens and their redemption: what their operations do."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from api import enrollments as wire
from api.exchange import Answer, Asked, Handler, rehearsed
from api.handlers.views import pem
from api.problems import ThrottledError
from ledger.errors import NotFoundError
from projections import tokens


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
    if wait := asked.services.enrollments.take(asked.source):
        raise ThrottledError("too many enrollments from one source", retry_after=wait)
    body = asked.body_as(wire.Redeem)
    done = asked.services.issuance.redeem(asked.call, body.token, body.csr)
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
    "enrollment-token.cancel": cancel,
    "enrollment.redeem": redeem,
}
