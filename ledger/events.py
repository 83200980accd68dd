"""Every fact the ledger can hold, with its topic for ever. It holds no rule and touches no storage.

A stored body is an object with exactly `actor, at, causation_id, correlation_id, data, id, reason`;
`data` is one `Fact` of the closed registry below. Topics may be added, never changed: a stored
format that must differ gets a new class with `.v2` and an upcast in `ledger/mapper.py`.
No fact holds a secret, a display name or an e-mail address.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, ClassVar, Final, Literal, TypeAlias
from uuid import UUID

from msgspec import Meta, Struct
from typing_extensions import dataclass_transform

from ledger.scope import Scope

LEDGER_ID: Final = UUID("00000000-0000-4000-8000-000000000001")
POLICY_ID: Final = UUID("00000000-0000-4000-8000-000000000002")

StreamType: TypeAlias = Literal[
    "peer", "grant", "operator", "policy", "ledger", "authority", "alarm", "note"
]
ActorKind: TypeAlias = Literal["operator", "peer", "gateway", "system", "local"]
Role: TypeAlias = Literal["admin", "approver", "auditor", "operator", "gateway"]

# ---- how values of `data` are written -------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """The pattern that the whole of a text has, in a stored body."""

    pattern: str


# A moment in UTC with six digits of a second, an id in lower case with hyphens, base64 with its padding:
# each has one spelling, since a body is read only if it is written again as the same bytes.
Time = datetime
Id = UUID
Octets = bytes
Digest = Annotated[str, Form(r"^[0-9a-f]{64}$")]
Serial = Annotated[str, Form(r"^[4-7][0-9a-f]{31}$")]
Accessor = Annotated[str, Form(r"^[0-9a-z]{16}$")]
Oid = Annotated[str, Form(r"^[0-2](\.(0|[1-9][0-9]*))+$"), Meta(max_length=128)]
Text = Annotated[str, Meta(min_length=1, max_length=2000)]
SubjectUser = Annotated[str, Form(r"^[0-9A-Za-z._:@-]{1,100}$")]
PeerName = Annotated[str, Form(r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$")]
Count = Annotated[int, Meta(ge=0, le=2**53)]
RevocationReason: TypeAlias = Literal[
    # RFC 5280 §5.3.1, the reasons an end-entity certificate can have.
    "unspecified",
    "keyCompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "certificateHold",
    "privilegeWithdrawn",
]


class Actor(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who caused an event, in opaque ids.

    `id`: operator or peer id, `uid:<n>` for `local`, the component's name for `system`.
    `credential`: the accessor of a bearer token or the serial of a certificate.
    `source`: the network address the call came from, null for `system` and `local`.
    """

    kind: ActorKind
    id: Annotated[str, Meta(min_length=1, max_length=100)]
    roles: tuple[str, ...] = ()
    auth: Literal["bearer", "enrollment-token", "certificate", "local", "none", "system"]
    credential: str | None = None
    source: str | None = None


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Fact(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happened, without who and when. Subclasses are the closed topic registry.

    Making one checks nothing: what a stored one must be is checked when it is written, and read.
    """

    TOPIC: ClassVar[str]
    STREAM: ClassVar[StreamType]


class Event(Struct, frozen=True):
    """One immutable fact of one stream. The first two names are the eventsourcing library's."""

    originator_id: UUID  # the stream
    originator_version: int  # 1, 2, 3 … in the stream
    id: UUID
    at: datetime  # the time the rules were given; the ledger's own time is recorded_at
    actor: Actor
    correlation_id: str  # the request's id
    causation_id: UUID | None  # another event's id
    reason: str | None
    data: Fact


# ---- peer -----------------------------------------------------------------------------------


class PeerRegistered(Fact):
    TOPIC, STREAM = "peer.registered.v1", "peer"
    name: PeerName
    base_url: Text


class PeerActivated(Fact):
    TOPIC, STREAM = "peer.activated.v1", "peer"
    verification: Text  # what was verified, and how; who did it is the actor


class PeerUpdated(Fact):
    TOPIC, STREAM = "peer.updated.v1", "peer"
    base_url: Text


class PeerSuspended(Fact):
    TOPIC, STREAM = "peer.suspended.v1", "peer"


class PeerResumed(Fact):
    TOPIC, STREAM = "peer.resumed.v1", "peer"


class PeerRevoked(Fact):
    TOPIC, STREAM = "peer.revoked.v1", "peer"


# ---- grant ----------------------------------------------------------------------------------


class _Terms(Fact):
    scope: Scope
    not_before: Time
    expires_at: Time
    terms_digest: Digest
    sensitive: bool  # by the rules of that day: it decides whether an approval is needed


class GrantProposed(_Terms):
    TOPIC, STREAM = "grant.proposed.v1", "grant"
    peer_id: Id
    subject_user_id: SubjectUser


class GrantApproved(Fact):
    TOPIC, STREAM = "grant.approved.v1", "grant"
    terms_digest: Digest
    lapses_at: Time
    sufficient: bool  # with this approval the policy of that moment was met


class GrantRejected(Fact):
    TOPIC, STREAM = "grant.rejected.v1", "grant"


class GrantAmended(_Terms):
    TOPIC, STREAM = "grant.amended.v1", "grant"


class GrantNarrowed(_Terms):
    TOPIC, STREAM = "grant.narrowed.v1", "grant"


class GrantSuspended(Fact):
    TOPIC, STREAM = "grant.suspended.v1", "grant"


class GrantResumed(Fact):
    TOPIC, STREAM = "grant.resumed.v1", "grant"


class GrantActivated(Fact):
    TOPIC, STREAM = "grant.activated.v1", "grant"
    issuance_id: Id


class GrantRevoked(Fact):
    TOPIC, STREAM = "grant.revoked.v1", "grant"


class GrantExpired(Fact):
    TOPIC, STREAM = "grant.expired.v1", "grant"


class EnrollmentTokenIssued(Fact):
    TOPIC, STREAM = "enrollment-token.issued.v1", "grant"
    accessor: Accessor
    token_sha256: Digest
    expires_at: Time
    key_digest: Digest | None  # the pin


class EnrollmentTokenRedeemed(Fact):
    TOPIC, STREAM = "enrollment-token.redeemed.v1", "grant"
    accessor: Accessor
    issuance_id: Id
    csr_sha256: Digest
    key_digest: Digest


class EnrollmentTokenCancelled(Fact):
    TOPIC, STREAM = "enrollment-token.cancelled.v1", "grant"
    accessor: Accessor
    cause: Literal["replaced", "operator", "grant-amended", "grant-ended"]


class EnrollmentTokenLocked(Fact):
    TOPIC, STREAM = "enrollment-token.locked.v1", "grant"
    accessor: Accessor
    failures: Count


class CertificateExtension(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    oid: Oid
    critical: bool
    value: Octets  # DER


class IssuanceAuthorized(Fact):
    TOPIC, STREAM = "issuance.authorized.v1", "grant"
    issuance_id: Id
    kind: Literal["enrollment", "renewal"]
    generation: Count  # 1 for an enrollment, + 1 with each renewal
    accessor: Accessor | None  # the token, for an enrollment
    predecessor: Serial | None  # the certificate that asked, for a renewal
    csr: Octets  # DER, what the authority is asked to sign
    csr_sha256: Digest
    key_digest: Digest
    serial: Serial
    not_before: Time
    not_after: Time
    subject: PeerName  # the common name, the subject's only attribute
    san: tuple[str, ...]  # URIs
    extensions: tuple[CertificateExtension, ...]
    authority_id: Id
    profile_version: Count


class IssuanceFailed(Fact):
    TOPIC, STREAM = "issuance.failed.v1", "grant"
    issuance_id: Id
    serial: Serial
    status: Count | None  # the authority's own status
    detail: Text


class IssuanceAbandoned(Fact):
    TOPIC, STREAM = "issuance.abandoned.v1", "grant"
    issuance_id: Id
    serial: Serial
    detail: Text


class CertificateIssued(Fact):
    TOPIC, STREAM = "certificate.issued.v1", "grant"
    issuance_id: Id
    serial: Serial
    certificate: Octets  # DER
    certificate_sha256: Digest
    tbs_sha256: Digest


class CertificateRevoked(Fact):
    TOPIC, STREAM = "certificate.revoked.v1", "grant"
    serial: Serial
    revocation_reason: RevocationReason
    detail: Text


class CertificateMisIssued(Fact):
    TOPIC, STREAM = "certificate.mis-issued.v1", "grant"
    issuance_id: Id
    serial: Serial  # as authorized; what came back may say another
    certificate: Octets  # what came back, whatever it is
    findings: tuple[Text, ...]


class CertificateCloneSuspected(Fact):
    TOPIC, STREAM = "certificate.clone-suspected.v1", "grant"
    serial: Serial
    successor: Serial
    csr_sha256: Digest
    key_digest: Digest


class CertificateAuthorityTold(Fact):
    TOPIC, STREAM = "certificate.authority-told.v1", "grant"
    serial: Serial
    answer: Literal["confirmed", "already-revoked", "unsupported", "failed"]
    status: Count | None


# ---- operator -------------------------------------------------------------------------------


class OperatorRegistered(Fact):
    TOPIC, STREAM = "operator.registered.v1", "operator"
    kind: Literal["person", "machine"]
    roles: tuple[Role, ...]


class OperatorRolesChanged(Fact):
    TOPIC, STREAM = "operator.roles-changed.v1", "operator"
    roles: tuple[Role, ...]


class OperatorDisabled(Fact):
    TOPIC, STREAM = "operator.disabled.v1", "operator"


class CredentialIssued(Fact):
    TOPIC, STREAM = "credential.issued.v1", "operator"
    accessor: Accessor
    token_sha256: Digest
    expires_at: Time


class CredentialRevoked(Fact):
    TOPIC, STREAM = "credential.revoked.v1", "operator"
    accessor: Accessor


# ---- policy and ledger, one stream each -----------------------------------------------------


class PolicyChanged(Fact):
    """The whole policy as it holds from here on."""

    TOPIC, STREAM = "policy.changed.v1", "policy"
    four_eyes: bool
    required_approvals: Count
    approval_days: Count
    max_grant_days: Count
    certificate_ttl: Count  # seconds
    token_ttl: Count  # seconds


class LedgerCreated(Fact):
    TOPIC, STREAM = "ledger.created.v1", "ledger"
    origin: Annotated[str, Form(r"^[a-z0-9.-]+(/[a-z0-9.-]+)*$")]
    log_key: Text  # C2SP signed-note verifier key: <origin>+<hash>+<base64>
    product_version: Text


class LogKeyRotated(Fact):
    TOPIC, STREAM = "log-key.rotated.v1", "ledger"
    log_key: Text


class AccessCheckpointed(Fact):
    TOPIC, STREAM = "access.checkpointed.v1", "ledger"
    size: Count
    root: Digest


# ---- authority ------------------------------------------------------------------------------


class AuthorityAdopted(Fact):
    TOPIC, STREAM = "authority.adopted.v1", "authority"
    kind: Literal["local", "step-ca"]
    chain: tuple[Octets, ...]  # DER, the issuing one first
    not_after: Time  # the issuing certificate's end


class AuthorityRetired(Fact):
    TOPIC, STREAM = "authority.retired.v1", "authority"


class CrlPublished(Fact):
    """Its position is the CRL number (RFC 5280 §5.2.3)."""

    TOPIC, STREAM = "crl.published.v1", "authority"
    this_update: Time
    next_update: Time
    entries: Count


class CertificateFoundUnknown(Fact):
    TOPIC, STREAM = "certificate.found-unknown.v1", "authority"
    serial: Annotated[str, Form(r"^[0-9a-f]{2,64}$")]  # anyone's choice
    certificate: Octets | None
    found_in: Text


# ---- alarm and note -------------------------------------------------------------------------


class AlarmRaised(Fact):
    TOPIC, STREAM = "alarm.raised.v1", "alarm"
    kind: Annotated[str, Form(r"^[a-z0-9-]{1,64}$")]
    about: tuple[Text, ...]  # ids of what it concerns
    detail: Text


class AlarmAcknowledged(Fact):
    TOPIC, STREAM = "alarm.acknowledged.v1", "alarm"


class EnrollmentRejected(Fact):
    """`count` > 1: a summary of further rejections from one source in one minute."""

    TOPIC, STREAM = "enrollment.rejected.v1", "note"
    cause: Annotated[str, Form(r"^[a-z0-9-]{1,64}$")]
    count: Count
    accessor: Accessor | None
    grant_id: Id | None
    csr_sha256: Digest | None
    key_digest: Digest | None


class CallDenied(Fact):
    TOPIC, STREAM = "call.denied.v1", "note"
    operation: Text
    problem: Text
    count: Count


class AuditRead(Fact):
    TOPIC, STREAM = "audit.read.v1", "note"
    operation: Text
    filter: tuple[tuple[str, str], ...]
    count: Count


class ExportMade(Fact):
    TOPIC, STREAM = "export.made.v1", "note"
    format: Literal["jsonl", "csv"]
    filter: tuple[tuple[str, str], ...]
    first_position: Count
    last_position: Count
    count: Count
    sha256: Digest


def _registry() -> dict[str, type[Fact]]:
    found: dict[str, type[Fact]] = {}
    waiting = list(Fact.__subclasses__())
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        if "TOPIC" not in cls.__dict__:
            continue  # a shared shape such as _Terms, never stored itself
        if found.setdefault(cls.TOPIC, cls) is not cls:
            raise TypeError(f"two facts share the topic {cls.TOPIC}")
    return dict(sorted(found.items()))


TOPICS: Final[Mapping[str, type[Fact]]] = MappingProxyType(_registry())


def stream_type(topic: str) -> str:
    """The stream type a topic belongs to; KeyError for a topic outside the registry."""
    return TOPICS[topic].STREAM
