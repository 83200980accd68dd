"""Whose enrollment token is presented, and how everybody else is turned away.

It redeems nothing. A stranger gets one and the same refusal; the ledger keeps the cause.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NoReturn

from psycopg import Connection

from ca.authorization import read_request
from ca.csr import Csr
from ca.rejections import REPLAYED, Attempt, Rejections
from ledger import bearer, enrollment
from ledger.errors import InvalidError, LedgerError
from ledger.events import Actor
from ledger.grant_state import Grant, TokenState
from ledger.grant_status import token_state
from ledger.reading import Call
from ledger.store import Store
from projections import tokens


class Recognition:
    """Finds the grant of a token, and notes whatever fails on the way."""

    def __init__(
        self,
        ledger: Store,
        read: Callable[[], AbstractContextManager[Connection[Any]]],
        rejections: Rejections,
    ) -> None:
        self._ledger = ledger
        self._read = read
        self._rejections = rejections

    def token(self, call: Call, text: str) -> tuple[enrollment.Presented, Grant]:
        """The token and its grant: found by the table, read from the stream, secret compared.

        Raises:
            UnauthorizedError: it is none of ours, or its secret is wrong.
        """
        unknown = enrollment.token_refused("unknown-token")
        parsed = bearer.parse(text)
        if parsed is None or parsed.kind is not bearer.BearerKind.ENROLLMENT:
            self.refuse(_of_stranger(call), Attempt(), unknown)
        with self._read() as connection:
            row = tokens.by_accessor(connection, parsed.accessor)
        grant = self._ledger.load(Grant, row.grant_id) if row else None
        token = grant.tokens.get(parsed.accessor) if grant else None
        if grant is None or token is None:
            self.refuse(_of_stranger(call), Attempt(), unknown)
        if not bearer.same_digest(parsed.digest, token.token_sha256):
            attempt = Attempt(accessor=parsed.accessor, grant_id=grant.id)
            self.refuse(_of_stranger(call), attempt, enrollment.token_refused("wrong-secret"))
        return enrollment.Presented(parsed.accessor, parsed.digest), grant

    def request(self, call: Call, attempt: Attempt, grant: Grant, csr: bytes | str) -> Csr:
        """The CSR that came with a recognised token.

        Raises:
            InvalidError: `csr-…`, while the token opens anything.
            UnauthorizedError: the one refusal, once it opens nothing more.
        """
        try:
            return read_request(csr)
        except InvalidError as error:
            token = grant.tokens[attempt.accessor or ""]
            state = token_state(token, grant, self._ledger.clock())
            if state is TokenState.ISSUED:
                self.refuse(call, attempt, error)
            # After a redemption it is another request, readable or not (6.).
            cause = REPLAYED if state is TokenState.REDEEMED else f"token-{state}"
            self.refuse(call, attempt, enrollment.token_refused(cause))

    def refuse(self, call: Call, attempt: Attempt, error: LedgerError) -> NoReturn:
        """Note the attempt with the error's cause, then raise the error."""
        cause = str(error.facts.get("cause", error.code))
        self._rejections.note(call, replace(attempt, cause=cause))
        raise error


def _of_stranger(call: Call) -> Call:
    stranger = Actor(kind="peer", id="unknown", auth="none", source=call.actor.source)
    return replace(call, actor=stranger)
