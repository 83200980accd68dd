"""One question for all credentials presented at once; no answer older than its request."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from api.credentials import Credentials
from ledger.errors import UnavailableError
from projections.operators import CredentialOfOperator
from support.waiting import wait_until

NOW = datetime(2026, 11, 27, tzinfo=UTC)
KNOWN = "a" * 16
UNKNOWN = "b" * 16


def credential(accessor: str) -> CredentialOfOperator:
    return CredentialOfOperator(
        accessor, UUID(int=1), "0" * 64, NOW, NOW, None, "person", ["admin"], True
    )


@dataclass
class Tables:
    """Answers when it is let go; `asked`: every question, in order."""

    asked: list[set[str]] = field(default_factory=list)
    failing: bool = False
    let_go: threading.Event = field(default_factory=threading.Event)

    def __call__(self, accessors: Sequence[str]) -> Mapping[str, CredentialOfOperator]:
        self.asked.append(set(accessors))
        self.let_go.wait(30)
        if self.failing:
            raise ZeroDivisionError
        return {one: credential(one) for one in accessors if one == KNOWN}


def found_by_all(credentials: Credentials, tables: Tables, accessors: Sequence[str]) -> list[Any]:
    """Ask for the first alone, for the others while that question is being answered.

    Returns what each found, or the class of what was raised.
    """

    def find(accessor: str) -> object:
        try:
            return credentials.find(accessor)
        except (UnavailableError, ZeroDivisionError) as error:
            return type(error)

    with ThreadPoolExecutor(len(accessors)) as threads:
        asking = [threads.submit(find, accessors[0])]
        wait_until(lambda: tables.asked, "the first asks")
        asking += [threads.submit(find, one) for one in accessors[1:]]
        wait_until(lambda: len(credentials._waiting) == len(accessors) - 1, "the others wait")
        tables.let_go.set()
        return [one.result() for one in asking]


def test_all_who_wait_are_answered_by_one_question_asked_after_they_came() -> None:
    credentials = Credentials(tables := Tables())
    found = found_by_all(credentials, tables, [KNOWN, KNOWN, UNKNOWN, KNOWN])
    assert found == [credential(KNOWN), credential(KNOWN), None, credential(KNOWN)]
    assert tables.asked == [{KNOWN}, {KNOWN, UNKNOWN}]


def test_a_failure_is_everybodys_and_the_next_question_is_a_new_one() -> None:
    credentials = Credentials(tables := Tables(failing=True))
    found = found_by_all(credentials, tables, [KNOWN, KNOWN, UNKNOWN])
    assert found[0] is ZeroDivisionError
    assert sorted(one.__name__ for one in found[1:]) == ["UnavailableError", "ZeroDivisionError"]
    tables.failing = False
    assert credentials.find(KNOWN) == credential(KNOWN)
