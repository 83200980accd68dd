"""What a table is besides its rows, as PostgreSQL's catalog tells it. It reads, and makes no table.

A table that takes the place of another must be the same in all of this, or a query that was fast is
slow, a role that might read may not, and nobody knows why.
"""

from typing import Any, Final

from psycopg import Connection

# Each gives (what, text) pairs without the schema's name, so that two schemas can be compared.
_QUERIES: Final = (
    """SELECT 'column ' || a.attnum, concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod),
              a.attnotnull, a.attstorage, a.attcompression, a.attstattarget, a.attacl::text,
              c.collname, pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated)
       FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
            LEFT JOIN pg_collation c ON c.oid = a.attcollation
       WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped""",
    """SELECT 'constraint ' || conname, concat_ws(' ', pg_get_constraintdef(oid), convalidated)
       FROM pg_constraint WHERE conrelid = %(oid)s""",
    """SELECT 'index ' || c.relname, concat_ws(' ',
              regexp_replace(pg_get_indexdef(i.indexrelid), ' ON \\S+ USING', ' USING'),
              i.indisprimary, i.indisvalid, i.indisclustered, i.indisreplident, c.reloptions::text)
       FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = %(oid)s""",
    """SELECT 'table', concat_ws(' ', c.relkind, c.relpersistence, c.reloptions::text,
              c.relrowsecurity, c.relforcerowsecurity, c.relreplident, pg_get_userbyid(c.relowner),
              am.amname)
       FROM pg_class c LEFT JOIN pg_am am ON am.oid = c.relam WHERE c.oid = %(oid)s""",
    """SELECT 'privilege ' || x.grantee::regrole || ' ' || x.privilege_type, x.is_grantable::text
       FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) x
       WHERE c.oid = %(oid)s""",
    """SELECT 'comment ' || coalesce(a.attname, ''), d.description
       FROM pg_description d LEFT JOIN pg_attribute a
            ON a.attrelid = d.objoid AND a.attnum = d.objsubid AND d.objsubid > 0
       WHERE d.classoid = 'pg_class'::regclass AND d.objoid = %(oid)s""",
    """SELECT 'comment on index ' || c.relname, d.description
       FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
            JOIN pg_description d ON d.classoid = 'pg_class'::regclass AND d.objoid = c.oid
       WHERE i.indrelid = %(oid)s""",
    """SELECT 'statistics ' || stxname, regexp_replace(pg_get_statisticsobjdef(oid), ' FROM .*', '')
       FROM pg_statistic_ext WHERE stxrelid = %(oid)s""",
    """SELECT 'trigger ' || tgname, tgenabled::text FROM pg_trigger
       WHERE tgrelid = %(oid)s AND NOT tgisinternal""",
    """SELECT 'policy ' || polname, polcmd::text FROM pg_policy WHERE polrelid = %(oid)s""",
    """SELECT 'referred to by ' || conrelid::regclass, conname FROM pg_constraint
       WHERE confrelid = %(oid)s""",
    """SELECT 'used by materialized view ' || r.ev_class::regclass, r.rulename
       FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
            JOIN pg_class c ON c.oid = r.ev_class AND c.relkind = 'm'
       WHERE d.refobjid = %(oid)s AND d.refclassid = 'pg_class'::regclass""",
    """SELECT 'publication ' || p.pubname, '' FROM pg_publication_rel l
       JOIN pg_publication p ON p.oid = l.prpubid WHERE l.prrelid = %(oid)s""",
)

Shape = dict[str, str]


def shape_of(connection: Connection[Any], table: str) -> Shape:
    """Return everything that is true of `table` (a name, qualified if need be) but its rows, and
    the views that read it: those are told of the new one.

    Raises:
        LookupError: there is no such table.
    """
    row = connection.execute("SELECT to_regclass(%s)::oid", [table]).fetchone()
    if row is None or row[0] is None:
        raise LookupError(f"there is no table {table}")
    found: Shape = {}
    for query in _QUERIES:
        # Several reasons of one name (a view that uses two columns) are one difference all the same.
        for what, text in connection.execute(query.encode(), {"oid": row[0]}):
            found[what] = str(text)
    return found


def differences(one: Shape, other: Shape) -> list[str]:
    """Name what is not the same in both, in order."""
    return sorted(what for what in one.keys() | other.keys() if one.get(what) != other.get(what))
