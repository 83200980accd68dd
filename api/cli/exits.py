"""The exit codes of `fedledger` and the errors that carry one. It prints nothing and does no I/O.

Codes (SPEC of the command line): 0 ok · 1 refused · 2 usage or invalid · 3 not found ·
4 authentication · 5 stale · 6 integrity violation · 7 unreachable or a server's error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from ledger.errors import LedgerError

if TYPE_CHECKING:
    import psycopg


class Exit(IntEnum):
    """What a program may conclude from the end of a command."""

    OK = 0
    REFUSED = 1
    INVALID = 2
    NOT_FOUND = 3
    AUTH = 4
    STALE = 5
    INTEGRITY = 6
    UNREACHABLE = 7


INTERRUPTED: Final = 130  # 128 + SIGINT, as every shell expects it
BROKEN_PIPE: Final = 141  # 128 + SIGPIPE

_BY_STATUS: Final = {
    401: Exit.AUTH,
    403: Exit.AUTH,
    404: Exit.NOT_FOUND,
    409: Exit.REFUSED,
    410: Exit.REFUSED,
    412: Exit.STALE,
    429: Exit.UNREACHABLE,  # not now: the same call may succeed later, unlike every other 4xx
}
# A server that says its record was altered is reachable and sound in every other way.
_INTEGRITY_CODES: Final = frozenset({"lost-history", "integrity", "record-damaged"})
_INSUFFICIENT_PRIVILEGE: Final = "42501"  # PostgreSQL documentation, appendix A
_CLIENT_ERRORS: Final = range(400, 500)


def exit_for(status: int, code: str = "") -> Exit:
    """Return the exit code for an HTTP error status and the last part of its problem type."""
    if code in _INTEGRITY_CODES:
        return Exit.INTEGRITY
    fallback = Exit.INVALID if status in _CLIENT_ERRORS else Exit.UNREACHABLE
    return _BY_STATUS.get(status, fallback)


@dataclass(eq=False)
class CommandError(Exception):
    """A command ends here: what to tell the person, and the code to tell the program.

    `title` is a short sentence, `detail` the particulars, `hint` the next step, `request_id` what
    the server's log lines of this call carry. `document` is the problem as the server sent it.
    """

    exit: Exit
    title: str
    detail: str = ""
    hint: str = ""
    request_id: str = ""
    document: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.title


# The detail of a refusal says what to do next; here stands what is different at a command line.
_HINTS_BY_CODE: Final = {
    "terms-changed": "Read the grant again (`fedledger grant show`) and approve its new digest.",
    "peer-has-live-grants": "Revoke its grants too: --grants revoke.",
    "commit-outcome-unknown": "Repeat it with the same --idempotency-key to learn the truth.",
}
_HINTS: Final = {
    Exit.AUTH: "Check which token is used (--token-file, FEDLEDGER_TOKEN_FILE or the profile) "
    "and what its roles allow.",
    Exit.STALE: "Somebody changed it in the meantime: read it again, then decide again.",
    Exit.NOT_FOUND: "Check the id; `list` shows what there is.",
    Exit.INTEGRITY: "Stop writing, keep everything as it is, and run `fedledger doctor --all`.",
    Exit.UNREACHABLE: "Try again; on the server, `fedledger doctor` tells what is wrong.",
}


def from_refusal(error: LedgerError) -> CommandError:
    """Return the error for a refusal met on this machine, without a server in between."""
    from api.problems import document

    status, problem = document(error, "")
    return from_problem(status, problem)


def from_database(error: "psycopg.Error") -> CommandError:
    """Return the error for what the database said to a command on this machine."""
    if error.sqlstate == _INSUFFICIENT_PRIVILEGE:
        return CommandError(
            Exit.REFUSED,
            "The database does not let this role do that",
            str(error).strip(),
            "FEDLEDGER_OWNER_DSN names the role that owns the tables and may make schemas, "
            "FEDLEDGER_DSN the one that serves.",
        )
    return CommandError(
        Exit.UNREACHABLE, "The database says no", str(error).strip(), "Run `fedledger doctor`."
    )


def from_problem(status: int, document: Mapping[str, Any], request_id: str = "") -> CommandError:
    """Return the error for an RFC 9457 problem document, or for whatever came instead of one."""
    code = str(document.get("code") or "")
    kind = exit_for(status, code)
    title = str(document.get("title") or f"The server answered {status}").rstrip(".")
    return CommandError(
        exit=kind,
        title=f"{title} ({f'{status} {code}'.rstrip()})",
        detail="\n".join(_details(document)),
        hint=_HINTS_BY_CODE.get(code) or _HINTS.get(kind, ""),
        request_id=str(document.get("request_id") or request_id),
        document=document,
    )


def _details(document: Mapping[str, Any]) -> list[str]:
    lines = [str(document["detail"])] if document.get("detail") else []
    errors = document.get("errors")
    for issue in errors if isinstance(errors, list) else []:
        if isinstance(issue, Mapping):
            # What is wrong with several members together has no one place.
            where = issue.get("pointer") or issue.get("parameter") or issue.get("header")
            detail = str(issue.get("detail", ""))
            lines.append(f"{where}: {detail}" if where else detail)
    return lines
