"""What every authority must do: one suite, which each adapter inherits.

    class TestMine(AuthorityContract):
        @pytest.fixture
        def authority(self) -> Authority: ...

`StepCaContract` is what follows from step-ca's protocol; it runs against our own small fake and
against the real server.
"""

import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from ca import step_ca
from ca.authority import Authority, AuthorityRefused, AuthorityUnavailable, RevocationAnswer
from ca.hierarchy import new_root
from ca.profile import SigningOrder, check_certificate, new_serial, tbs_sha256
from ca.step_ca import StepCaAuthority
from ca.step_ca_client import StepCaClient
from support.csrs import KINDS, ec_key, key, order, request

TIMEOUT = 10.0  # seconds


class AuthorityContract:
    """Inherit, provide the fixture `authority`, and add what is the adapter's own."""

    @pytest.fixture
    def authority(self) -> Authority:
        raise NotImplementedError

    def now(self) -> datetime:
        """The real time, for a real authority has its own clock; override where it has none."""
        return datetime.now(UTC)  # noqa: TID251

    def order(self, request_der: bytes, **changes: object) -> SigningOrder:
        """An order from now on, every time with a new serial."""
        made = order(request_der, self.now(), serial=new_serial(os.urandom))
        return replace(made, **changes)  # type: ignore[arg-type]

    def assert_as_ordered(self, authority: Authority, asked: SigningOrder) -> bytes:
        der = authority.sign(asked, timeout=TIMEOUT)
        extra = authority.extra_extensions
        assert check_certificate(der, asked, authority.chain(), allowed_extra_oids=extra) == ()
        return der

    def test_names_itself(self, authority: Authority) -> None:
        assert re.fullmatch(
            r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", authority.id
        )
        assert authority.kind in ("local", "step-ca")

    def test_chain_runs_from_the_issuing_certificate_to_a_self_signed_root(
        self, authority: Authority
    ) -> None:
        chain = [x509.load_der_x509_certificate(link) for link in authority.chain()]
        assert len(chain) >= 2
        for link, issuer in zip(chain, [*chain[1:], chain[-1]], strict=True):
            link.verify_directly_issued_by(issuer)
            assert link.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
            assert link.not_valid_after_utc <= issuer.not_valid_after_utc
        assert authority.not_after == chain[0].not_valid_after_utc

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("name", [None, "Example Peer-1"])
    def test_signs_exactly_what_is_ordered(
        self, authority: Authority, kind: str, name: str | None
    ) -> None:
        self.assert_as_ordered(authority, self.order(request(key(kind), name)))

    def test_ignores_requested_extensions(self, authority: Authority) -> None:
        wishes: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=True, path_length=None), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        ]
        self.assert_as_ordered(authority, self.order(request(ec_key(), extensions=wishes)))

    def test_the_same_order_again_gives_the_same_tbs_certificate(
        self, authority: Authority
    ) -> None:
        asked = self.order(request(ec_key()))
        first = self.assert_as_ordered(authority, asked)
        with ThreadPoolExecutor(4) as pool:
            again = pool.map(lambda _: authority.sign(asked, timeout=TIMEOUT), range(8))
        assert {tbs_sha256(der) for der in again} == {tbs_sha256(first)}

    def test_refuses_a_request_with_names(self, authority: Authority) -> None:
        """Whose names a certificate holds is the order's affair, whatever the request says."""
        for name in (x509.DNSName("a.example"), x509.UniformResourceIdentifier("urn:a:b")):
            names = x509.SubjectAlternativeName([name])
            asked = self.order(request(ec_key(), extensions=[(names, False)]))
            with pytest.raises(AuthorityRefused):
                authority.sign(asked, timeout=TIMEOUT)

    def test_refuses_an_unreadable_request(self, authority: Authority) -> None:
        asked = replace(self.order(request(ec_key())), csr_der=b"\x30\x00")
        with pytest.raises(AuthorityRefused) as caught:
            authority.sign(asked, timeout=TIMEOUT)
        assert 400 <= caught.value.status < 600
        assert caught.value.detail

    def test_answers_a_revocation_and_its_repetition(self, authority: Authority) -> None:
        asked = self.order(request(ec_key()))
        self.assert_as_ordered(authority, asked)
        first = authority.revoke(asked.serial, "superseded", timeout=TIMEOUT)
        again = authority.revoke(asked.serial, "superseded", timeout=TIMEOUT)
        if first is RevocationAnswer.UNSUPPORTED:
            assert again is RevocationAnswer.UNSUPPORTED
        else:
            assert first is RevocationAnswer.CONFIRMED
            assert again in (RevocationAnswer.CONFIRMED, RevocationAnswer.ALREADY_REVOKED)


class Server(Protocol):
    """A step-ca, or what speaks like one, and what can happen to it."""

    def issued(self) -> list[bytes]:
        """Every certificate it has signed, delivered or not, in DER."""

    def losing(self, answers: int) -> AbstractContextManager[object]:
        """It does what it is asked, but the next so many answers never arrive."""

    def slow(self) -> AbstractContextManager[object]:
        """It takes longer over each answer than anybody waits."""

    def down(self) -> AbstractContextManager[object]:
        """It is not there."""

    def restart(self) -> None:
        """It begins anew, and connections are lost."""


def _at(offset: float) -> Callable[[], float]:
    return lambda: time.time() + offset


WRONG_TOKENS: Mapping[str, Callable[[StepCaAuthority], StepCaAuthority]] = {
    "for another server": lambda authority: replace(
        authority, home=replace(authority.home, url="https://elsewhere.example")
    ),
    "of an unknown provisioner": lambda authority: replace(
        authority, home=replace(authority.home, provisioner="another")
    ),
    "signed by another key": lambda authority: replace(
        authority, home=replace(authority.home, key=ec_key(7))
    ),
    "that has ended": lambda authority: replace(authority, _now=_at(-600)),
    "that begins later": lambda authority: replace(authority, _now=_at(600)),
}


class StepCaContract(AuthorityContract):
    """Inherit, and provide `server` and an `authority` that asks it."""

    @pytest.fixture
    def server(self) -> Server:
        raise NotImplementedError

    def unwaiting(self, authority: Authority) -> StepCaAuthority:
        """The same, but it does not wait between its tries."""
        assert isinstance(authority, StepCaAuthority)
        return replace(authority, _pause=lambda seconds: None)

    def signed(self, server: Server, asked: SigningOrder) -> set[str]:
        """The different TBSCertificates of this serial, by digest."""
        certificates = [(der, x509.load_der_x509_certificate(der)) for der in server.issued()]
        return {
            tbs_sha256(der)
            for der, certificate in certificates
            if certificate.serial_number == int(asked.serial, 16)
        }

    def test_a_token_lets_one_request_through(self, authority: Authority, server: Server) -> None:
        constant = replace(self.unwaiting(authority), _randomness=bytes)
        asked = self.order(request(ec_key()))
        constant.sign(asked, timeout=TIMEOUT)
        with pytest.raises(AuthorityRefused) as caught:
            constant.sign(asked, timeout=TIMEOUT)
        assert caught.value.status == 401
        assert len(server.issued()) == 1

    @pytest.mark.parametrize("token", WRONG_TOKENS)
    def test_refuses_a_token(self, authority: Authority, server: Server, token: str) -> None:
        wrong = WRONG_TOKENS[token](self.unwaiting(authority))
        with pytest.raises(AuthorityRefused) as caught:
            wrong.sign(self.order(request(ec_key())), timeout=TIMEOUT)
        assert caught.value.status == 401
        assert "compare the clocks" in caught.value.detail
        assert ("its clock is" in caught.value.detail) == (wrong._now is not authority._now)  # type: ignore[attr-defined]
        with pytest.raises(AuthorityRefused):
            wrong.revoke("4" * 32, "superseded", timeout=TIMEOUT)
        assert server.issued() == []

    @pytest.mark.parametrize(
        "claim", ["mosaic_grant_id", "mosaic_subject_user_id", "mosaic_serial"]
    )
    def test_a_token_without_one_of_our_claims_makes_no_certificate(
        self, authority: Authority, server: Server, claim: str
    ) -> None:
        authority, asked = self.unwaiting(authority), self.order(request(ec_key()))
        claims = dict(step_ca._claims(asked))
        del claims[claim]
        body = {**step_ca._request(asked), "ott": authority._ott("sign", claims, "test")}
        answer = authority.client.call("POST", "/1.0/sign", body, timeout=TIMEOUT)
        assert answer.status in (400, 500)
        assert claim in answer.message
        assert server.issued() == []

    def test_an_answer_that_was_lost_comes_with_the_next_try(
        self, authority: Authority, server: Server
    ) -> None:
        authority, asked = self.unwaiting(authority), self.order(request(ec_key()))
        with server.losing(2):
            der = self.assert_as_ordered(authority, asked)
        assert self.signed(server, asked) == {tbs_sha256(der)}
        assert len(server.issued()) == 3

    def test_three_lost_answers_are_no_answer_and_asking_later_brings_the_certificate(
        self, authority: Authority, server: Server
    ) -> None:
        authority, asked = self.unwaiting(authority), self.order(request(ec_key()))
        with server.losing(3), pytest.raises(AuthorityUnavailable):
            authority.sign(asked, timeout=TIMEOUT)
        assert len(server.issued()) == 3
        der = self.assert_as_ordered(authority, asked)
        assert self.signed(server, asked) == {tbs_sha256(der)}

    def test_a_server_that_is_down_is_no_answer(self, authority: Authority, server: Server) -> None:
        authority, asked = self.unwaiting(authority), self.order(request(ec_key()))
        with server.down():
            with pytest.raises(AuthorityUnavailable):
                authority.sign(asked, timeout=TIMEOUT)
            with pytest.raises(AuthorityUnavailable):
                authority.revoke(asked.serial, "superseded", timeout=TIMEOUT)
        assert server.issued() == []
        self.assert_as_ordered(authority, asked)

    def test_a_slow_server_is_waited_for_no_longer_than_agreed(
        self, authority: Authority, server: Server
    ) -> None:
        authority, asked = self.unwaiting(authority), self.order(request(ec_key()))
        with server.slow():
            begun = time.monotonic()
            with pytest.raises(AuthorityUnavailable):
                authority.sign(asked, timeout=0.6)
            assert time.monotonic() - begun < 5.0  # a loaded machine; without a limit it is 60
        self.assert_as_ordered(authority, asked)

    def test_a_restart_in_between_costs_nothing(self, authority: Authority, server: Server) -> None:
        authority = self.unwaiting(authority)
        self.assert_as_ordered(authority, self.order(request(ec_key())))
        server.restart()  # the connection that is kept leads nowhere now
        self.assert_as_ordered(authority, self.order(request(ec_key())))

    def test_nobody_is_believed_but_the_pinned_root(
        self, authority: Authority, server: Server
    ) -> None:
        authority = self.unwaiting(authority)
        other = new_root("Test", 1, self.now(), os.urandom).certificate  # of any name
        deceived = replace(authority, client=StepCaClient(authority.client.url, other))
        with pytest.raises(AuthorityUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            deceived.sign(self.order(request(ec_key())), timeout=TIMEOUT)
        assert server.issued() == []
