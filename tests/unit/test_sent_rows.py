"""What a page sends of its rows is, byte for byte, what the wire models would be in JSON."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import BaseModel

from api import app
from api import certificates as certificate_wire
from api import events as event_wire
from api import grants as grant_wire
from api import peers as peer_wire
from api.handlers import certificates, events, grants, peers
from api.handlers.views import pem, shown
from ledger.canonical import canonical_json
from ledger.recorded import RecordedEvent
from projections.certificates import CertificateRow
from projections.grants import GrantRow
from projections.peers import PeerRow
from support.past_forms import made_up_issuer

ID = UUID("0d9cb46e-0000-4000-8000-00000000000a")
EVEN = datetime(2026, 11, 23, 15, 7, 8, tzinfo=UTC)
LATER = EVEN + timedelta(microseconds=120)
ELSEWHERE = LATER.astimezone(timezone(timedelta(hours=-5)))
CERTIFICATE = made_up_issuer(EVEN).chain[0]

GRANT = GrantRow(
    id=ID,
    version=3,
    peer_id=ID,
    peer_name='München \u2028 \x01\x7f"\\',
    subject_user_id="user-1",
    status="active",
    stored_status="active",
    scope={"filters": {}, "resources": ["tasks"], "max_rows_per_query": 100},
    sensitive=False,
    not_before=EVEN,
    expires_at=ELSEWHERE,
    terms_digest="ab" * 32,
    proposed_by="someone",
    proposed_at=LATER,
    approvals=[],
    clone_suspected=False,
    activated_at=EVEN,
    ended_at=None,
    changed_at=LATER,
)
# In the order in which a jsonb has its keys.
APPROVAL = {
    "at": "2026-11-23T15:07:08.000000Z",
    "approver": "another",
    "lapses_at": "2026-11-30T15:07:08.000120Z",
}
CERTIFICATE_ROW = CertificateRow(
    serial="4" * 32,
    grant_id=ID,
    issuance_id=ID,
    state="issued",
    kind="renewal",
    generation=2,
    accessor=None,
    predecessor="5" * 32,
    authority_id=ID,
    key_digest="cd" * 32,
    csr_sha256="ef" * 32,
    not_before=EVEN,
    not_after=LATER,
    certificate=CERTIFICATE,
    certificate_sha256="01" * 32,
    tbs_sha256="23" * 32,
    authorized_at=EVEN,
    closed_at=LATER,
    failure=None,
    mis_issued=False,
    revoked_at=None,
    revocation_reason=None,
    revocation_detail=None,
    authority_told=None,
)
PEER = PeerRow(
    id=ID,
    version=1,
    name="Example",
    base_url="https://peer.example",
    state="active",
    verification="called <them> & asked",
    registered_at=EVEN,
    activated_at=LATER,
    suspended_at=None,
    revoked_at=None,
    changed_at=ELSEWHERE,
)
EVENT = RecordedEvent(
    position=41,
    stream_id=ID,
    version=2,
    topic="grant.suspended.v1",
    recorded_at=EVEN,
    body=canonical_json(
        {"data": {}, "reason": 'Schlüssel \u2028 𝄞 "\\/\b\x1f\x7f', "id": str(ID), "n": 2**53}
    ),
    leaf=bytes(32),
)


def page_of(items: Iterable[Mapping[str, Any]]) -> bytes:
    return app._encoded({"items": list(items), "next": "abc"})


def modelled(page: type[BaseModel], items: Iterable[BaseModel]) -> bytes:
    """As pages were written before rows were sent without being made models."""
    return page.model_validate({"items": list(items), "next": "abc"}).model_dump_json().encode()


@pytest.mark.parametrize(
    "approvals", [[], [APPROVAL], [APPROVAL, {**APPROVAL, "approver": "a third"}]]
)
def test_grants(approvals: list[Mapping[str, str]]) -> None:
    rows = [replace(GRANT, approvals=approvals), replace(GRANT, ended_at=LATER)]
    assert page_of(map(grants.sent, rows)) == modelled(
        grant_wire.Grants, (shown(grant_wire.Grant, row) for row in rows)
    )


def test_certificates() -> None:
    rows = [CERTIFICATE_ROW, replace(CERTIFICATE_ROW, certificate=None, failure="no")]
    assert page_of(map(certificates.sent, rows)) == modelled(
        certificate_wire.Certificates, map(certificates.shown, rows)
    )


def test_peers() -> None:
    assert page_of([peers.sent(PEER)]) == modelled(peer_wire.Peers, [shown(peer_wire.Peer, PEER)])


def test_events() -> None:
    model = event_wire.Event(
        position=EVENT.position,
        recorded_at=EVENT.recorded_at,
        stream_type=EVENT.stream_type,
        stream=EVENT.stream_id,
        version=EVENT.version,
        topic=EVENT.topic,
        body=orjson.loads(EVENT.body),
        leaf=EVENT.leaf.hex(),
    )
    written = page_of([events.sent(EVENT)])
    assert written == modelled(event_wire.Events, [model])
    assert EVENT.body in written, "the stored object is sent as it is stored"


def test_a_certificates_text() -> None:
    parsed = x509.load_der_x509_certificate(CERTIFICATE)
    assert pem(CERTIFICATE) == parsed.public_bytes(Encoding.PEM).decode()
