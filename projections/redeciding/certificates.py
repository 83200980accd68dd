"""Commands on enrollment tokens and certificates, decided again. Pure."""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from ledger import certificates, enrollment, issuance
from ledger.authorities import Authority
from ledger.bearer import Bearer
from ledger.certificates import CloneSuspected
from ledger.errors import NotFoundError
from ledger.events import (
    CertificateAuthorityTold,
    CertificateCloneSuspected,
    CertificateIssued,
    CertificateMisIssued,
    CertificateRevoked,
    EnrollmentTokenCancelled,
    EnrollmentTokenIssued,
    EnrollmentTokenLocked,
    EnrollmentTokenRedeemed,
    IssuanceAbandoned,
    IssuanceAuthorized,
    IssuanceFailed,
)
from ledger.grant_state import Grant
from ledger.issuance import AlreadyClosed, Authorized, Closed, Order, Request, Signed
from projections.redeciding.command import Command, Facts, Rule, Rules, permitted


def _token(c: Command) -> Facts:
    """A new token, which may cancel one before it; or a cancellation alone."""
    issued = [e.data for e in c.events if isinstance(e.data, EnrollmentTokenIssued)]
    grant = c.own(Grant)
    if not issued:
        c.permit("cancel-enrollment-token")
        return enrollment.cancel_token(grant, c.fact(EnrollmentTokenCancelled).accessor, c.at)
    c.permit("issue-enrollment-token")
    (fact,) = issued
    bearer = Bearer("", fact.accessor, fact.token_sha256)
    life = fact.expires_at - c.at
    return enrollment.issue_token(
        grant, c.peer_of(grant), c.policy, bearer, life, fact.key_digest, c.at
    )


def _lock(c: Command) -> Facts:
    fact = c.fact(EnrollmentTokenLocked)
    return enrollment.lock_token(c.own(Grant), fact.accessor, fact.failures, c.at)


def _authorize(c: Command) -> Facts:
    """An enrollment or a renewal: the same request, and an order cut to what would be allowed."""
    grant, fact = c.own(Grant), c.fact(IssuanceAuthorized)
    peer, authority = c.peer_of(grant), c.authority(fact.authority_id)
    request = Request(fact.csr, fact.csr_sha256, fact.key_digest)
    order = _order(fact, grant, authority, c)
    found: object
    if fact.kind == "renewal":
        found = certificates.renew(
            grant, peer, c.policy, authority, fact.predecessor or "", request, order, c.at
        )
    else:
        token = grant.tokens.get(fact.accessor or "")
        if token is None:
            raise NotFoundError("its enrollment token would not be there")
        presented = enrollment.Presented(token.accessor, token.token_sha256)
        found = enrollment.redeem(
            grant, peer, c.policy, c.approvers(grant), authority, presented, request, order, c.at
        )
    return found.facts if isinstance(found, Authorized | CloneSuspected) else ()


def _order(fact: IssuanceAuthorized, grant: Grant, authority: Authority, c: Command) -> Order:
    end = min(
        fact.not_after,
        grant.expires_at.replace(microsecond=0),
        authority.not_after - timedelta(seconds=1),
        (c.at + c.policy.certificate_life).replace(microsecond=0),
    )
    return Order(
        fact.issuance_id, fact.serial, fact.not_before, end, fact.subject, fact.san,
        fact.extensions, fact.authority_id, fact.profile_version,
    )  # fmt: skip


def _suspect_clone(c: Command) -> Facts:
    """Still two holders? Without the successor it would have been a renewal like any other."""
    grant, fact = c.own(Grant), c.fact(CertificateCloneSuspected)
    successor = grant.issuance_of(fact.successor)
    if successor is None:
        raise NotFoundError("the certificate would have no successor")
    authority = c.authority(successor.authorization.authority_id)
    found = certificates.renew(
        grant, c.peer_of(grant), c.policy, authority, fact.serial,
        Request(b"", fact.csr_sha256, fact.key_digest),
        _order(successor.authorization, grant, authority, c), c.at,
    )  # fmt: skip
    return found.facts if isinstance(found, CloneSuspected) else ()


def _close(rule: Callable[[Grant, Command], Closed | AlreadyClosed]) -> Rule:
    def decide_it(c: Command) -> Facts:
        outcome = rule(c.own(Grant), c)
        return outcome.facts if isinstance(outcome, Closed) else ()

    return decide_it


def _complete(grant: Grant, c: Command) -> Closed | AlreadyClosed:
    fact = c.fact(CertificateIssued)
    signed = Signed(fact.certificate, fact.certificate_sha256, fact.tbs_sha256)
    return issuance.complete(
        grant, c.peer_of(grant), c.policy, c.approvers(grant), fact.issuance_id, signed, c.at
    )


def _mis_issued(grant: Grant, c: Command) -> Closed | AlreadyClosed:
    fact = c.fact(CertificateMisIssued)
    return issuance.mis_issued(grant, fact.issuance_id, fact.certificate, fact.findings)


def _failed(grant: Grant, c: Command) -> Closed | AlreadyClosed:
    fact = c.fact(IssuanceFailed)
    return issuance.fail(grant, fact.issuance_id, fact.status, fact.detail)


def _abandoned(grant: Grant, c: Command) -> Closed | AlreadyClosed:
    fact = c.fact(IssuanceAbandoned)
    return issuance.abandon(grant, fact.issuance_id, fact.detail)


def _revoke_certificates(grant: Grant, c: Command) -> Facts:
    facts = [e.data for e in c.events if isinstance(e.data, CertificateRevoked)]
    known = [fact for fact in facts if grant.issuance_of(fact.serial) is not None]
    if not known:
        raise NotFoundError("the certificate would not be there")
    first = known[0]
    serials = [fact.serial for fact in known]
    return certificates.revoke(grant, serials, first.revocation_reason, first.detail, c.reason)


def _tell_authority(c: Command) -> Facts:
    grant, fact = c.own(Grant), c.fact(CertificateAuthorityTold)
    peer = c.peer_of(grant)
    return certificates.tell_authority(grant, peer, fact.serial, fact.answer, fact.status, c.at)


RULES: Final[Rules] = {
    EnrollmentTokenIssued: _token,
    EnrollmentTokenCancelled: _token,
    EnrollmentTokenLocked: _lock,
    EnrollmentTokenRedeemed: _authorize,
    IssuanceAuthorized: _authorize,
    CertificateIssued: _close(_complete),
    CertificateMisIssued: _close(_mis_issued),
    IssuanceFailed: _close(_failed),
    IssuanceAbandoned: _close(_abandoned),
    CertificateRevoked: permitted("revoke-certificate", Grant, _revoke_certificates),
    CertificateCloneSuspected: _suspect_clone,
    CertificateAuthorityTold: _tell_authority,
}
