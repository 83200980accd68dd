"""Looks at a step-ca from outside: whether the ledger can rely on it, and what is dangerous there.

It reads what the server tells anybody, and changes nothing. What a finding is worth to whom is
decided by who asked: doctor shows them all, `init` refuses a server with a failure.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ca import jose
from ca.authority import AuthorityUnavailable
from ca.step_ca_client import Answer, StepCaClient, fetch_issuing, fetch_root
from ca.step_ca_files import DEVELOPMENT_PASSWORDS
from ca.step_ca_template import digest, template

IDS: Final = (
    "ca-reachable", "ca-root", "ca-issuing", "ca-clock", "ca-provisioner", "ca-key", "ca-renewal",
    "ca-extensions", "ca-template", "ca-encrypted-key", "ca-password", "ca-others",
)  # fmt: skip
"""Of the findings, in order; they never change."""

_SKEW: Final = timedelta(seconds=30)  # a token is believed up to a minute from its time
_NEAR_SKEW: Final = timedelta(seconds=5)
_PAGES: Final = 100
_AGAIN: Final = "Run `fedledger ca init-step-ca` again on its directory, then let it read ca.json anew (SIGHUP)."
_CONNECT: Final = "Run `fedledger init --ca step-ca` again, with the right files."


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `hint`: the next step, empty where nothing is to be done."""

    id: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a ledger knows of its step-ca. None: it has not pinned that, or cannot open it."""

    url: str
    provisioner: str
    root: x509.Certificate
    issuing: x509.Certificate | None
    key: ec.EllipticCurvePublicKey | None
    passwords: Sequence[bytes]
    arc: str


def examine(subject: Subject, clock: Callable[[], datetime], *, timeout: float) -> list[Finding]:
    """Look at everything; one finding per id, in order. `timeout`: seconds for each request."""
    found = {one.id: one for one in (_password(subject), *_answering(subject, clock, timeout))}
    unseen = "not examined: see above"
    return [found.get(name, Finding(name, "fail", unseen)) for name in IDS]


def judge(provisioners: Sequence[Any], subject: Subject) -> Iterator[Finding]:
    """Judge what `GET /provisioners` shows: ours, and which others there are."""
    named = [one for one in provisioners if one.get("name") == subject.provisioner]
    others = [one for one in provisioners if one.get("name") != subject.provisioner]
    yield _others(others)
    if not named or named[0].get("type") != "JWK":
        detail = f"there is no JWK provisioner {subject.provisioner}"
        yield Finding("ca-provisioner", "fail", detail, _AGAIN)
        return
    entry = named[0]
    yield Finding("ca-provisioner", "ok", f"{subject.provisioner} is there")
    yield _key(entry, subject)
    claims = entry.get("claims") or {}
    if claims.get("disableRenewal") is True:
        yield Finding("ca-renewal", "ok", "certificates are not renewed behind the ledger's back")
    else:
        detail = "whoever holds a certificate renews it past its grant, unseen by the ledger"
        yield Finding("ca-renewal", "fail", detail, _AGAIN)
    if claims.get("disableSmallstepExtensions") is True:
        detail = "certificates do not say which provisioner's token they came of"
        yield Finding("ca-extensions", "fail", detail, _AGAIN)
    else:
        yield Finding("ca-extensions", "ok", "certificates name their provisioner")
    yield _template(entry, subject.arc)


# ---- what the server shows ----------------------------------------------------------------------


def _answering(
    subject: Subject, clock: Callable[[], datetime], timeout: float
) -> Iterator[Finding]:
    """Whatever can be looked at; it ends where nothing more can."""
    fingerprint = subject.root.fingerprint(hashes.SHA256()).hex()
    try:
        fetch_root(subject.url, fingerprint, timeout=timeout)
    except AuthorityUnavailable as error:
        yield Finding("ca-reachable", "fail", error.detail, _START)
        return
    except LookupError as error:
        yield Finding("ca-reachable", "ok", f"{subject.url} answers")
        yield Finding("ca-root", "fail", str(error), _OTHER_ROOT)
        return
    yield Finding("ca-reachable", "ok", f"{subject.url} answers")
    client = StepCaClient(subject.url, subject.root)
    try:
        yield from _trusted(subject, client, clock, timeout)
    finally:
        client.close()


def _trusted(
    subject: Subject, client: StepCaClient, clock: Callable[[], datetime], timeout: float
) -> Iterator[Finding]:
    try:
        health = client.call("GET", "/health", timeout=timeout)
    except AuthorityUnavailable as error:
        yield Finding("ca-root", "fail", error.detail, _OTHER_ROOT)
        return
    yield Finding("ca-root", "ok", "it stands under the pinned root")
    yield _clock(health, clock())
    yield _issuing(subject, timeout)
    try:
        provisioners = _provisioners(client, timeout)
        yield from judge(provisioners, subject)
        for entry in provisioners:
            if entry.get("name") == subject.provisioner:
                yield _encrypted_key(client, entry, timeout)
    except (AuthorityUnavailable, LookupError) as error:
        yield Finding("ca-provisioner", "fail", f"its provisioners cannot be read: {error}", _START)


def _provisioners(client: StepCaClient, timeout: float) -> list[Any]:
    found: list[Any] = []
    cursor = ""
    for _ in range(_PAGES):
        answer = client.call("GET", f"/provisioners?limit=100&cursor={cursor}", timeout=timeout)
        page = answer.document.get("provisioners")
        if not answer.ok or not isinstance(page, list):
            raise LookupError(f"it answers {answer.status}: {answer.message}")
        found += [one for one in page if isinstance(one, dict)]
        cursor = quote(str(answer.document.get("nextCursor") or ""), safe="")
        if not cursor:
            break
    return found


def _issuing(subject: Subject, timeout: float) -> Finding:
    try:
        shown = fetch_issuing(subject.url, subject.root, timeout=timeout)
    except (AuthorityUnavailable, LookupError) as error:
        return Finding("ca-issuing", "fail", str(error), _OTHER_ROOT)
    if subject.issuing is not None and shown != subject.issuing:
        detail = "it signs with another certificate than the one adopted"
        return Finding("ca-issuing", "fail", detail, _CONNECT)
    return Finding("ca-issuing", "ok", f"signs until {shown.not_valid_after_utc:%Y-%m-%d}")


def _clock(health: Answer, ours: datetime) -> Finding:
    try:
        theirs = parsedate_to_datetime(health.headers["date"]).astimezone(UTC)
    except (KeyError, ValueError, TypeError):
        return Finding("ca-clock", "warn", "it does not say what time it is", _NTP)
    ahead = (theirs - ours).total_seconds()
    detail = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's clock"
    if abs(ahead) > _SKEW.total_seconds():
        return Finding("ca-clock", "fail", f"{detail}: our tokens are refused", _NTP)
    if abs(ahead) > _NEAR_SKEW.total_seconds():
        return Finding("ca-clock", "warn", detail, _NTP)
    return Finding("ca-clock", "ok", f"within {_NEAR_SKEW.seconds} s of this machine's clock")


def _key(entry: Any, subject: Subject) -> Finding:
    if subject.key is None:
        return Finding("ca-key", "fail", "the provisioner's key does not open", _CONNECT)
    try:
        same = jose.read_public_jwk(entry.get("key")) == subject.key
    except jose.JoseError:
        same = False
    if not same:
        detail = "the server has another key for this provisioner than the ledger"
        return Finding("ca-key", "fail", detail, _CONNECT)
    return Finding("ca-key", "ok", "the ledger's key is the provisioner's")


def _template(entry: Any, arc: str) -> Finding:
    options = (entry.get("options") or {}).get("x509") or {}
    text, ours = options.get("template"), template(arc)
    if text == ours:
        return Finding("ca-template", "ok", f"is this release's ({digest(ours)[:12]}…)")
    what = f"another one ({digest(text)[:12]}…)" if isinstance(text, str) else "none of ours"
    detail = f"{what}: its certificates would be refused as mis-issued"
    return Finding("ca-template", "fail", detail, _AGAIN)


def _encrypted_key(client: StepCaClient, entry: Any, timeout: float) -> Finding:
    kid = quote(str((entry.get("key") or {}).get("kid")), safe="")
    answer = client.call("GET", f"/provisioners/{kid}/encrypted-key", timeout=timeout)
    if "encryptedKey" in entry or answer.ok:
        detail = "anybody may fetch the provisioner's encrypted key and guess its password"
        hint = f"{_AGAIN} Then give the provisioner a new key: `fedledger ca rotate-step-ca`."
        return Finding("ca-encrypted-key", "fail", detail, hint)
    return Finding("ca-encrypted-key", "ok", "the provisioner's key is not given to anybody")


def _others(others: Sequence[Any]) -> Finding:
    if not others:
        return Finding("ca-others", "ok", "no other provisioner")
    named = ", ".join(sorted(f"{one.get('type')} {one.get('name')}" for one in others))
    detail = f"others can have certificates signed under the same issuer: {named}"
    return Finding("ca-others", "warn", detail, _REMOVE)


def _password(subject: Subject) -> Finding:
    if DEVELOPMENT_PASSWORDS.intersection(one.rstrip() for one in subject.passwords):
        detail = "the provisioner's key has a development password, which everybody knows"
        return Finding("ca-password", "warn", detail, _ROTATE)
    return Finding("ca-password", "ok", "is not one of those that come with the program")


_START: Final = "Start step-ca, or correct the URL; look into its log."
_NTP: Final = "Set the clocks of this machine and of the CA right (NTP)."
_OTHER_ROOT: Final = "Find out who answers there before anything else; it is not the CA adopted."
_ROTATE: Final = "Run `fedledger ca rotate-step-ca FOLDER provisioner-password`, and the CA's too."
_REMOVE: Final = "Remove what is not needed from ca.json; give the federation a CA of its own."
