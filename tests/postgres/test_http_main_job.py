"""The main job over HTTP, end to end: from registering a peer to a revoked certificate's history."""

from cryptography import x509

from support.http import House, csr

GRANT_OID = "1.3.6.1.4.1.99999.1"


def test_the_main_job(place: House) -> None:
    peer = place.peer("Example Hospital")
    assert peer["state"] == "active"
    plain = place.grant(peer["id"], "tasks")
    assert plain["status"] == "pending_enrollment"
    sensitive = place.grant(peer["id"], "credentials")
    assert sensitive["status"] == "pending_approval"
    approval = {"terms_digest": sensitive["terms_digest"], "reason": "checked"}
    refused = place.call("grant.approve", approval, token=place.admin, grant_id=sensitive["id"])
    assert refused.status_code == 403, refused.text
    approved = place.ok("grant.approve", approval, token=place.approver, grant_id=sensitive["id"])
    assert approved["status"] == "pending_enrollment"

    token, request = place.token(plain["id"]), csr()
    answer = place.enroll(token, request)
    assert answer.status_code == 200, answer.text
    enrolled = answer.json
    certificate = x509.load_pem_x509_certificate(enrolled["certificate"].encode())
    found = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(GRANT_OID)).value
    assert found.public_bytes().endswith(plain["id"].encode())
    assert place.enroll(token, request).json == enrolled
    assert place.enroll(token, csr()).status_code == 401
    serial = enrolled["serial"]
    assert place.ok("certificate.status", serial=serial)["status"] == "good"
    assert place.ok("grant.show", grant_id=plain["id"])["status"] == "active"

    revoked = place.ok(
        "certificate.revoke",
        {"revocation_reason": "keyCompromise", "reason": "stolen"},
        serial=serial,
    )
    assert revoked["revocation_reason"] == "keyCompromise"
    assert place.ok("certificate.status", serial=serial)["status"] == "revoked"
    assert place.ok("grant.revoke", {"reason": "over"}, grant_id=plain["id"])["status"] == "revoked"

    history = place.ok("grant.history", grant_id=plain["id"])
    assert history["status"] == "revoked"
    told = [(entry["topic"], entry["status"]) for entry in history["items"]]
    assert told == [
        ("grant.proposed.v1", "pending_enrollment"),
        ("enrollment-token.issued.v1", "pending_enrollment"),
        ("enrollment-token.redeemed.v1", "pending_enrollment"),
        ("issuance.authorized.v1", "pending_enrollment"),
        ("certificate.issued.v1", "pending_enrollment"),
        ("grant.activated.v1", "active"),
        ("certificate.revoked.v1", "active"),
        ("grant.revoked.v1", "revoked"),
    ]
