"""The main job on a step-ca, as people do it: set up, enroll, revoke, an outage, and a stolen key."""

import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from api.wiring import system_clock
from ca.profile import DEFAULT_ARC, read_der_utf8
from support import csrs
from support.authority_contract import TIMEOUT
from support.installation import Installation, installation, running
from support.step_ca import StepCa, step_ca
from support.waiting import wait_until

pytestmark = pytest.mark.step_ca

_numbers = itertools.count()


def ok(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.is_success, answer.text
    return dict(answer.json())


def csr() -> str:
    made = csrs.request(csrs.ec_key(next(_numbers)))
    return x509.load_der_x509_csr(made).public_bytes(Encoding.PEM).decode()


def grant(admin: httpx.Client) -> str:
    peer = ok(admin, "/v1/peers", name=f"Peer {uuid4().hex[:8]}", base_url="https://peer.example")
    ok(admin, f"/v1/peers/{peer['id']}/activate", verification="called them")
    end = (system_clock() + timedelta(days=30)).isoformat()
    scope = {"resources": ["tasks"], "max_rows_per_query": 100}
    proposal = {"peer_id": peer["id"], "subject_user_id": "user-17", "scope": scope}
    return str(ok(admin, "/v1/grants", **proposal, expires_at=end)["id"])


def enroll(admin: httpx.Client, grant_id: str) -> httpx.Response:
    token = ok(admin, f"/v1/grants/{grant_id}/enrollment-tokens")["token"]
    return admin.post("/v1/enrollments", json={"token": token, "csr": csr()}, headers={})


def connected(server: StepCa, place: Installation) -> None:
    given = server.directory / "for-ledger"
    fingerprint = (given / "root_fingerprint").read_text().strip()
    made = place.run(
        "init", "--ca", "step-ca", "--ca-url", server.url, "--root-fingerprint", fingerprint,
        "--ca-files", str(given),
    )  # fmt: skip
    assert made.code == 0, made


def test_the_main_job(tmp_path: Path) -> None:
    with step_ca(tmp_path) as server, installation() as place:
        connected(server, place)
        with running(place, "serve"), place.http(place.admin) as admin:
            one = grant(admin)
            enrolled = enroll(admin, one)
            assert enrolled.status_code == 200, enrolled.text
            serial = enrolled.json()["serial"]
            shown = admin.get(f"/v1/certificates/{serial}").json()
            certificate = x509.load_pem_x509_certificate(shown["certificate"].encode())
            assert certificate.public_bytes(Encoding.DER) in server.issued()
            values = {
                extension.oid.dotted_string: extension.value.value
                for extension in certificate.extensions
                if isinstance(extension.value, x509.UnrecognizedExtension)
            }
            assert read_der_utf8(values[f"{DEFAULT_ARC}.1"]) == one
            assert read_der_utf8(values[f"{DEFAULT_ARC}.2"]) == "user-17"

            # Revoked here, told there.
            ok(
                admin, f"/v1/certificates/{serial}/revoke",
                revocation_reason="keyCompromise", reason="lost a laptop",
            )  # fmt: skip
            standing = admin.get(f"/v1/certificates/{serial}/status").json()
            assert standing["status"] == "revoked"

            def told() -> bool:
                answer = admin.get(f"/v1/certificates/{serial}").json()["authority_told"]
                return bool(answer == "confirmed")

            wait_until(told, "the authority has confirmed", 60)

            # An outage: nothing is lost, and the same request is answered afterwards.
            two = grant(admin)
            token = ok(admin, f"/v1/grants/{two}/enrollment-tokens")["token"]
            request = {"token": token, "csr": csr()}
            server.kill()
            away = admin.post("/v1/enrollments", json=request)
            assert (away.status_code, away.json()["type"].rsplit(":", 1)[1]) == (
                503,
                "authority-unavailable",
            )
            server.start()
            assert admin.post("/v1/enrollments", json=request).status_code == 200

            # Somebody has the provisioner's key.
            thief = server.authority(tmp_path / "stolen")
            minted = csrs.order(csrs.request(csrs.ec_key(next(_numbers))), system_clock())
            thief.sign(minted, timeout=TIMEOUT)
            thief.close()
            found = place.run("ca", "reconcile", "--log", str(server.log), "--json")
            assert found.code == 6, found
            assert [one["serial"] for one in found.document["unknown"]] == [minted.serial]
            assert "rotate-step-ca" in found.err
            again = place.run("ca", "reconcile", "--log", "-", stdin=server.log.read_text())
            assert again.code == 0, again
            assert minted.serial in again.out
            alarms = admin.get("/v1/alarms").json()["items"]
            assert [one["kind"] for one in alarms] == ["found-unknown"]
            assert admin.get(f"/v1/certificates/{minted.serial}/status").status_code == 404
