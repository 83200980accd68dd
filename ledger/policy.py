"""The few numbers an organisation may choose, and their defaults.

It does not apply them: approvals, validity and lifetimes are decided where they matter. A change
is one event that carries the whole policy, `four_eyes` included: nothing weakens silently.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final
from uuid import UUID

from msgspec.structs import asdict

from ledger.errors import InvalidError
from ledger.events import POLICY_ID, Event, Fact, PolicyChanged

LIMITS: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        "required_approvals": (0, 10),
        "approval_days": (1, 365),
        "max_grant_days": (1, 3650),
        "certificate_ttl": (600, 30 * 86400),  # seconds; a renewal needs room before the end
        "token_ttl": (60, 7 * 86400),  # seconds
    }
)
"""The least and the greatest value of each number."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy in force. `version` 0 stands for the defaults, before any change."""

    id: UUID = POLICY_ID
    version: int = 0
    four_eyes: bool = True
    required_approvals: int = 1  # 0 means 1 too: see `approvals`
    approval_days: int = 7
    max_grant_days: int = 365
    certificate_ttl: int = 86400  # seconds
    token_ttl: int = 86400  # seconds
    changed_at: datetime | None = None

    @property
    def approvals(self) -> int:
        """How many people must approve sensitive terms: at least one, whatever the policy says."""
        return max(1, self.required_approvals)

    @property
    def approval_life(self) -> timedelta:
        """How long an approval counts."""
        return timedelta(days=self.approval_days)

    @property
    def certificate_life(self) -> timedelta:
        """How long a certificate is valid at most."""
        return timedelta(seconds=self.certificate_ttl)

    @property
    def token_life(self) -> timedelta:
        """How long an enrollment token lives unless its issuer says otherwise."""
        return timedelta(seconds=self.token_ttl)


DEFAULT: Final = Policy()


def evolve(policy: Policy | None, event: Event) -> Policy:
    """Return the policy after one more event of its stream.

    Raises:
        ValueError: the stream holds a foreign fact.
    """
    fact = event.data
    if not isinstance(fact, PolicyChanged):
        raise ValueError(f"the policy's stream cannot hold {fact.TOPIC}")
    return Policy(
        id=event.originator_id,
        version=event.originator_version,
        changed_at=event.at,
        **asdict(fact),
    )


def change(policy: Policy, changes: Mapping[str, object]) -> tuple[Fact, ...]:
    """Change some fields and keep the others; nothing happens if all stay the same, unless no
    policy was ever recorded: a first one with the defaults keeps them whatever later releases say.

    Raises:
        InvalidError: policy-field, with `field`.
    """
    for name, value in changes.items():
        _check(name, value)
    wanted = replace(policy, **changes)  # type: ignore[arg-type]  # each just checked by name
    if wanted == policy and policy.version:
        return ()
    return (
        PolicyChanged(
            four_eyes=wanted.four_eyes,
            **{name: getattr(wanted, name) for name in LIMITS},
        ),
    )


def _check(name: str, value: object) -> None:
    if name == "four_eyes":
        if type(value) is not bool:
            raise InvalidError("four_eyes is true or false", code="policy-field", field=name)
        return
    if name not in LIMITS:
        raise InvalidError(
            f"the policy's fields are four_eyes, {', '.join(LIMITS)}", code="policy-field"
        )
    least, greatest = LIMITS[name]
    if type(value) is not int or not least <= value <= greatest:
        raise InvalidError(
            f"{name} is a whole number from {least} to {greatest}", code="policy-field", field=name
        )
