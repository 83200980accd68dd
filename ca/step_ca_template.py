"""The X.509 template of our provisioner: what step-ca makes of one of our tokens, and of no other.

Text only; it asks nobody. It is written for every step-ca from 0.19 on, so without `asn1Enc`
(0.24): the two texts are under 128 bytes, and their DER is a tag, one length octet and the text.
"""

import hashlib
import re
from typing import Final

from ca.profile import DEFAULT_ARC

GRANT_CLAIM: Final = "mosaic_grant_id"
SUBJECT_USER_CLAIM: Final = "mosaic_subject_user_id"
SERIAL_CLAIM: Final = "mosaic_serial"
"""Decimal, as a string: the template language reads JSON numbers as floats."""

_ARC: Final = re.compile(r"[0-2](\.(0|[1-9][0-9]{0,9})){1,15}", re.ASCII)

_FIRST_EXTENSION: Final = re.compile(r'"id": "([0-9.]{1,100})\.1"', re.ASCII)

# Every claim is held against its form before it is used: a missing one would otherwise be signed
# as an EMPTY extension. A serial of 38 or 39 digits is one of 16 octets. The names are those of
# the grant and no other: whoever has the provisioner's key can still mint no server certificate.
_TEMPLATE: Final = r"""{
  {{- $uuid := "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$" }}
  {{- $grant := toString .Token.%(grant)s }}
  {{- $user := toString .Token.%(user)s }}
  {{- $serial := toString .Token.%(serial)s }}
  {{- if not (regexMatch $uuid $grant) }}{{ fail "%(grant)s is missing or no UUID" }}{{ end }}
  {{- if not (regexMatch "^[0-9A-Za-z._:@-]{1,100}$" $user) }}{{ fail "%(user)s is missing or malformed" }}{{ end }}
  {{- if not (regexMatch "^[1-9][0-9]{37,38}$" $serial) }}{{ fail "%(serial)s is missing or malformed" }}{{ end }}
  {{- if ne (len .SANs) 1 }}{{ fail "the names are not the grant's one" }}{{ end }}
  {{- range .SANs }}
  {{- if ne .Type "uri" }}{{ fail "the names are not the grant's one" }}{{ end }}
  {{- if ne .Value (printf "urn:uuid:%%s" $grant) }}{{ fail "the names are not the grant's one" }}{{ end }}
  {{- end }}
  "subject": {{ toJson .Subject }},
  "sans": {{ toJson .SANs }},
  "serialNumber": {{ toJson $serial }},
  "extensions": [
    {"id": "%(arc)s.1", "critical": false, "value": {{ printf "\f%%c%%s" (len $grant) $grant | b64enc | toJson }}},
    {"id": "%(arc)s.2", "critical": false, "value": {{ printf "\f%%c%%s" (len $user) $user | b64enc | toJson }}}
  ],
  "keyUsage": ["digitalSignature"],
  "extKeyUsage": ["clientAuth"],
  "basicConstraints": {"isCA": false, "maxPathLen": 0}
}
"""


def template(arc: str = DEFAULT_ARC) -> str:
    """Return the template whose two extensions stand under `arc`, such as 1.3.6.1.4.1.99999.

    Raises:
        ValueError: `arc` is no dotted object identifier.
    """
    if not _ARC.fullmatch(arc):
        raise ValueError("the arc is dotted numbers, such as 1.3.6.1.4.1.99999")
    claims = {"grant": GRANT_CLAIM, "user": SUBJECT_USER_CLAIM, "serial": SERIAL_CLAIM}
    return _TEMPLATE % {**claims, "arc": arc}


def arc_of(text: str) -> str | None:
    """Return the arc that a template of ours, of this release or another, was written for."""
    found = _FIRST_EXTENSION.search(text)
    return found[1] if found and _ARC.fullmatch(found[1]) else None


def digest(text: str) -> str:
    """Return the SHA-256 of a template, 64 lower-case hex: to compare and to show."""
    return hashlib.sha256(text.encode()).hexdigest()
