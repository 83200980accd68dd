"""What is ordered from an authority, made from folded states; it decides, signs and stores nothing.

`new_order` writes the order a rule then accepts or refuses; `signing_order` reads it back from the
recorded authorization, so that every attempt asks for the same certificate.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import uuid4

from ca.csr import Csr
from ca.profile import SigningOrder, ValidityTooShort, new_serial, order_extensions, validity
from ledger.authorities import Authority
from ledger.events import CertificateExtension, IssuanceAuthorized
from ledger.grant_state import Grant
from ledger.issuance import Order, Request
from ledger.peers import Peer
from ledger.policy import Policy

PROFILE_VERSION: Final = 1
"""Of the fixed profile in `ca/profile.py`; recorded with every authorization."""


def request_of(csr: Csr) -> Request:
    """The request as the rules know it."""
    digest = hashlib.sha256(csr.der).hexdigest()
    return Request(der=csr.der, csr_sha256=digest, key_digest=csr.key_digest)


def new_order(
    grant: Grant,
    peer: Peer,
    policy: Policy,
    authority: Authority,
    at: datetime,
    *,
    randomness: Callable[[int], bytes],
    arc: str,
) -> Order:
    """The certificate as it should be, with a new serial. `arc`: of our two extensions.

    With under five minutes left the order has no life at all: the rule that gets it refuses it,
    but only if it is needed; whoever repeats a request that was answered already needs none.
    """
    ttl = timedelta(seconds=policy.certificate_ttl)
    try:
        not_before, not_after = validity(at, ttl, grant.expires_at, authority.not_after)
    except ValidityTooShort:
        not_before = not_after = at.replace(microsecond=0)
    return Order(
        issuance_id=uuid4(),
        serial=new_serial(randomness),
        not_before=not_before,
        not_after=not_after,
        subject=peer.name,
        san=(f"urn:uuid:{grant.id}",),
        extensions=tuple(
            CertificateExtension(oid=oid, critical=False, value=value)
            for oid, value in order_extensions(str(grant.id), grant.subject_user_id, arc)
        ),
        authority_id=authority.id,
        profile_version=PROFILE_VERSION,
    )


def signing_order(authorization: IssuanceAuthorized) -> SigningOrder:
    """The order as authorized: the same fact gives the same order, today and in a year."""
    (san,) = authorization.san
    return SigningOrder(
        issuance_id=str(authorization.issuance_id),
        csr_der=authorization.csr,
        key_digest=authorization.key_digest,
        serial=authorization.serial,
        not_before=authorization.not_before,
        not_after=authorization.not_after,
        common_name=authorization.subject,
        san_uri=san,
        extensions=tuple((one.oid, one.value) for one in authorization.extensions),
    )
