"""Scopes: the vectors, hostile input, the canonical form, and what counts as narrower."""

import copy
import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.canonical import canonical_json
from ledger.scope import (
    SENSITIVE,
    Filter,
    Resource,
    Scope,
    ScopeError,
    narrower,
    parse_scope,
    scope_from_stored,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "scope.json"
CASES: list[dict[str, Any]] = json.loads(VECTORS.read_text())["cases"]
MINIMAL = {"resources": ["tasks"], "max_rows_per_query": 100}


def as_vector(scope: Scope) -> dict[str, Any]:
    parsed: dict[str, Any] = {
        "resources": list(scope.resources),
        "excluded_resources": list(scope.excluded_resources),
        "max_rows_per_query": scope.max_rows_per_query,
    }
    if scope.filters is not None:
        parsed["filters"] = {
            name: {"include_personal": chosen.include_personal}
            | (
                {}
                if chosen.include_teams is None
                else {"include_teams": list(chosen.include_teams)}
            )
            for name, chosen in scope.filters.items()
        }
    return parsed


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_vectors(case: dict[str, Any]) -> None:
    before = copy.deepcopy(case["input"])
    if case["accept"]:
        scope = parse_scope(case["input"])
        assert as_vector(scope) == case["parsed"]
        assert type(scope.max_rows_per_query) is int
    else:
        with pytest.raises(ScopeError) as caught:
            parse_scope(case["input"])
        issues = caught.value.issues
        assert [issue.path for issue in issues] == [issue["path"] for issue in case["issues"]]
        for issue, expected in zip(issues, case["issues"], strict=True):
            assert expected["message"] in (None, issue.message)
    assert case["input"] == before


def issues_of(value: object) -> list[tuple[str, str]]:
    with pytest.raises(ScopeError) as caught:
        parse_scope(value)
    return [(issue.path, issue.message) for issue in caught.value.issues]


def test_all_issues_in_order_and_the_exact_text() -> None:
    with pytest.raises(ScopeError) as caught:
        parse_scope(
            {
                "zz": 1,
                "max_rows_per_query": 0.5,
                "filters": {"notes": {"include_team": []}, "memory": {}},
                "excluded_resources": ["tasks", "tasks"],
                "resources": ["tasks", "memory", "tasks"],
                "exclude": 2,
            }
        )
    assert str(caught.value) == (
        "Invalid federation scope:\n"
        "  - [resources] resources must not contain duplicate values\n"
        "  - [excluded_resources] excluded_resources must not contain duplicate values\n"
        "  - [filters.notes] Unrecognized key(s) in object: 'include_team'\n"
        "  - [max_rows_per_query] max_rows_per_query must be an integer\n"
        "  - [max_rows_per_query] max_rows_per_query must be at least 1\n"
        "  - [root] Unrecognized key(s) in object: 'zz', 'exclude'\n"
        '  - [excluded_resources] Resource "tasks" appears in both resources and'
        " excluded_resources\n"
        '  - [filters.notes] filters key "notes" references a resource not present in resources'
    )


@pytest.mark.parametrize(
    "broken",
    [
        {"resources": ["tasks", "bogus"]},
        {"max_rows_per_query": "1"},
        {"max_rows_per_query": float("nan")},
        {"filters": {"notes": {"include_personal": 1}}},
        {"filters": {"notes": {}, "bogus": {}}},
        {"filters": {"notes": {"include_teams": [1]}}},
    ],
    ids=repr,
)
def test_a_failure_of_type_or_enum_suppresses_the_cross_field_checks(broken: Any) -> None:
    value = {
        "resources": ["tasks"],
        "excluded_resources": ["tasks"],
        "filters": {"notes": {}},
        "max_rows_per_query": 1,
    }
    assert len(issues_of(value)) == 2
    (only,) = issues_of(value | broken)
    assert only[0] not in ("excluded_resources", "filters.notes")


@pytest.mark.parametrize(
    "broken", [{"max_rows_per_query": 1.5}, {"resources": ["tasks"] * 2}, {"more": 1}], ids=repr
)
def test_other_failures_do_not(broken: Any) -> None:
    value = {"resources": ["tasks"], "excluded_resources": ["tasks"], "max_rows_per_query": 1}
    found = issues_of(value | broken)
    assert len(found) == 2
    assert found[1][0] == "excluded_resources"


def test_an_empty_list_still_meets_the_cross_field_checks() -> None:
    assert [
        path for path, _ in issues_of(MINIMAL | {"resources": [], "filters": {"tasks": {}}})
    ] == [
        "resources",
        "filters.tasks",
    ]


@pytest.mark.parametrize(
    "number", [float("inf"), 1e300, 10**5000], ids=["infinity", "float", "int"]
)
def test_numbers_without_bound(number: float) -> None:
    found = issues_of(MINIMAL | {"max_rows_per_query": number})
    assert found[-1][1] == "max_rows_per_query must be at most 10000"


@pytest.mark.parametrize("key", ["a\n  - [root] forged", "\x1b[2J", "\ud800", "k" * 5000, "\u202e"])
def test_a_key_can_neither_forge_a_line_nor_flood(key: str) -> None:
    for value in (MINIMAL | {key: 1}, MINIMAL | {"filters": {key: {}}}):
        with pytest.raises(ScopeError) as caught:
            parse_scope(value)
        text = str(caught.value)
        assert len(text.splitlines()) == 2
        assert len(text) < 600
        assert all(line.isprintable() for line in text.splitlines())
        text.encode()


class HostileDict(dict[str, Any]):
    def _fails(self, *args: Any) -> Any:
        raise RuntimeError(args)

    __iter__ = __len__ = __contains__ = __getitem__ = _fails
    get = pop = keys = items = values = copy = _fails


class HostileKey:
    def __init__(self, *, quiet: bool = False) -> None:
        self.hash = hash("max_rows_per_query" if quiet else "resources")

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __repr__(self) -> str:
        raise RuntimeError("repr")


class HostileText(str):
    __slots__ = ()

    def __hash__(self) -> int:
        raise RuntimeError("hash")


def recursive() -> dict[str, Any]:
    value: dict[str, Any] = {"resources": ["tasks"], "max_rows_per_query": 1}
    value["filters"] = value
    value["self"] = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        HostileDict(MINIMAL),
        {HostileKey(): 1},
        {HostileKey(): 1, HostileKey(quiet=True): 2},
        MINIMAL | {"filters": {HostileKey(): {HostileKey(): 1}}},
        MINIMAL
        | {"resources": [HostileKey(), HostileDict(), HostileText.__new__(HostileText, "a")]},
        MINIMAL | {"max_rows_per_query": HostileKey()},
        MINIMAL | {"resources": [["tasks"] * 3]},
        MINIMAL | {"filters": {"tasks": {"include_teams": ["\ud800", "a\0"]}}},
        recursive(),
        object(),
        b"{}",
        float("nan"),
    ],
    ids=range(12),
)
def test_hostile_values_give_a_scope_error_and_nothing_else(value: object) -> None:
    assert issues_of(value)


names = st.sampled_from([*Resource, "bogus", "filters", "include_teams", ""]).map(str)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | names | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=10,
)
shaped_junk = st.fixed_dictionaries(
    {},
    optional={
        "resources": junk | st.lists(names, max_size=6),
        "excluded_resources": junk | st.lists(names, max_size=6),
        "filters": junk
        | st.dictionaries(
            names,
            junk
            | st.fixed_dictionaries({}, optional={"include_teams": junk, "include_personal": junk}),
            max_size=4,
        ),
        "max_rows_per_query": junk,
        "extra": junk,
    },
)


@given(junk | shaped_junk)
def test_never_another_exception(value: object) -> None:
    try:
        scope = parse_scope(value)
    except ScopeError as error:
        lines, issues = len(str(error).splitlines()), len(error.issues)
    else:
        scope.digest()
        return
    assert lines == issues + 1 > 1


teams = st.lists(st.sampled_from(["t1", "t2", "t3"]), max_size=3)


@st.composite
def scope_values(draw: st.DrawFn) -> dict[str, Any]:
    everything = draw(st.permutations([name.value for name in Resource]))
    cut = draw(st.integers(1, len(everything)))
    resources = everything[:cut]
    value: dict[str, Any] = {
        "resources": resources,
        "max_rows_per_query": draw(st.integers(1, 3) | st.integers(1, 10_000)),
    }
    if draw(st.booleans()):
        rest = everything[cut:]
        value["excluded_resources"] = rest[: draw(st.integers(0, len(rest)))]
    if draw(st.booleans()):
        value["filters"] = draw(
            st.dictionaries(
                st.sampled_from(resources),
                st.fixed_dictionaries(
                    {}, optional={"include_teams": teams, "include_personal": st.booleans()}
                ),
            )
        )
    return value


scopes = scope_values().map(parse_scope)


@given(scope_values())
def test_canonical_form_is_idempotent_and_stored_forms_read_back(value: dict[str, Any]) -> None:
    scope = parse_scope(value)
    canonical = scope.canonical()
    assert parse_scope(canonical).canonical() == canonical
    stored = scope_from_stored(json.loads(canonical_json(canonical)))
    assert stored.canonical() == canonical
    assert stored.digest() == scope.digest() == parse_scope(canonical).digest()
    assert narrower(stored, scope) == (True, False, ())


def test_canonical_form_and_digest_are_golden() -> None:
    scope = parse_scope(
        {
            "resources": ["tasks", "memory"],
            "excluded_resources": ["notes", "api_keys"],
            "filters": {"tasks": {"include_teams": ["b", "a"]}, "memory": {}},
            "max_rows_per_query": 5.0,
        }
    )
    assert canonical_json(scope.canonical()) == (
        b'{"excluded_resources":["api_keys","notes"],"filters":{"memory":{"include_personal":true,'
        b'"include_teams":[]},"tasks":{"include_personal":true,"include_teams":["a","b"]}},'
        b'"max_rows_per_query":5,"resources":["memory","tasks"]}'
    )
    assert scope.digest() == "1005c000baa343b3c238570721429f83bf9cc853ac31254af665352201a5594d"
    assert parse_scope(MINIMAL).canonical() == {
        "resources": ["tasks"],
        "excluded_resources": [],
        "filters": {},
        "max_rows_per_query": 100,
    }


def test_a_scope_cannot_be_changed() -> None:
    given_value = {"resources": ["tasks"], "filters": {"tasks": {}}, "max_rows_per_query": 1}
    scope = parse_scope(given_value)
    given_value["filters"]["tasks"]["include_personal"] = False  # type: ignore[index]
    assert scope.filters == {"tasks": Filter()}
    with pytest.raises(TypeError):
        scope.filters["tasks"] = Filter()  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        scope.max_rows_per_query = 2  # type: ignore[misc]
    assert copy.deepcopy(scope) == scope


def test_absent_filters_mean_personal_data_only() -> None:
    scope = parse_scope(MINIMAL | {"resources": ["tasks", "notes"], "filters": {"notes": {}}})
    assert scope.filter_for("tasks") == scope.filter_for("notes") == Filter(None, True)
    assert parse_scope(MINIMAL).filters is None


def test_the_door_logs_sensitive_resources(caplog: pytest.LogCaptureFixture) -> None:
    value = {"resources": ["tasks", "credentials", "api_keys"], "max_rows_per_query": 1}
    scope = parse_scope(value)
    assert scope.sensitive == ("credentials", "api_keys")
    line = (
        '[FederationScope] WARNING: scope grants sensitive resource "%s". Per PRD §8.4'
        " this requires explicit admin approval and is logged."
    )
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, line % name) for name in ("credentials", "api_keys")
    ]
    caplog.clear()
    scope_from_stored(scope.canonical())
    issues_of(value | {"max_rows_per_query": 0})
    parse_scope(MINIMAL | {"excluded_resources": ["credentials"]})
    assert not caplog.records


def test_the_resources_and_their_order() -> None:
    assert list(Resource) == ["tasks", "notes", "memory", "credentials", "api_keys"]
    assert {"credentials", "api_keys"} == SENSITIVE


FULL = {
    "resources": ["tasks", "notes"],
    "excluded_resources": ["memory"],
    "filters": {"tasks": {"include_teams": ["t1", "t2"], "include_personal": False}},
    "max_rows_per_query": 100,
}


@pytest.mark.parametrize(
    ("change", "ok", "changed", "widened"),
    [
        ({}, True, False, ()),
        ({"max_rows_per_query": 99}, True, True, ()),
        ({"max_rows_per_query": 101}, False, True, ("max_rows_per_query",)),
        ({"resources": ["tasks"]}, True, True, ()),
        ({"resources": ["tasks", "api_keys"]}, False, True, ("resources.api_keys",)),
        ({"excluded_resources": []}, True, False, ()),
        ({"excluded_resources": ["memory", "api_keys"]}, True, False, ()),
        (
            {"filters": {}},
            False,
            True,
            ("filters.tasks.include_personal",),
        ),
        (
            {"filters": {"tasks": {"include_teams": ["t1"], "include_personal": False}}},
            True,
            True,
            (),
        ),
        (
            {"filters": {"tasks": {"include_teams": ["t3"]}, "notes": {"include_teams": ["t1"]}}},
            False,
            True,
            (
                "filters.tasks.include_teams",
                "filters.tasks.include_personal",
                "filters.notes.include_teams",
            ),
        ),
        (
            {"filters": FULL["filters"] | {"notes": {"include_personal": False}}},  # type: ignore[operator]
            True,
            True,
            (),
        ),
        (
            {"filters": FULL["filters"] | {"notes": {"include_teams": []}}},  # type: ignore[operator]
            True,
            False,
            (),
        ),
    ],
    ids=repr,
)
def test_narrower(change: Any, ok: bool, changed: bool, widened: tuple[str, ...]) -> None:
    assert narrower(parse_scope(FULL | change), parse_scope(FULL)) == (ok, changed, widened)


def allows(scope: Scope, resource: str, team: str | None) -> bool:
    """Whether one row of data (a team's, or a personal one) may be read, the slow way."""
    if resource not in scope.resources or resource in scope.excluded_resources:
        return False
    chosen = (scope.filters or {}).get(resource) or Filter(None, True)
    return chosen.include_personal if team is None else team in (chosen.include_teams or ())


@given(scopes, scopes)
def test_narrower_never_allows_a_row_more(new: Scope, old: Scope) -> None:
    ok, changed, widened = narrower(new, old)
    rows = [(name, team) for name in Resource for team in (None, "t1", "t2", "t3")]
    more = [row for row in rows if allows(new, *row) and not allows(old, *row)]
    assert ok == (not widened)
    if ok:
        assert not more
        assert new.max_rows_per_query <= old.max_rows_per_query
    if more or new.max_rows_per_query > old.max_rows_per_query:
        assert not ok
        assert changed


@given(scopes, scopes, scopes)
def test_narrower_is_a_partial_order(a: Scope, b: Scope, c: Scope) -> None:
    assert narrower(a, a) == (True, False, ())
    if narrower(a, b).ok and narrower(b, a).ok:
        assert not narrower(a, b).changed
    if not narrower(a, b).changed:
        assert narrower(a, b).ok
        assert narrower(b, a).ok
    if narrower(a, b).ok and narrower(b, c).ok:
        assert narrower(a, c).ok


@given(scopes)
def test_dropping_anything_is_narrower(old: Scope) -> None:
    for name in old.resources:
        rest = tuple(other for other in old.resources if other != name)
        assert narrower(dataclasses.replace(old, resources=rest), old) == (True, True, ())
        excluded = (*old.excluded_resources, name)
        assert narrower(dataclasses.replace(old, excluded_resources=excluded), old)[:2] == (
            True,
            True,
        )
