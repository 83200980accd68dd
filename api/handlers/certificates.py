"""Certificates and the authority's roots: what their operations do."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from api import certificates as wire
from api.exchange import Answer, Asked, Handler, rehearsed
from api.handlers.views import command, page, pem
from api.reading import Snapshot
from api.wire import PastPage, parse_serial
from ledger.errors import NotFoundError
from ledger.events import POLICY_ID, CertificateRevoked
from ledger.grant_state import Grant, Issuance, Revocation
from ledger.grant_status import effective_status
from ledger.issuance import revocation_of
from ledger.peers import Peer
from ledger.policy import DEFAULT, Policy
from ledger.reading import Load
from projections import authorities, certificates, grants


def of_grant(asked: Asked) -> Answer:
    grant_id = asked.id("grant_id")
    with asked.read() as snapshot:
        grant = grants.by_id(snapshot.connection, grant_id, snapshot.at)
        if grant is None or not asked.may_see(grant.peer_id):
            raise NotFoundError("nothing has this id")
    return _page(asked, asked.query_as(wire.GrantCertificateFilter), grant_id=grant_id)


def list_(asked: Asked) -> Answer:
    query = asked.query_as(wire.CertificateFilter)
    if asked.peer_id is None:
        return _page(asked, query)
    return _page(asked, query, peer_id=asked.peer_id, none=not asked.may_see(query.peer_id))


def _page(
    asked: Asked, query: wire.GrantCertificateFilter, *, none: bool = False, **more: Any
) -> Answer:
    # Member by member: `model_dump` would write moments as text.
    named = {name: getattr(query, name) for name in type(query).model_fields}
    filters = {name: value for name, value in named.items() if name not in PastPage.model_fields}
    return page(
        asked,
        query,
        lambda snapshot, after: (
            []
            if none
            else certificates.page(
                snapshot.connection,
                recorded_by=snapshot.at if asked.moment.past else None,
                after=parse_serial(after) if after else None,
                limit=query.limit + 1,
                **filters | more,
            )
        ),
        key=lambda row: row.serial,
        item=sent,
    )


def show(asked: Asked) -> Answer:
    with asked.read() as snapshot:
        return Answer(shown(_row(asked, snapshot)), position=snapshot.position)


def roots(asked: Asked) -> Answer:
    with asked.read() as snapshot:
        chains = [row.chain for row in authorities.everything(snapshot.connection)]
    ends = dict.fromkeys(chain[-1] for chain in chains)
    return Answer(data="".join(map(pem, ends)).encode(), media="application/x-pem-file")


def revocation_list(asked: Asked) -> Answer:
    query = asked.query_as(wire.CrlFormat)
    found = asked.services.lists.latest(query.authority_id)
    if query.format == "der":
        return Answer(data=found.der, media=wire.CRL_DER)
    text = x509.load_der_x509_crl(found.der).public_bytes(Encoding.PEM)
    return Answer(data=text, media=wire.CRL_PEM)


def _row(asked: Asked, snapshot: Snapshot) -> certificates.CertificateRow:
    row = certificates.by_serial(snapshot.connection, asked.text("serial"))
    if row is None or not _is_own(asked, snapshot, row):
        raise NotFoundError("nothing has this serial")
    return row


def _is_own(asked: Asked, snapshot: Snapshot, row: certificates.CertificateRow) -> bool:
    if asked.peer_id is None:
        return True
    grant = grants.by_id(snapshot.connection, row.grant_id, snapshot.at)
    return grant is not None and grant.peer_id == asked.peer_id


def shown(row: certificates.CertificateRow) -> wire.Certificate:
    """A row as a wire model."""
    return wire.Certificate.model_validate(sent(row))


def sent(row: certificates.CertificateRow) -> Mapping[str, Any]:
    """A row as it is sent: what `wire.Certificate` would be in JSON, which a test holds equal."""
    if row.certificate is None:
        return row.__dict__
    return {**row.__dict__, "certificate": pem(row.certificate)}


def status(asked: Asked) -> Answer:
    """Decided from the folded streams, not from the table that found the grant."""
    with asked.read() as snapshot:
        grant_id, position, at = _row(asked, snapshot).grant_id, snapshot.position, snapshot.at
    load = _folding(asked, position)
    grant = load(Grant, grant_id)
    peer = load(Peer, grant.peer_id) if grant else None
    issuance = grant.issuance_of(asked.text("serial")) if grant else None
    if grant is None or peer is None or issuance is None:
        raise NotFoundError("nothing has this serial")
    revocation = revocation_of(issuance, grant, peer, at)
    policy = load(Policy, POLICY_ID) or DEFAULT
    value = wire.CertificateStatus(
        serial=issuance.serial,
        grant_id=grant.id,
        status=_status(issuance, revocation, at),
        revocation_reason=revocation.reason if revocation else None,
        revocation_detail=revocation.detail if revocation else None,
        revoked_at=revocation.at if revocation else None,
        grant_status=effective_status(grant, peer, policy, at).value,
        not_after=issuance.not_after,
    )
    return Answer(value, position=position)


def _folding(asked: Asked, position: int) -> Load:
    """How streams are folded: as they are, or up to the position of the moment asked for."""
    ledger = asked.services.ledger
    if not asked.moment.past:
        return ledger.load
    return lambda kind, stream_id: ledger.load_at(kind, stream_id, position)


def _status(issuance: Issuance, revocation: Revocation | None, at: datetime) -> wire.Standing:
    if revocation is not None:
        return "on-hold" if revocation.reason == "certificateHold" else "revoked"
    if issuance.open:
        return "not-issued"
    return "expired" if at > issuance.not_after else "good"


def revoke(asked: Asked) -> Answer:
    body = asked.body_as(wire.RevokeCertificate)
    serial = asked.text("serial")
    with asked.read() as snapshot:
        grant_id = _row(asked, snapshot).grant_id
    recorded = asked.services.ledger.revoke_certificate(
        asked.call, grant_id, serial, body.revocation_reason, body.detail or body.reason
    )
    grant = recorded.value
    return command(asked, recorded, lambda: _of_state(grant, serial), grant.version)


def revoke_many(asked: Asked) -> Answer:
    body = asked.body_as(wire.RevokeCertificates)
    chosen: dict[str, Any] = body.chosen()
    with asked.read() as snapshot:
        found = certificates.revocable(
            snapshot.connection,
            snapshot.at,
            compromised=body.revocation_reason == "keyCompromise",
            limit=wire.MOST_REVOKED,
            **chosen,
        )
        if not found and not certificates.page(snapshot.connection, limit=1, **chosen):
            # Nothing to revoke is well; a mistyped id must not look like it.
            raise NotFoundError("no certificate was ever ordered for this")
    serials: dict[UUID, list[str]] = {}
    for grant_id, serial in found:
        serials.setdefault(grant_id, []).append(serial)
    recorded = asked.services.ledger.revoke_certificates(
        asked.call, serials, body.revocation_reason, body.detail or body.reason
    )
    if asked.call.dry_run:
        return rehearsed(recorded)
    items = [
        wire.RevokedCertificate(serial=event.data.serial, grant_id=event.originator_id)
        for event in recorded.events
        if isinstance(event.data, CertificateRevoked)
    ]
    more = wire.MOST_REVOKED in {len(items), len(found)}
    return Answer(
        wire.RevokedCertificates(items=items, more=more),
        position=recorded.position,
        replayed=recorded.replayed,
    )


def _of_state(grant: Grant, serial: str) -> wire.Certificate:
    found = (certificates.CertificateRow(*row) for row in certificates.rows(grant))  # type: ignore[arg-type]  # a row's values, in its order
    return shown(next(row for row in found if row.serial == serial))


HANDLERS: Final[Mapping[str, Handler]] = {
    "grant.certificates": of_grant,
    "certificate.list": list_,
    "certificate.show": show,
    "certificate.status": status,
    "certificate.revoke": revoke,
    "certificate.revoke-many": revoke_many,
    "authority.roots": roots,
    "authority.crl": revocation_list,
}
