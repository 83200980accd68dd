"""A client certificate as the proxy in front hands it on: from whom it is taken, and how it is read.

It decides nothing about the certificate (`api/holders.py`). TLS ends in the proxy, which alone has
seen that the caller holds the private key; so a header counts only when it comes from that one
address, and from everywhere else, or without the setting, it is as if it had not been sent.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import unquote_to_bytes

Form: TypeAlias = Literal["client-cert", "x-ssl-client-cert"]
"""The header that a proxy sends: RFC 9440's own, or the PEM that nginx can make."""

PRESENTED: Final = "fedledger.client_certificate"
"""Where the header's text stands in a request's environ. No header has such a name."""

LONGEST: Final = 16 * 1024
"""Characters of a header that are looked at; a certificate of ours takes about 2000."""

_Application: TypeAlias = Callable[[dict[str, Any], Any], Iterable[bytes]]

_VARIABLES: Final[Mapping[Form, str]] = MappingProxyType(
    {"client-cert": "HTTP_CLIENT_CERT", "x-ssl-client-cert": "HTTP_X_SSL_CLIENT_CERT"}
)
# A byte sequence of RFC 8941 §3.3.5. Parameters, a list or white space inside are not RFC 9440's.
_SEQUENCE: Final = re.compile(r":([A-Za-z0-9+/]+={0,2}):", re.ASCII)
_ESCAPED: Final = re.compile(r"(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})+", re.ASCII)
_PEM: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----\n((?:[A-Za-z0-9+/=]{1,64}\n)+)-----END CERTIFICATE-----\n?"
)


def believing(application: _Application, proxy: str, form: Form) -> _Application:
    """The application, told (`PRESENTED`) of what the address `proxy` hands on in this form.

    It must see the connection's own address: outside of whatever reads X-Forwarded-For.
    """
    variable = _VARIABLES[form]

    def told(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        text = environ.pop(variable, "")
        if text and environ.get("REMOTE_ADDR") == proxy:
            environ[PRESENTED] = text
        return application(environ, start_response)

    return told


def read(form: Form, text: str) -> bytes | None:
    """The one certificate in a header's text, in DER; None if it is anything else.

    Whether the bytes are a certificate at all is not looked at.
    """
    if len(text) > LONGEST:
        return None
    encoded = _of_sequence(text) if form == "client-cert" else _of_escaped_pem(text)
    if encoded is None:
        return None
    try:
        der = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return None
    # One spelling for each certificate: bits that base64 would drop are refused.
    return der if base64.b64encode(der) == encoded else None


def _of_sequence(text: str) -> bytes | None:
    found = _SEQUENCE.fullmatch(text)
    return found[1].encode() if found else None


def _of_escaped_pem(text: str) -> bytes | None:
    if not _ESCAPED.fullmatch(text):
        return None
    found = _PEM.fullmatch(unquote_to_bytes(text))
    return found[1].replace(b"\n", b"") if found else None
