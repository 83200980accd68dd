"""Who may do what here: operators, their roles and credentials, and the separation of duties.

It does not read a token, meet a network or know what a grant is; the strings of `WHO_MAY` are the
commands of `Ledger`. Rules that hold whatever the roles say (four eyes on one grant) stand with
the grant.

Separation of duties: nobody holds both `admin` and `approver`. Only an approver may give or take
`approver`, and touch who holds it; only an admin may give or take `admin`. A change between the
two sides therefore takes two steps by two people. A credential handed out on one side never acts
on the other: giving or taking either role revokes the operator's credentials.
The last enabled admin and the last enabled approver can be neither disabled nor relieved of the
role, whoever asks: without them grants could no longer be revoked or approved.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, Literal, cast, get_args
from uuid import UUID

from ledger.bearer import Bearer
from ledger.errors import (
    ForbiddenError,
    InvalidError,
    NotFoundError,
    RefusedError,
    UnauthorizedError,
)
from ledger.events import (
    Actor,
    CredentialIssued,
    CredentialRevoked,
    Event,
    Fact,
    OperatorDisabled,
    OperatorRegistered,
    OperatorRolesChanged,
    Role,
)

MAX_CREDENTIAL_LIFE: Final = timedelta(days=366)
_REASON_LENGTH: Final = 2000
_ROLES: Final = frozenset(get_args(Role))
_SIDES: Final = frozenset({"admin", "approver"})

WHO_MAY: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "register-peer": frozenset({"admin"}),
        "activate-peer": frozenset({"admin"}),
        "update-peer": frozenset({"admin"}),
        "suspend-peer": frozenset({"admin"}),
        "resume-peer": frozenset({"admin"}),
        "revoke-peer": frozenset({"admin"}),
        "propose-grant": frozenset({"admin"}),
        "amend-grant": frozenset({"admin"}),
        "narrow-grant": frozenset({"admin"}),
        "suspend-grant": frozenset({"admin"}),
        "resume-grant": frozenset({"admin"}),
        "resume-grant-after-clone": frozenset({"approver"}),
        "revoke-grant": frozenset({"admin"}),
        "approve-grant": frozenset({"approver"}),
        "approve-grant-without-four-eyes": frozenset({"approver", "admin"}),
        "reject-grant": frozenset({"approver"}),
        "issue-enrollment-token": frozenset({"admin"}),
        "cancel-enrollment-token": frozenset({"admin"}),
        "revoke-certificate": frozenset({"admin"}),
        "write-operator": frozenset({"admin"}),
        "write-approver": frozenset({"approver"}),
        "change-policy": frozenset({"approver"}),
        "acknowledge-alarm": frozenset({"operator"}),
    }
)
"""Roles that may give a command. Whatever is not listed is for `system` and `local` actors only."""


@dataclass(frozen=True, slots=True)
class Credential:
    """An operator's bearer token, as the SHA-256 (hex) of its text."""

    accessor: str
    token_sha256: str
    issued_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None

    def live(self, at: datetime) -> bool:
        """Whether the credential opens anything at `at`, its operator aside."""
        return self.revoked_at is None and at < self.expires_at


@dataclass(frozen=True, slots=True)
class Operator:
    """One person or machine, as its stream tells it."""

    id: UUID
    version: int
    kind: Literal["person", "machine"]
    roles: frozenset[Role]
    enabled: bool
    registered_at: datetime
    changed_at: datetime
    credentials: Mapping[str, Credential] = field(default_factory=dict)  # by accessor

    def holds(self, *roles: str) -> bool:
        """Whether the operator is enabled and has one of `roles`."""
        return self.enabled and not self.roles.isdisjoint(roles)


def evolve(operator: Operator | None, event: Event) -> Operator:
    """Return the operator after one more event of its stream.

    Raises:
        ValueError: the stream does not start with a registration, or holds a foreign fact.
    """
    fact = event.data
    if isinstance(fact, OperatorRegistered):
        return Operator(
            id=event.originator_id,
            version=event.originator_version,
            kind=fact.kind,
            roles=frozenset(fact.roles),
            enabled=True,
            registered_at=event.at,
            changed_at=event.at,
        )
    if operator is None:
        raise ValueError(f"an operator's stream cannot start with {fact.TOPIC}")
    same = replace(operator, version=event.originator_version, changed_at=event.at)
    match fact:
        case OperatorRolesChanged(roles=roles):
            return replace(same, roles=frozenset(roles))
        case OperatorDisabled():
            return replace(same, enabled=False)
        case CredentialIssued(accessor=accessor, token_sha256=digest, expires_at=end):
            issued = Credential(accessor, digest, event.at, end)
            return replace(same, credentials={**operator.credentials, accessor: issued})
        case CredentialRevoked(accessor=accessor):
            revoked = replace(operator.credentials[accessor], revoked_at=event.at)
            return replace(same, credentials={**operator.credentials, accessor: revoked})
    raise ValueError(f"an operator's stream cannot hold {fact.TOPIC}")


# ---- who asks ---------------------------------------------------------------------------------


def require(command: str, actor: Actor, operator: Operator | None, at: datetime) -> None:
    """Refuse unless `actor` may give `command` (a key of `WHO_MAY`) at `at`.

    `operator` is the actor's own folded stream, None if there is none. `system` and `local` pass:
    the one is our own bookkeeping, the other stood at the machine with the owner's key, and both
    are recorded as what they are.

    Raises:
        UnauthorizedError: no such operator, disabled, or its credential is gone or expired.
        ForbiddenError: forbidden, with `roles`, those that may.
    """
    if actor.kind in ("system", "local"):
        return
    allowed = WHO_MAY.get(command, frozenset())
    if actor.kind == "operator":
        if operator is None or not operator.enabled:
            raise UnauthorizedError("the credential is not valid; ask for a new one")
        credential = operator.credentials.get(actor.credential or "")
        if credential is None or not credential.live(at):
            raise UnauthorizedError("the credential is not valid; ask for a new one")
        if operator.holds(*allowed):
            return
    raise ForbiddenError(
        f"this takes the role {' or '.join(sorted(allowed)) or 'of the machine itself'}; "
        "ask somebody who has it",
        roles=sorted(allowed),
    )


def require_reason(reason: str | None, command: str) -> None:
    """Refuse to `command` (words for people, such as `suspend a peer`) without a reason.

    Raises:
        InvalidError: reason-required, reason-too-long.
    """
    if reason is None or not reason.strip():
        raise InvalidError(f"say why: a reason is required to {command}", code="reason-required")
    if len(reason) > _REASON_LENGTH:
        raise InvalidError(
            f"the reason is longer than {_REASON_LENGTH} characters; shorten it",
            code="reason-too-long",
        )


def command_for(*role_sets: Collection[str]) -> str:
    """Return the key of `WHO_MAY` for writing an operator that has, or will have, these roles."""
    return "write-approver" if any("approver" in roles for roles in role_sets) else "write-operator"


# ---- commands ---------------------------------------------------------------------------------


def register(kind: Literal["person", "machine"], roles: Collection[str]) -> tuple[Fact, ...]:
    """Register an operator. Who may is `command_for(roles)`.

    Raises:
        InvalidError: roles.
        RefusedError: separation-of-duties.
    """
    return (OperatorRegistered(kind=kind, roles=_checked_roles(roles)),)


def change_roles(
    operator: Operator,
    roles: Collection[str],
    actor: Actor,
    at: datetime,
    *,
    others: Collection[str],
) -> tuple[Fact, ...]:
    """Replace an operator's roles; nothing happens if they are the same.

    `others`: the roles of `admin` and `approver` that some other enabled operator holds. Who may
    is `command_for(operator.roles, roles)`; beyond that, who is only entitled to the approver
    side cannot give or take `admin`. Live credentials are revoked if either side is touched.

    Raises:
        InvalidError: roles.
        RefusedError: separation-of-duties, operator-disabled, last-holder.
        ForbiddenError: forbidden.
    """
    wanted = _checked_roles(roles)
    _require_enabled(operator)
    if frozenset(wanted) == operator.roles:
        return ()
    touched = (operator.roles ^ frozenset(wanted)) & _SIDES
    if touched == _SIDES and actor.kind == "operator":
        raise ForbiddenError(
            "one person cannot move an operator between admin and approver: let an approver "
            "take or give approver and an admin take or give admin, in two steps",
            roles=["admin", "approver"],
        )
    _require_another_holder(operator.roles - frozenset(wanted), others)
    dead = _revoked_credentials(operator, at) if touched else ()
    return (OperatorRolesChanged(roles=wanted), *dead)


def disable(operator: Operator, at: datetime, *, others: Collection[str]) -> tuple[Fact, ...]:
    """Disable an operator for good, with its credentials; nothing happens the second time.

    `others`: the roles of `admin` and `approver` that some other enabled operator holds.

    Raises:
        RefusedError: last-holder.
    """
    if not operator.enabled:
        return ()
    _require_another_holder(operator.roles, others)
    return (OperatorDisabled(), *_revoked_credentials(operator, at))


def issue_credential(
    operator: Operator, bearer: Bearer, ttl: timedelta, at: datetime
) -> tuple[Fact, ...]:
    """Record a credential just minted, good for `ttl` (up to 366 days).

    Raises:
        InvalidError: credential-ttl.
        RefusedError: operator-disabled.
    """
    _require_enabled(operator)
    if not timedelta(0) < ttl <= MAX_CREDENTIAL_LIFE:
        raise InvalidError(
            "a credential lives longer than 0 seconds and at most 366 days", code="credential-ttl"
        )
    return (
        CredentialIssued(accessor=bearer.accessor, token_sha256=bearer.digest, expires_at=at + ttl),
    )


def revoke_credential(operator: Operator, accessor: str) -> tuple[Fact, ...]:
    """Revoke one credential; nothing happens the second time.

    Raises:
        NotFoundError: the operator never had it.
    """
    credential = operator.credentials.get(accessor)
    if credential is None:
        raise NotFoundError("the operator has no such credential; list its credentials first")
    return () if credential.revoked_at else (CredentialRevoked(accessor=accessor),)


def _revoked_credentials(operator: Operator, at: datetime) -> tuple[Fact, ...]:
    return tuple(
        CredentialRevoked(accessor=accessor)
        for accessor, credential in operator.credentials.items()
        if credential.live(at)
    )


def _require_enabled(operator: Operator) -> None:
    if not operator.enabled:
        raise RefusedError(
            "the operator is disabled for good; register a new one", code="operator-disabled"
        )


def _require_another_holder(lost: Collection[str], others: Collection[str]) -> None:
    last = _SIDES & frozenset(lost) - frozenset(others)
    if last:
        raise RefusedError(
            f"this is the last enabled {' and '.join(sorted(last))}; register another first",
            code="last-holder",
            roles=sorted(last),
        )


def _checked_roles(roles: Collection[str]) -> tuple[Role, ...]:
    if not roles or not _ROLES.issuperset(roles):
        raise InvalidError(f"roles are one or more of {', '.join(sorted(_ROLES))}", code="roles")
    if _SIDES.issubset(roles):
        raise RefusedError(
            "nobody holds both admin and approver; register two people",
            code="separation-of-duties",
        )
    return tuple(cast("Role", one) for one in sorted(set(roles)))
