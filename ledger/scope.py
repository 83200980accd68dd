"""What a grant allows: reading a scope from hostile input, its canonical form, comparing two.

It does not decide about accesses or approvals, and knows no database, clock, web or certificate.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self

from ledger.canonical import canonical_json

_logger: Final = logging.getLogger(__name__)


class Resource(StrEnum):
    """What can be shared, in the order shown to people. A new resource is added here only."""

    TASKS = "tasks"
    NOTES = "notes"
    MEMORY = "memory"
    CREDENTIALS = "credentials"
    API_KEYS = "api_keys"


SENSITIVE: Final = frozenset({Resource.CREDENTIALS, Resource.API_KEYS})
"""Resources that need a second person's approval."""

MAX_ROWS: Final = 10_000
"""The largest `max_rows_per_query`, in rows."""

_BY_NAME: Final[Mapping[str, Resource]] = {resource.value: resource for resource in Resource}
_LONGEST_KEY_SHOWN: Final = 64


class ScopeIssue(NamedTuple):
    """One thing wrong with a scope. `path` is dotted, or `root` for the scope itself."""

    path: str
    message: str


class ScopeError(ValueError):
    """The value is no scope. Its text lists every issue, one per line."""

    def __init__(self, issues: Iterable[ScopeIssue]) -> None:
        self.issues: tuple[ScopeIssue, ...] = tuple(issues)
        lines = [f"  - [{path}] {message}" for path, message in self.issues]
        super().__init__("\n".join(["Invalid federation scope:", *lines]))


@dataclass(frozen=True, slots=True)
class Filter:
    """Whose data of one resource: these teams' (None: absent, so no team's) and one's own."""

    include_teams: tuple[str, ...] | None = None
    include_personal: bool = True


_PERSONAL_ONLY: Final = Filter()


@dataclass(frozen=True)
class Scope:
    """What a grant allows. Made by `parse_scope` or `scope_from_stored`, never checked again.

    `filters` is None where the input had none; `filter_for` gives what then holds.
    """

    resources: tuple[Resource, ...]
    excluded_resources: tuple[Resource, ...]
    filters: Mapping[str, Filter] | None
    max_rows_per_query: int

    @property
    def sensitive(self) -> tuple[str, ...]:
        """The sensitive resources among `resources`, in their order."""
        return tuple(name.value for name in self.resources if name in SENSITIVE)

    def filter_for(self, resource: str) -> Filter:
        """Return the filter in force for `resource`: personal data only where none was given."""
        return (self.filters or {}).get(resource, _PERSONAL_ONLY)

    def canonical(self) -> dict[str, Any]:
        """Return the canonical form as plain JSON values: defaults filled in, lists sorted."""
        return {
            "resources": sorted(name.value for name in self.resources),
            "excluded_resources": sorted(name.value for name in self.excluded_resources),
            "filters": {
                str(name): {
                    "include_teams": sorted(chosen.include_teams or ()),
                    "include_personal": chosen.include_personal,
                }
                for name, chosen in (self.filters or {}).items()
            },
            "max_rows_per_query": self.max_rows_per_query,
        }

    @cached_property
    def text(self) -> str:
        """The canonical form as RFC 8785 JSON, worked out once: every event of a grant shows it."""
        return canonical_json(self.canonical()).decode()

    def digest(self) -> str:
        """Return the SHA-256 of the canonical form's RFC 8785 JSON, as 64 lower-case hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        # Nothing in it can change, and a read-only mapping cannot be deep-copied by `copy`.
        return self


def parse_scope(value: object) -> Scope:
    """Read a scope from a decoded JSON value at the door, and log the sensitive resources in it.

    The value is not changed. Integers may be written as `100.0`; nothing else is coerced.

    Raises:
        ScopeError: the value is no scope; the only exception, whatever comes in.
    """
    scope = _Reader().scope(value)
    log_sensitive(scope)
    return scope


def log_sensitive(scope: Scope) -> None:
    """Write one warning per sensitive resource granted. For the door, not for stored scopes."""
    for name in scope.sensitive:
        _logger.warning(
            '[FederationScope] WARNING: scope grants sensitive resource "%s". '
            "Per PRD §8.4 this requires explicit admin approval and is logged.",
            name,
        )


def scope_from_stored(stored: Mapping[str, Any]) -> Scope:
    """Read back a canonical form. Neither logs nor applies today's rules: history stands.

    Raises:
        KeyError, ValueError, TypeError: `stored` never was a canonical form.
    """
    filters = stored["filters"]
    if not isinstance(filters, Mapping):
        raise TypeError("filters are an object")
    return Scope(
        resources=tuple(Resource(name) for name in stored["resources"]),
        excluded_resources=tuple(Resource(name) for name in stored["excluded_resources"]),
        filters=MappingProxyType(
            {
                Resource(name): Filter(tuple(chosen["include_teams"]), chosen["include_personal"])
                for name, chosen in filters.items()
            }
        ),
        max_rows_per_query=stored["max_rows_per_query"],
    )


class Narrowing(NamedTuple):
    """How a new scope compares with an old one, by what they allow and not by how they say it.

    `ok`: nothing more is allowed. `changed`: something else is allowed, which with `ok` means
    less. `widened`: dotted paths of what the new one adds; empty if and only if `ok`.
    """

    ok: bool
    changed: bool
    widened: tuple[str, ...]


def narrower(new: Scope, old: Scope) -> Narrowing:
    """Compare what two scopes allow: resources without the excluded, teams, personal data, cap.

    A partial order over what is allowed. An exclusion that excludes nothing changes nothing.
    """
    allowed, before = _allowed(new), _allowed(old)
    widened = [
        path
        for name, chosen in allowed.items()
        for path in _widened_paths(name, chosen, before.get(name))
    ]
    if new.max_rows_per_query > old.max_rows_per_query:
        widened.append("max_rows_per_query")
    changed = allowed != before or new.max_rows_per_query != old.max_rows_per_query
    return Narrowing(ok=not widened, changed=changed, widened=tuple(widened))


class _Reach(NamedTuple):
    teams: frozenset[str]
    personal: bool


def _allowed(scope: Scope) -> dict[str, _Reach]:
    reach = {}
    for name in scope.resources:
        if name not in scope.excluded_resources:
            chosen = scope.filter_for(name)
            reach[name.value] = _Reach(
                frozenset(chosen.include_teams or ()), chosen.include_personal
            )
    return reach


def _widened_paths(name: str, new: _Reach, old: _Reach | None) -> Iterable[str]:
    if old is None:
        yield f"resources.{name}"
        return
    if not new.teams <= old.teams:
        yield f"filters.{name}.include_teams"
    if new.personal and not old.personal:
        yield f"filters.{name}.include_personal"


class _Reader:
    """One reading of one value: gathers issues in schema order.

    Only exact built-in types are read, as a JSON decoder makes them: no method of a hostile
    subclass ever runs, so nothing but our own ScopeError can come out.
    """

    def __init__(self) -> None:
        self.issues: list[ScopeIssue] = []
        self.shape_is_right = True  # no failure of type or enum so far

    def scope(self, value: object) -> Scope:
        fields = self._object(value, "root", "the scope must be an object")
        if fields is None:
            raise ScopeError(self.issues)
        resources = self._resources(fields, "resources", None, may_be_empty=False)
        excluded = self._resources(fields, "excluded_resources", [], may_be_empty=True)
        filters = self._filters(fields)
        rows = self._rows(fields)
        self._unknown_keys(fields, "root")
        if self.shape_is_right:
            self._cross_field(resources, excluded, filters)
        if self.issues:
            raise ScopeError(self.issues)
        return Scope(
            resources=tuple(resources),
            excluded_resources=tuple(excluded),
            filters=None if filters is None else MappingProxyType(filters),
            max_rows_per_query=rows,
        )

    def _issue(self, path: str, message: str) -> None:
        self.issues.append(ScopeIssue(path, message))

    def _wrong_shape(self, path: str, message: str) -> None:
        self._issue(path, message)
        self.shape_is_right = False

    def _object(self, value: object, path: str, message: str) -> dict[object, object] | None:
        """Copy an object; keys that are not text are kept, to be reported as unknown."""
        if type(value) is not dict:
            self._wrong_shape(path, message)
            return None
        # Keys that are not exactly str are wrapped: their own hash and equality never run.
        return {
            key if type(key) is str else _ForeignKey(key): item for key, item in list(value.items())
        }

    def _unknown_keys(self, left: dict[object, object], path: str) -> None:
        if left:
            names = ", ".join(f"'{_printable(key)}'" for key in left)
            self._issue(path, f"Unrecognized key(s) in object: {names}")

    def _resources(
        self,
        fields: dict[object, object],
        name: str,
        default: list[object] | None,
        *,
        may_be_empty: bool,
    ) -> list[Resource]:
        items = self._list(fields.pop(name, default), name, "must be a list of resources")
        found = []
        for index, item in enumerate(items or ()):
            if type(item) is str and item in _BY_NAME:
                found.append(_BY_NAME[item])
            else:
                self._wrong_shape(f"{name}.{index}", f"must be one of {', '.join(_BY_NAME)}")
        if items == [] and not may_be_empty:
            self._issue(name, f"{name} must contain at least one value")
        # A list with a wrong value in it is judged for duplicates once it has none.
        if len(found) == len(items or ()) and len(set(found)) < len(found):
            self._issue(name, f"{name} must not contain duplicate values")
        return found

    def _list(self, value: object, path: str, message: str) -> list[object] | None:
        if type(value) is not list:
            self._wrong_shape(path, message)
            return None
        return value.copy()

    def _filters(self, fields: dict[object, object]) -> dict[str, Filter] | None:
        if "filters" not in fields:
            return None
        chosen = self._object(
            fields.pop("filters"), "filters", "must be an object of one filter per resource"
        )
        filters: dict[str, Filter] = {}
        for key, item in (chosen or {}).items():
            resource = _BY_NAME.get(key) if type(key) is str else None
            path = f"filters.{_printable(key)}"
            if resource is None:
                self._wrong_shape(path, _foreign_filter(key))
            filter_ = self._filter(item, path)
            if resource is not None:
                filters[resource] = filter_
        return filters

    def _filter(self, value: object, path: str) -> Filter:
        fields = self._object(value, path, "must be an object")
        if fields is None:
            return _PERSONAL_ONLY
        teams: tuple[str, ...] | None = None
        if "include_teams" in fields:
            teams = self._teams(fields.pop("include_teams"), f"{path}.include_teams")
        personal = fields.pop("include_personal", True)
        if type(personal) is not bool:
            self._wrong_shape(f"{path}.include_personal", "must be true or false")
        self._unknown_keys(fields, path)
        return Filter(teams, personal is True)

    def _teams(self, value: object, path: str) -> tuple[str, ...]:
        teams = []
        for index, item in enumerate(self._list(value, path, "must be a list of teams") or ()):
            if type(item) is str and _is_storable(item):
                teams.append(item)
            else:
                self._wrong_shape(f"{path}.{index}", "must be text")
        return tuple(teams)

    def _rows(self, fields: dict[object, object]) -> int:
        path = "max_rows_per_query"
        value = fields.pop(path, None)
        # NaN is the one number not equal to itself.
        if (type(value) is not int and type(value) is not float) or value != value:
            self._wrong_shape(path, f"{path} must be an integer")
            return 0
        if type(value) is float and not value.is_integer():
            self._issue(path, f"{path} must be an integer")
        if value < 1:
            self._issue(path, f"{path} must be at least 1")
        elif value > MAX_ROWS:
            self._issue(path, f"{path} must be at most {MAX_ROWS}")
        else:
            return int(value)
        return 0

    def _cross_field(
        self,
        resources: list[Resource],
        excluded: list[Resource],
        filters: dict[str, Filter] | None,
    ) -> None:
        for name in dict.fromkeys(resources):
            if name in excluded:
                self._issue(
                    "excluded_resources",
                    f'Resource "{name}" appears in both resources and excluded_resources',
                )
        for key in filters or {}:
            if key not in resources:
                self._issue(f"filters.{key}", _foreign_filter(key))


@dataclass(frozen=True, eq=False)
class _ForeignKey:
    """An object key that is not text: impossible in JSON, possible from Python."""

    key: object


def _foreign_filter(key: object) -> str:
    return f'filters key "{_printable(key)}" references a resource not present in resources'


def _is_storable(text: str) -> bool:
    """No lone surrogate, which has no UTF-8, and no NUL, which PostgreSQL's text cannot hold."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _printable(key: object) -> str:
    """Show an object key so that it can neither forge a line of the error nor flood a log."""
    if not isinstance(key, str):
        return "(not text)"
    shown = "".join(
        character if character.isprintable() else ascii(character)[1:-1]
        for character in key[:_LONGEST_KEY_SHOWN]
    )
    return shown if len(key) <= _LONGEST_KEY_SHOWN else f"{shown}…"
