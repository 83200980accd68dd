"""The files of a step-ca for tests, until the product makes them itself."""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from ca import jose
from ca.hierarchy import Issuer, new_issuing, new_root

PASSWORD = b"of the authority's keys"
TEMPLATE = r"""{
  {{- $grant := toString .Token.mosaic_grant_id }}
  {{- $user := toString .Token.mosaic_subject_user_id }}
  {{- if not (regexMatch "^[0-9a-f-]{36}$" $grant) }}{{ fail "mosaic_grant_id" }}{{ end }}
  {{- if not (regexMatch "^[0-9A-Za-z._:@-]{1,100}$" $user) }}{{ fail "mosaic_subject_user_id" }}{{ end }}
  "subject": {{ toJson .Subject }},
  "sans": {{ toJson .SANs }},
  "serialNumber": {{ toJson .Token.mosaic_serial }},
  "extensions": [
    {"id": "1.3.6.1.4.1.99999.1", "value": {{ printf "\f%c%s" (len $grant) $grant | b64enc | toJson }}},
    {"id": "1.3.6.1.4.1.99999.2", "value": {{ printf "\f%c%s" (len $user) $user | b64enc | toJson }}}
  ],
  "keyUsage": ["digitalSignature"],
  "extKeyUsage": ["clientAuth"],
  "basicConstraints": {"isCA": false, "maxPathLen": 0}
}"""


@dataclass(frozen=True)
class Files:
    """`config`: ca.json; `provisioner`: the private key whose tokens the server believes."""

    config: Path
    password_file: Path
    root: x509.Certificate
    issuing: x509.Certificate
    provisioner: ec.EllipticCurvePrivateKey


def furnish(folder: Path, *, database: bool = True) -> Files:
    """Make everything a server needs in `folder`, which must exist."""
    now = datetime.now(UTC)  # noqa: TID251 - the server has its own clock
    root = new_root("Test", 1, now, os.urandom)
    issuing = new_issuing("Test", 1, root, now, os.urandom)
    _write_certificate(folder / "root.crt", root)
    _write_certificate(folder / "issuing.crt", issuing)
    encryption = BestAvailableEncryption(PASSWORD)
    key = issuing.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    (folder / "issuing.key").write_bytes(key)
    (folder / "password").write_bytes(PASSWORD)
    provisioner = ec.generate_private_key(ec.SECP256R1())
    entry = {
        "type": "JWK",
        "name": "mosaic-fed",
        "key": jose.public_jwk(provisioner.public_key()),
        "claims": {"disableRenewal": True},
        "options": {"x509": {"template": TEMPLATE}},
    }
    document: dict[str, Any] = {
        "root": str(folder / "root.crt"),
        "crt": str(folder / "issuing.crt"),
        "key": str(folder / "issuing.key"),
        "address": ":0",
        "dnsNames": ["localhost", "127.0.0.1"],
        "logger": {"format": "json"},
        "authority": {"provisioners": [entry]},
    }
    if database:
        document["db"] = {"type": "bbolt", "dataSource": str(folder / "database")}
    config = folder / "ca.json"
    config.write_text(json.dumps(document))
    return Files(config, folder / "password", root.certificate, issuing.certificate, provisioner)


def _write_certificate(path: Path, issuer: Issuer) -> None:
    path.write_bytes(issuer.certificate.public_bytes(Encoding.PEM))
