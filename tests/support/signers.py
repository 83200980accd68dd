"""Authorities that do what real ones should not: sign something else, lose the answer, refuse."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ca.authority import Authority, AuthorityUnavailable, Kind, RevocationAnswer
from ca.profile import SigningOrder

Sign = Callable[[Authority, SigningOrder], bytes]


def honest(authority: Authority, order: SigningOrder) -> bytes:
    """What the authority itself would answer."""
    return authority.sign(order, timeout=10.0)


@dataclass
class Fake:
    """The authority `real` to the outside; `answer` is what it does when asked to sign."""

    real: Authority
    answer: Sign = honest
    asked: list[SigningOrder] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.real.id

    @property
    def kind(self) -> Kind:
        return self.real.kind

    @property
    def not_after(self) -> datetime:
        return self.real.not_after

    @property
    def extra_extensions(self) -> Mapping[str, bytes | None]:
        return self.real.extra_extensions

    def chain(self) -> tuple[bytes, ...]:
        return self.real.chain()

    def close(self) -> None:
        self.real.close()

    def sign(self, order: SigningOrder, *, timeout: float) -> bytes:
        self.asked.append(order)
        return self.answer(self.real, order)

    def revoke(self, serial: str, reason: str, *, timeout: float) -> RevocationAnswer:
        return self.real.revoke(serial, reason, timeout=timeout)


def losing_the_answer(times: int) -> Sign:
    """Sign, but lose the answer the first so many times."""
    left = iter(range(times))

    def sign(authority: Authority, order: SigningOrder) -> bytes:
        signed = honest(authority, order)
        if next(left, None) is not None:
            raise AuthorityUnavailable("the connection was lost")
        return signed

    return sign
