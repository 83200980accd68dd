"""Why the ledger says no. Each error carries a code for programs and a text for people.

The api room alone turns these classes into HTTP statuses and exit codes. A text is safe to show to
the caller: it never holds a secret and never repeats hostile input.
"""


class LedgerError(Exception):
    """Base of every refusal. `code` is the last part of the problem type; `facts` go with it."""

    code = "error"

    def __init__(self, detail: str, *, code: str | None = None, **facts: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.facts = facts


class InvalidError(LedgerError):
    """What was asked is not well formed (422)."""

    code = "invalid"


class RefusedError(LedgerError):
    """The rules forbid the command in the present state (409)."""

    code = "refused"


class GoneError(LedgerError):
    """The thing asked for was withdrawn for good (410)."""

    code = "gone"


class NotFoundError(LedgerError):
    """No stream or row has this id (404)."""

    code = "not-found"


class StaleError(LedgerError):
    """The caller's If-Match version is no longer the stream's (412)."""

    code = "stale"


class UnauthorizedError(LedgerError):
    """No valid credential (401); the text is one and the same for every cause."""

    code = "unauthorized"


class ForbiddenError(LedgerError):
    """A valid credential whose roles do not allow this (403)."""

    code = "forbidden"


class MisIssuedError(LedgerError):
    """The authority returned something other than what was authorized (502)."""

    code = "mis-issued"


class UnavailableError(LedgerError):
    """Not now (503). Codes: busy, clock-untrusted, commit-outcome-unknown, lost-history,
    storage-full, storage-unavailable, authority-unavailable."""

    code = "unavailable"
