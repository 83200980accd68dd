"""Frozen objects made quickly: a fold makes some per event. It checks no types.

The constructor of a frozen dataclass sets each field by a call: here an object is handed its fields in
one piece. It is for dataclasses without slots and without `__post_init__`.
"""

import dataclasses
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, Final, TypeVar, cast

S = TypeVar("S")

_new: Final = object.__new__
_set: Final = object.__setattr__


def changed(state: S, change: Mapping[str, Any]) -> S:
    """Return a copy of `state` with other values in the fields named.

    Raises:
        TypeError: a field of that name does not exist.
    """
    fields = state.__dict__
    changed_fields = {**fields, **change}
    if len(changed_fields) != len(fields):
        raise TypeError(f"{type(state).__name__} lacks {sorted(change.keys() - fields.keys())}")
    made = _new(type(state))
    _set(made, "__dict__", changed_fields)
    return made


def made_of(kind: type[S], /, **fields: Any) -> S:
    """Return what `kind(**fields)` would be; every field must be given."""
    made = _new(kind)
    _set(made, "__dict__", fields)
    return made


def begun(kind: type[S], /, **fields: Any) -> S:
    """Return what `kind(**fields)` would be; fields without a plain default must be given."""
    made = _new(kind)
    _set(made, "__dict__", {**_defaults(cast(Hashable, kind)), **fields})
    return made


@cache
def _defaults(kind: Any) -> dict[str, Any]:
    return {
        field.name: field.default
        for field in dataclasses.fields(kind)
        if field.default is not dataclasses.MISSING
    }
