"""The tables that are built beside the live ones: made like them, finished like them, put in their place.

They stand in a schema of their own under the same names, with the same names for their indexes and
constraints, so that taking their place is moving them: nothing is renamed, and no name differs
afterwards. It writes no row.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from psycopg import Connection, sql

from projections.shape import Shape, differences, shape_of

_SCHEMA: Final = "fedledger_rebuild_"
_RETIRED: Final = "fedledger_retired_"
_LIVE: Final = "SELECT current_schema()"
_MAKE: Final = sql.SQL(
    "CREATE TABLE {new} (LIKE {live} INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS)"
)
_OPTIONS: Final = "SELECT unnest(reloptions) FROM pg_class WHERE oid = %s::regclass"
_LARGEST_FIRST: Final = """SELECT name FROM unnest(%s::text[], %s::text[]) AS t (name, beside)
    ORDER BY pg_relation_size(beside::regclass) DESC, name"""
_UNVACUUMED: Final = sql.SQL("ALTER TABLE {} SET (autovacuum_enabled = off)")
_VACUUMED: Final = sql.SQL("ALTER TABLE {} RESET (autovacuum_enabled)")
_OWN_WORD: Final = "autovacuum_enabled="  # a live table that has one keeps it
_COMMENT: Final = "SELECT obj_description(%s::regclass, 'pg_class')"
_PRIVILEGES: Final = """SELECT x.privilege_type, pg_get_userbyid(x.grantee), x.is_grantable, x.grantee
    FROM pg_class c, aclexplode(c.relacl) x WHERE c.oid = %s::regclass AND x.grantee <> c.relowner"""
_CONSTRAINTS: Final = """SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE conrelid = %s::regclass AND contype IN ('p', 'u', 'x') ORDER BY conname"""
_INDEXES: Final = """SELECT c.relname, pg_get_indexdef(c.oid), obj_description(c.oid, 'pg_class')
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = %s::regclass AND NOT EXISTS
          (SELECT FROM pg_constraint WHERE conindid = c.oid AND conrelid = i.indrelid)
    ORDER BY c.relname"""
_VIEWS: Final = """SELECT DISTINCT n.nspname, c.relname, pg_get_viewdef(c.oid)
    FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
         JOIN pg_class c ON c.oid = r.ev_class AND c.relkind = 'v'
         JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY(%s::regclass[])
    ORDER BY 1, 2"""
_COLUMNS: Final = """SELECT DISTINCT array_agg(attname || ' ' || atttypid ORDER BY attnum)
    FROM pg_attribute WHERE attrelid IN (%s::regclass, %s::regclass) AND attnum > 0
    AND NOT attisdropped GROUP BY attrelid"""


class ShapeError(Exception):
    """A table cannot be put in another's place; the text names what would be different."""


def schema_for(purpose: str) -> str:
    """The schema in which the tables of one purpose are built."""
    return _SCHEMA + purpose


class Beside:
    """The tables beside those of one connection's schema.

    `names`: of the tables, in lock order. `schema`: where they are built; that it is there means that
    a rebuild has begun. The tables they replace wait in another one to be dropped.
    """

    def __init__(self, connection: Connection[Any], purpose: str, names: Sequence[str]) -> None:
        """`connection`: the owner's; the caller commits. `purpose`: one word, for the schemas' names."""
        self._connection = connection
        self.schema = schema_for(purpose)
        self._retired = _RETIRED + purpose
        row = connection.execute(_LIVE).fetchone()
        self._live = str(row[0]) if row else "public"
        self.names = tuple(sorted(names))

    def make(self) -> None:
        """Make the schema and the tables, empty and without indexes."""
        self._connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))
        for name in self.names:
            self._make(name)

    def _make(self, name: str) -> None:
        new, live, run = self.new(name), self.live(name), self._connection.execute
        run(_MAKE.format(new=new, live=live))
        text = self._text(live)
        for option in self._options(live):
            key, _, value = option.partition("=")
            run(sql.SQL("ALTER TABLE {} SET ({} = {})").format(new, sql.Identifier(key), value))
        if not self._says_whether_to_vacuum(live):
            # It would read again and again what is only half there, on a processor that copies.
            run(_UNVACUUMED.format(new))
        row = run(_COMMENT, [text]).fetchone()
        if row and row[0] is not None:
            run(sql.SQL("COMMENT ON TABLE {} IS {}").format(new, row[0]))
        for privilege, grantee, grantable, oid in run(_PRIVILEGES, [text]).fetchall():
            run(
                sql.SQL("GRANT {} ON {} TO {} {}").format(
                    sql.SQL(privilege),
                    new,
                    sql.Identifier(grantee) if oid else sql.SQL("PUBLIC"),
                    sql.SQL("WITH GRANT OPTION" if grantable else ""),
                )
            )

    def _options(self, table: sql.Identifier) -> list[str]:
        return [row[0] for row in self._connection.execute(_OPTIONS, [self._text(table)])]

    def _says_whether_to_vacuum(self, table: sql.Identifier) -> bool:
        return any(option.startswith(_OWN_WORD) for option in self._options(table))

    def finish(self, name: str) -> None:
        """Give a filled table its constraints, indexes and statistics, under the live ones' names.

        Raises:
            ShapeError: something of the live table cannot be had again.
        """
        new, live, run = self.new(name), self.live(name), self._connection.execute
        text = self._text(live)
        for constraint, definition in run(_CONSTRAINTS, [text]).fetchall():
            run(
                sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
                    new, sql.Identifier(constraint), sql.SQL(definition)
                )
            )
        for index, definition, comment in run(_INDEXES, [text]).fetchall():
            # PostgreSQL writes the table qualified or not, as the search path would find it.
            head, _, rest = definition.partition(" USING ")
            run(
                sql.SQL("{} ON {} USING {}").format(
                    sql.SQL(head.rpartition(" ON ")[0]), new, sql.SQL(rest)
                )
            )
            if comment is not None:
                named = sql.Identifier(self.schema, index)
                run(sql.SQL("COMMENT ON INDEX {} IS {}").format(named, comment))
        if not self._says_whether_to_vacuum(live):
            run(_VACUUMED.format(new))
        run(sql.SQL("ANALYZE {}").format(new))
        if wrong := self.differences(name):
            raise ShapeError(f"{name} would not be the same: {', '.join(wrong)}")

    def largest_first(self) -> list[str]:
        """The names in the order of how much is in the tables beside."""
        tables = [self._text(self.new(name)) for name in self.names]
        found = self._connection.execute(_LARGEST_FIRST, [list(self.names), tables])
        return [row[0] for row in found]

    def shapes(self) -> Iterator[tuple[str, Shape]]:
        """The live tables' shapes, by name."""
        for name in self.names:
            yield name, shape_of(self._connection, self._text(self.live(name)))

    def differences(self, name: str) -> list[str]:
        """Name what of the two tables is not the same, their rows aside."""
        one = shape_of(self._connection, self._text(self.live(name)))
        return differences(one, shape_of(self._connection, self._text(self.new(name))))

    def keep_vacuum_away(self) -> None:
        """Lock the live tables and those beside against autovacuum, and against nobody else.

        Whoever waits for this lock makes no reader and no writer wait, and after `deadlock_timeout` the
        server stops the vacuum that is in the way.
        """
        both = (place(name) for name in self.names for place in (self.live, self.new))
        query = sql.SQL("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE")
        self._connection.execute(query.format(sql.SQL(", ").join(both)))

    def lock(self) -> None:
        """Lock the live tables against everybody, in the order in which appends lock them.

        The views go first, as they do for whoever reads through them.
        """
        views = [sql.Identifier(schema, view) for schema, view, _ in self._views()]
        every = sql.SQL(", ").join([*views, *map(self.live, self.names)])
        self._connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(every))

    def _views(self) -> list[tuple[str, str, str]]:
        """The views that read the live tables: schema, name, query."""
        tables = [self._text(self.live(name)) for name in self.names]
        return self._connection.execute(_VIEWS, [tables]).fetchall()

    def check_columns(self) -> None:
        """Refuse if a live table's columns have changed since: a quick look, while all wait.

        Raises:
            ShapeError: a migration was faster than we.
        """
        for name in self.names:
            tables = [self._text(self.live(name)), self._text(self.new(name))]
            if len(self._connection.execute(_COLUMNS, tables).fetchall()) != 1:
                raise ShapeError(f"the columns of {name} have changed meanwhile; begin anew")

    def take_the_place(self) -> None:
        """Move the live tables away and the new ones in. The caller holds all locks and commits."""
        run = self._connection.execute
        run(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self._retired)))
        views = self._views()
        for table, schema in (
            *((self.live(name), self._retired) for name in self.names),
            *((self.new(name), self._live) for name in self.names),
        ):
            run(sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(table, sql.Identifier(schema)))
        for schema, view, query in views:
            # A view holds on to its table; by its own words it finds the new one under the name.
            named = sql.Identifier(schema, view)
            run(sql.SQL("CREATE OR REPLACE VIEW {} AS {}").format(named, sql.SQL(query)))

    def live(self, name: str) -> sql.Identifier:
        """The live table."""
        return sql.Identifier(self._live, name)

    def remove(self) -> None:
        """Drop both schemas with all that is in them."""
        for schema in (self.schema, self._retired):
            self._connection.execute(
                sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema))
            )

    @property
    def begun(self) -> bool:
        """Whether the schema is there."""
        found = self._connection.execute("SELECT to_regnamespace(%s) IS NOT NULL", [self.schema])
        row = found.fetchone()
        return bool(row and row[0])

    def new(self, name: str) -> sql.Identifier:
        """The table beside it."""
        return sql.Identifier(self.schema, name)

    def _text(self, table: sql.Identifier) -> str:
        return table.as_string(self._connection)


class ThrowAway:
    """A schema for one replay: tables like the live ones, to be looked at and dropped.

    Never the live ones: the schema must not exist.
    """

    def __init__(self, connection: Connection[Any], schema: str) -> None:
        """`connection`: the owner's; the caller commits. `schema`: `[a-z][a-z0-9_]*`."""
        self._connection = connection
        self._schema = schema

    def make(self, names: Sequence[str]) -> None:
        """Make schema and tables.

        Raises:
            psycopg.errors.DuplicateSchema: it exists.
        """
        run = self._connection.execute
        run(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self._schema)))
        for name in names:
            like = sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)")
            run(like.format(self.new(name), sql.Identifier(name)))

    def new(self, name: str) -> sql.Identifier:
        """The table in this schema."""
        return sql.Identifier(self._schema, name)
