"""Rows as they compare: those a projection makes with those the database gives back."""

from collections.abc import Sequence

import orjson

from ledger.appends import InlineProjection


def comparable(
    table: InlineProjection, row: Sequence[object], *, stored: bool = False
) -> tuple[object, ...]:
    """A row's values as they compare: JSON by meaning, ids as text, the rest as it is.

    `stored`: as the database gives it, in UTC.
    """
    return tuple(
        _value(kind, value, stored) for (_, kind), value in zip(table.columns, row, strict=True)
    )


def row_name(table: InlineProjection, values: Sequence[object]) -> str:
    """Which row that is, for people: the table and the row's key."""
    key = (values[table.names.index(name)] for name in table.key)
    return " ".join([table.table, *map(str, key)])


def _value(kind: str, value: object, stored: bool) -> object:
    if value is None:
        return None
    if kind == "jsonb":
        # The database gives it parsed, a projection as canonical text.
        parsed = value if stored else orjson.loads(str(value))
        return orjson.dumps(parsed, option=orjson.OPT_SORT_KEYS)
    return str(value) if kind == "uuid" else value
