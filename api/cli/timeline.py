"""Events as a story a person can read: when, who, what, why. It fetches nothing.

Each topic has one sentence; a topic without one (a later release's) is told by its name, so that an
old command line shows new history instead of failing on it.
"""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from api.cli.output import safe, when, words

_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_SHOWN_DIGITS: Final = 12
COLUMNS: Final = ("position", "recorded_at", "what", "who", "stream")

SENTENCES: Final[Mapping[str, str]] = {
    "peer.registered.v1": "Peer {name} registered at {base_url}",
    "peer.activated.v1": "Peer activated; verified: {verification}",
    "peer.updated.v1": "Peer moved to {base_url}",
    "peer.suspended.v1": "Peer suspended",
    "peer.resumed.v1": "Peer resumed",
    "peer.revoked.v1": "Peer revoked for good",
    "grant.proposed.v1": "Grant proposed for user {subject_user_id}: {scope}; "
    "valid {not_before} to {expires_at}",
    "grant.approved.v1": "Grant approved ({sufficient}), terms {terms_digest}",
    "grant.rejected.v1": "Grant rejected",
    "grant.amended.v1": "Terms amended: {scope}; valid {not_before} to {expires_at}",
    "grant.narrowed.v1": "Grant narrowed: {scope}; valid {not_before} to {expires_at}",
    "grant.suspended.v1": "Grant suspended",
    "grant.resumed.v1": "Grant resumed",
    "grant.activated.v1": "Grant active",
    "grant.revoked.v1": "Grant revoked for good",
    "grant.expired.v1": "Grant expired",
    "enrollment-token.issued.v1": "Enrollment token {accessor} made, good to {expires_at}",
    "enrollment-token.redeemed.v1": "Enrollment token {accessor} redeemed for key {key_digest}",
    "enrollment-token.cancelled.v1": "Enrollment token {accessor} cancelled ({cause})",
    "enrollment-token.locked.v1": "Enrollment token {accessor} locked after {failures} failures",
    "issuance.authorized.v1": "Certificate {serial} authorized ({kind}, generation {generation}), "
    "valid {not_before} to {not_after}",
    "issuance.failed.v1": "Certificate {serial} refused by the authority: {detail}",
    "issuance.abandoned.v1": "Certificate {serial} given up: {detail}",
    "certificate.issued.v1": "Certificate {serial} issued and checked",
    "certificate.revoked.v1": "Certificate {serial} revoked ({revocation_reason}: {detail})",
    "certificate.mis-issued.v1": "Certificate {serial} MIS-ISSUED, not delivered: {findings}",
    "certificate.clone-suspected.v1": "CLONE SUSPECTED of certificate {serial}, "
    "whose successor is {successor}",
    "certificate.authority-told.v1": "Authority told of the revocation of {serial}: {answer}",
    "operator.registered.v1": "Operator registered ({kind}) as {roles}",
    "operator.roles-changed.v1": "Roles changed to {roles}",
    "operator.disabled.v1": "Operator disabled",
    "credential.issued.v1": "Credential {accessor} made, good to {expires_at}",
    "credential.revoked.v1": "Credential {accessor} revoked",
    "policy.changed.v1": "Policy: four eyes {four_eyes}, {required_approvals} approvals good for "
    "{approval_days} days, grants up to {max_grant_days} days, certificates {certificate_ttl} s, "
    "tokens {token_ttl} s",
    "ledger.created.v1": "Ledger {origin} created by fedledger {product_version}",
    "log-key.rotated.v1": "Log key changed to {log_key}",
    "access.checkpointed.v1": "Access log fixed at {size} records",
    "authority.adopted.v1": "Authority adopted ({kind}), good to {not_after}",
    "authority.retired.v1": "Authority retired",
    "crl.published.v1": "Revocation list published with {entries} entries, next by {next_update}",
    "certificate.found-unknown.v1": "UNKNOWN CERTIFICATE {serial} found in {found_in}",
    "alarm.raised.v1": "ALARM {kind}: {detail}",
    "alarm.acknowledged.v1": "Alarm acknowledged",
    "enrollment.rejected.v1": "Enrollment refused ({cause}), {count} times",
    "call.denied.v1": "Call {operation} denied ({problem}), {count} times",
    "audit.read.v1": "Audit trail read through {operation}, {count} answers",
    "export.made.v1": "Exported {count} events {first_position} to {last_position} as {format}",
}
_YES_NO: Final = {"sufficient": ("enough", "more needed"), "four_eyes": ("on", "OFF")}


class _Facts(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"  # a field this release does not know the name of must not hide the event


def sentence(topic: str, data: Mapping[str, Any]) -> str:
    """Say in one line what happened, from an event's topic and its `data`."""
    told = SENTENCES.get(topic)
    if told is None:
        return f"{topic} {words(data)}"
    return told.format_map(_Facts((key, _fact(key, value)) for key, value in data.items()))


def who(actor: Mapping[str, Any]) -> str:
    """Say who acted, with what right and from where: `operator 4f0c… (admin) from 10.0.0.7`."""
    name = safe(str(actor.get("id", "?")))
    if _UUID.fullmatch(name):
        name = name[:8]  # enough to tell people apart in one story; the JSON has it whole
    parts = [f"{safe(str(actor.get('kind', '?')))} {name}"]
    if roles := actor.get("roles"):
        parts.append(f"({words(roles)})")
    if actor.get("auth") in {"enrollment-token", "certificate"}:
        parts.append(f"with {actor['auth']} {words(actor.get('credential'))}")
    if source := actor.get("source"):
        parts.append(f"from {words(source)}")
    return " ".join(parts)


def row(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return one event for a table with `COLUMNS`."""
    body = _parts(event)
    return {
        "position": event.get("position"),
        "recorded_at": event.get("recorded_at"),
        "what": sentence(str(event.get("topic", "?")), body.get("data") or {}),
        "who": who(body.get("actor") or {}),
        "stream": event.get("stream"),
    }


def lines(events: Iterable[Mapping[str, Any]], width: int | None = None) -> list[str]:
    """Return the story, oldest event first as given: what, who and why, each on a line of its own.

    width: columns of the reader's terminal, to break longer lines at; None: nothing is broken.
    Further lines are indented, those that somebody put into a text as well: only what the ledger
    recorded begins at the margin.
    """
    told: list[str] = []
    for event in events:
        head = f"{when(str(event.get('recorded_at', '?')))}  #{event.get('position', '?')}  "
        indent = " " * (len(head) if width is None else min(len(head), width // 2))
        body = _parts(event)
        what = sentence(str(event.get("topic", "?")), body.get("data") or {})
        told += _broken(head, indent, what, width)
        told += _broken(indent, indent, f"by {who(body.get('actor') or {})}", width)
        if reason := body.get("reason"):
            told += _broken(indent, indent, f"because: {safe(str(reason))}", width)
    return told


def _broken(first: str, further: str, text: str, width: int | None) -> list[str]:
    """The lines of a text, the first behind `first`, all others behind `further`."""
    found: list[str] = []
    for line in text.split("\n"):
        begin = further if found else first
        parts = (
            [begin + line]
            if width is None
            else textwrap.wrap(
                line, width, initial_indent=begin, subsequent_indent=further, break_on_hyphens=False
            )
        )
        found += parts or [begin]
    return [line.rstrip() for line in found]


def scope_words(scope: Mapping[str, Any]) -> str:
    """Say what a scope allows, its limits included."""
    parts = [words(scope.get("resources"))]
    if excluded := scope.get("excluded_resources"):
        parts.append(f"not {words(excluded)}")
    for resource, limit in sorted((scope.get("filters") or {}).items()):
        personal = "personal" if limit.get("include_personal", True) else "no personal"
        teams: Sequence[str] = limit.get("include_teams") or ()
        parts.append(f"{safe(resource)}: {', '.join([personal, *map(safe, teams)])}")
    parts.append(f"up to {scope.get('max_rows_per_query', '?')} rows a query")
    return "; ".join(parts)


def _parts(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the object with actor, reason and data: a stored body, or the flat history entry."""
    body = event.get("body")
    return body if isinstance(body, Mapping) else event


def _fact(key: str, value: object) -> str:
    if key in _YES_NO and isinstance(value, bool):
        return _YES_NO[key][not value]
    if key == "scope" and isinstance(value, Mapping):
        return scope_words(value)
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return value[:_SHOWN_DIGITS] + "…"
    return words(value)
