"""The table of refusal codes is exactly what the rules raise."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger import errors
from ledger.refusals import REFUSALS

ROOM = Path(errors.__file__).parent
RULES = [
    "alarms",
    "authorities",
    "certificate_commands",
    "certificates",
    "commands",
    "enrollment",
    "grant_commands",
    "grant_status",
    "grants",
    "identity",
    "issuance",
    "operator_commands",
    "operators",
    "peer_commands",
    "peers",
    "policy",
    "application",
]
ERRORS = {
    name: cls.code
    for name, cls in vars(errors).items()
    if isinstance(cls, type) and issubclass(cls, errors.LedgerError)
}


def raised(module: str) -> Iterator[str]:
    """Codes given as literals, and the default codes of errors made without one."""
    tree = ast.parse((ROOM / f"{module}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            codes = [k.value for k in node.keywords if k.arg == "code"]
            yield from (str(c.value) for c in codes if isinstance(c, ast.Constant))
            if isinstance(node.func, ast.Name) and node.func.id in ERRORS and not codes:
                yield ERRORS[node.func.id]


def test_the_table_is_complete_and_holds_nothing_else() -> None:
    from ledger.grant_status import _TEXTS  # the codes of unusable_because

    found = {code for module in RULES for code in raised(module)} | set(_TEXTS)
    found.remove("stale")  # of every If-Match, with its own status 412
    # Raised by the store, by ca/issuance.py for a claim that another grant holds, and by
    # ca/publishing.py.
    elsewhere = {"claim-taken", "key-taken", "crl-by-authority"}
    assert found | elsewhere == set(REFUSALS)


@pytest.mark.parametrize("code", REFUSALS)
def test_codes_are_hyphened_words_and_explained(code: str) -> None:
    assert code == code.lower().strip("-")
    assert set(code) <= set("abcdefghijklmnopqrstuvwxyz-")
    assert REFUSALS[code].endswith(".")
