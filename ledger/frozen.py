"""Frozen objects made quickly: a fold makes some per event. It checks no types.

The constructor of a frozen dataclass sets each field by a call, that of a model checks each: here an
object is handed its fields in one piece. It is for dataclasses without slots and without
`__post_init__`, and for models without private attributes.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from pydantic import BaseModel

S = TypeVar("S")
M = TypeVar("M", bound=BaseModel)

_new: Final = object.__new__
_set: Final = object.__setattr__


def changed(state: S, /, **changes: Any) -> S:
    """Return a copy of `state` with other values in the fields named.

    Raises:
        TypeError: a field of that name does not exist.
    """
    fields = {**state.__dict__, **changes}
    if len(fields) != len(state.__dict__):
        raise TypeError(
            f"{type(state).__name__} lacks {sorted(changes.keys() - state.__dict__.keys())}"
        )
    made = _new(type(state))
    _set(made, "__dict__", fields)
    return made


def made_of(kind: type[S], /, **fields: Any) -> S:
    """Return what `kind(**fields)` would be; every field must be given."""
    made = _new(kind)
    _set(made, "__dict__", fields)
    return made


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
