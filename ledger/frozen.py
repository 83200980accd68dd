"""Copies of frozen dataclasses, quickly: a fold makes one per event. It checks no types.

`dataclasses.replace` runs the constructor, which sets each field of a frozen class by a call: 9 µs
for a grant, 1.4 µs here. It is for classes without slots and without `__post_init__` only.
"""

from typing import Any, TypeVar

S = TypeVar("S")


def changed(state: S, /, **changes: Any) -> S:
    """Return a copy of `state` with other values in the fields named.

    Raises:
        TypeError: a field of that name does not exist.
    """
    fields = state.__dict__
    if not changes.keys() <= fields.keys():
        raise TypeError(f"{type(state).__name__} lacks {sorted(changes.keys() - fields.keys())}")
    made = object.__new__(type(state))
    made.__dict__.update(fields, **changes)
    return made


def made_of(kind: type[S], /, **fields: Any) -> S:
    """Return what `kind(**fields)` would be; every field must be given."""
    made = object.__new__(kind)
    made.__dict__.update(fields)
    return made
