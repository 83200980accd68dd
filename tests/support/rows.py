"""Writes the rows of a state straight into its tables, for tests of reading alone."""

from typing import Any

from psycopg import Connection, sql

from projections.registry import INLINE


def insert(connection: Connection[Any], *states: object) -> None:
    """Insert the rows of each state into every table that shows its kind."""
    for state in states:
        for projection in INLINE:
            if projection.state is not type(state):
                continue
            query = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.Identifier(projection.table),
                sql.SQL(", ").join(map(sql.Identifier, projection.names)),
                sql.SQL(", ").join(
                    sql.SQL("%s::") + sql.SQL(kind) for _, kind in projection.columns
                ),
            )
            for row in projection.rows(state):
                connection.execute(query, row)
