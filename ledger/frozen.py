"""Frozen objects made quickly: a fold makes some per event. It checks no types.

The constructor of a frozen dataclass sets each field by a call, that of a model checks each: here an
object is handed its fields in one piece. It is for dataclasses without slots and without
`__post_init__`, and for models without private attributes.
"""

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel

S = TypeVar("S")
M = TypeVar("M", bound=BaseModel)

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


def model_of(kind: type[M]) -> Callable[[dict[str, Any]], M]:
    """Return what makes models of all their fields, of the right types already; it keeps the dict."""
    # What a model consists of (https://docs.pydantic.dev, BaseModel); the names are never changed.
    own, given, extra, private = (
        BaseModel.__dict__[name].__set__
        for name in (
            "__dict__",
            "__pydantic_fields_set__",
            "__pydantic_extra__",
            "__pydantic_private__",
        )
    )
    names = set(kind.model_fields)

    def make(fields: dict[str, Any]) -> M:
        made = _new(kind)
        own(made, fields)
        given(made, names)
        extra(made, None)
        private(made, None)
        return made

    return make
