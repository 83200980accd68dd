"""The schema as PostgreSQL reports it, against a table written here by hand.

Nothing below is read from the migrations: a change there shows up as a difference here.
"""

from collections.abc import Iterator
from typing import Any, Final

import psycopg
import pytest
from psycopg import Connection

from projections.registry import INLINE
from support.databases import Database

pytestmark = pytest.mark.postgres

# name, type, "!" where NULL is refused
COLUMNS: dict[str, str] = {
    "federation_peers": """
        id uuid !
        version bigint !
        name text !
        base_url text !
        state peer_state !
        verification text
        registered_at timestamp with time zone !
        activated_at timestamp with time zone
        suspended_at timestamp with time zone
        revoked_at timestamp with time zone
        changed_at timestamp with time zone !
    """,
    "federation_grants": """
        id uuid !
        version bigint !
        peer_id uuid !
        subject_user_id text !
        status grant_status !
        scope jsonb !
        sensitive boolean !
        not_before timestamp with time zone !
        expires_at timestamp with time zone !
        terms_digest text !
        proposed_by text !
        proposed_at timestamp with time zone !
        approvals jsonb !
        clone_suspected boolean !
        activated_at timestamp with time zone
        ended_at timestamp with time zone
        changed_at timestamp with time zone !
    """,
    "federation_enrollment_tokens": """
        accessor text !
        grant_id uuid !
        token_sha256 text !
        state text !
        expires_at timestamp with time zone !
        key_digest text
        issued_at timestamp with time zone !
        changed_at timestamp with time zone !
    """,
    "federation_certificates": """
        serial text !
        grant_id uuid !
        issuance_id uuid !
        state text !
        kind text !
        generation integer !
        accessor text
        predecessor text
        authority_id uuid !
        key_digest text !
        csr_sha256 text !
        not_before timestamp with time zone !
        not_after timestamp with time zone !
        certificate bytea
        certificate_sha256 text
        tbs_sha256 text
        authorized_at timestamp with time zone !
        closed_at timestamp with time zone
        failure text
        mis_issued boolean !
        revoked_at timestamp with time zone
        revocation_reason text
        revocation_detail text
        authority_told text
    """,
    "federation_operators": """
        id uuid !
        version bigint !
        kind text !
        roles jsonb !
        enabled boolean !
        registered_at timestamp with time zone !
        changed_at timestamp with time zone !
    """,
    "federation_credentials": """
        accessor text !
        operator_id uuid !
        token_sha256 text !
        expires_at timestamp with time zone !
        issued_at timestamp with time zone !
        revoked_at timestamp with time zone
    """,
    "federation_policy": """
        id uuid !
        version bigint !
        four_eyes boolean !
        required_approvals integer !
        approval_days integer !
        max_grant_days integer !
        certificate_ttl integer !
        token_ttl integer !
        changed_at timestamp with time zone !
    """,
    "federation_authorities": """
        id uuid !
        version bigint !
        kind text !
        chain jsonb !
        not_after timestamp with time zone !
        adopted_at timestamp with time zone !
        retired_at timestamp with time zone
    """,
    "federation_alarms": """
        id uuid !
        version bigint !
        kind text !
        about jsonb !
        detail text !
        raised_at timestamp with time zone !
        raised_by text !
        acknowledged_at timestamp with time zone
        acknowledged_by text
        acknowledged_because text
    """,
    "federation_enrollment_rejections": """
        id uuid !
        cause text !
        accessor text
        source text
        grant_id uuid
        count bigint !
        at timestamp with time zone !
    """,
    "ledger_events": """
        position bigint !
        stream_id uuid !
        version bigint !
        topic text !
        recorded_at timestamp with time zone !
        body bytea !
        leaf bytea !
    """,
    "ledger_head": """
        one boolean !
        size bigint !
        frontier bytea !
        last_recorded_at timestamp with time zone
        projections_version integer !
    """,
    "ledger_nodes": """
        level smallint !
        index bigint !
        hash bytea !
    """,
    "ledger_claims": """
        kind text !
        key text !
        stream_id uuid !
        position bigint !
    """,
    "ledger_idempotency": """
        credential text !
        method text !
        path text !
        key text !
        body_sha256 text !
        first_position bigint !
        events integer !
    """,
    "schema_migration": """
        version integer !
        name text !
        sha256 text !
        applied_at timestamp with time zone !
        applied_by text !
        millis integer !
    """,
}

COLUMNS |= {
    # The past of each current-state table: its columns, and from where to where a row holds.
    f"{name}_history": columns + "from_position bigint !\n to_position bigint !"
    for name, columns in COLUMNS.items()
    if name.startswith("federation_")
} | {
    "projection_progress": "name text !\n position bigint !\n release integer !",
    "event_terms": "term bigint !\n block integer !\n positions bytea !",
}

LABELS: Final = {
    "peer_state": ["pending", "active", "suspended", "revoked"],
    "grant_status": [
        "pending_approval",
        "pending_enrollment",
        "active",
        "suspended",
        "expired",
        "revoked",
        "rejected",
    ],
}

# table, what PostgreSQL says behind "ON table USING"; the primary keys are among them
INDEXES: Final = {
    ("federation_alarms", "UNIQUE btree (id)"),
    ("federation_alarms", "btree (raised_at, id)"),
    ("federation_alarms", "btree (raised_at, id) WHERE (acknowledged_at IS NULL)"),
    ("federation_authorities", "UNIQUE btree (id)"),
    ("federation_certificates", "UNIQUE btree (serial)"),
    ("federation_certificates", "btree (authorized_at) WHERE (state = 'authorized'::text)"),
    ("federation_certificates", "btree (authorized_at, serial)"),
    ("federation_certificates", "btree (grant_id, authorized_at, serial)"),
    ("federation_certificates", "btree (key_digest)"),
    ("federation_certificates", "btree (not_after)"),
    ("federation_certificates", "btree (tbs_sha256) WHERE (tbs_sha256 IS NOT NULL)"),
    ("federation_credentials", "UNIQUE btree (accessor)"),
    ("federation_credentials", "btree (operator_id, accessor)"),
    ("federation_enrollment_rejections", "UNIQUE btree (id)"),
    ("federation_enrollment_rejections", "btree (accessor) WHERE (accessor IS NOT NULL)"),
    ("federation_enrollment_tokens", "UNIQUE btree (accessor)"),
    ("federation_enrollment_tokens", "btree (grant_id, accessor)"),
    ("federation_grants", "UNIQUE btree (id)"),
    (
        "federation_grants",
        (
            "btree (expires_at) WHERE (status <> ALL (ARRAY['expired'::grant_status, "
            "'revoked'::grant_status, 'rejected'::grant_status]))"
        ),
    ),
    ("federation_grants", "btree (peer_id, proposed_at, id)"),
    ("federation_grants", "btree (proposed_at, id)"),
    ("federation_grants", "btree (subject_user_id, proposed_at, id)"),
    ("federation_operators", "UNIQUE btree (id)"),
    ("federation_peers", "UNIQUE btree (id)"),
    ("federation_peers", "btree (lower(name))"),
    ("federation_policy", "UNIQUE btree (id)"),
    ("ledger_claims", "UNIQUE btree (kind, key)"),
    ("ledger_events", 'UNIQUE btree ("position")'),
    ("ledger_events", "UNIQUE btree (stream_id, version)"),
    ("ledger_events", 'btree (recorded_at, "position")'),
    ("ledger_events", 'btree (topic, "position")'),
    ("ledger_head", "UNIQUE btree (one)"),
    ("ledger_idempotency", "UNIQUE btree (credential, method, path, key)"),
    ("ledger_nodes", "UNIQUE btree (level, index)"),
    ("schema_migration", "UNIQUE btree (version)"),
    ("federation_alarms_history", "UNIQUE btree (id, from_position)"),
    ("federation_alarms_history", "btree (raised_at, id, from_position)"),
    ("federation_authorities_history", "UNIQUE btree (id, from_position)"),
    ("federation_certificates_history", "UNIQUE btree (serial, from_position)"),
    ("federation_certificates_history", "btree (authorized_at, serial, from_position)"),
    ("federation_certificates_history", "btree (grant_id, authorized_at, serial, from_position)"),
    ("federation_certificates_history", "btree (key_digest)"),
    ("federation_certificates_history", "btree (tbs_sha256) WHERE (tbs_sha256 IS NOT NULL)"),
    ("federation_credentials_history", "UNIQUE btree (accessor, from_position)"),
    ("federation_credentials_history", "btree (operator_id, accessor, from_position)"),
    ("federation_enrollment_rejections_history", "UNIQUE btree (id, from_position)"),
    ("federation_enrollment_tokens_history", "UNIQUE btree (accessor, from_position)"),
    ("federation_enrollment_tokens_history", "btree (grant_id, accessor, from_position)"),
    ("federation_grants_history", "UNIQUE btree (id, from_position DESC)"),
    ("federation_grants_history", "btree (peer_id, proposed_at, id, from_position)"),
    ("federation_grants_history", "btree (proposed_at, id, from_position)"),
    ("federation_grants_history", "btree (status, proposed_at, id, from_position)"),
    ("federation_grants_history", "btree (subject_user_id, proposed_at, id, from_position)"),
    ("federation_operators_history", "UNIQUE btree (id, from_position)"),
    ("federation_peers_history", "UNIQUE btree (id, from_position)"),
    ("federation_peers_history", "btree (lower(name))"),
    ("federation_policy_history", "UNIQUE btree (id, from_position)"),
    ("event_terms", "UNIQUE btree (term, block)"),
    ("projection_progress", "UNIQUE btree (name)"),
    ("federation_certificates", "btree (authorized_at, serial) WHERE (revoked_at IS NOT NULL)"),
    (
        "federation_certificates",
        "btree (state, authorized_at, serial) WHERE (state <> 'issued'::text)",
    ),
    ("federation_certificates_history", "brin (from_position)"),
    (
        "federation_certificates_history",
        "btree (authorized_at, serial, from_position) WHERE (revoked_at IS NOT NULL)",
    ),
    (
        "federation_certificates_history",
        "btree (state, authorized_at, serial, from_position) WHERE (state <> 'issued'::text)",
    ),
    (
        "federation_certificates_history",
        "gist (int8range(from_position, to_position)) WHERE (state = 'authorized'::text)",
    ),
    ("federation_grants", "btree (status, proposed_at, id)"),
    ("federation_grants_history", "brin (from_position)"),
    (
        "federation_grants_history",
        (
            "gist (int8range(from_position, to_position)) WHERE (status = ANY (ARRAY["
            "'pending_approval'::grant_status, 'pending_enrollment'::grant_status, "
            "'suspended'::grant_status]))"
        ),
    ),
    (
        "federation_grants_history",
        (
            "btree (peer_id, expires_at, from_position) WHERE (status = ANY (ARRAY["
            "'pending_approval'::grant_status, 'pending_enrollment'::grant_status, "
            "'active'::grant_status, 'suspended'::grant_status]))"
        ),
    ),
}

FACTS: Final = ("ledger_claims", "ledger_events", "ledger_idempotency", "ledger_nodes")
CURRENT_STATE: Final = tuple(name for name in COLUMNS if name.startswith("federation_"))

# What the service's role may do; every table is named.
PRIVILEGES: Final = {
    **{key: {"SELECT", "INSERT"} for key in FACTS},
    **{key: {"SELECT", "INSERT", "UPDATE"} for key in CURRENT_STATE},
    "ledger_head": {"SELECT", "UPDATE"},
    "schema_migration": {"SELECT"},
    "projection_progress": {"SELECT", "INSERT", "UPDATE"},
    "event_terms": {"SELECT", "INSERT", "UPDATE"},
}


@pytest.fixture
def catalog(database: Database) -> Iterator[Connection[Any]]:
    """A connection that may read the catalog."""
    with psycopg.connect(database.owner_dsn, autocommit=True) as connection:
        yield connection


def test_tables_and_columns(catalog: Connection[Any]) -> None:
    found: dict[str, list[str]] = {}
    query = """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
          AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY c.relname, a.attnum
    """
    for table, column, kind, not_null in catalog.execute(query):
        found.setdefault(table, []).append(f"{column} {kind}{' !' if not_null else ''}")
    expected = {
        table: [line.strip() for line in columns.strip().splitlines()]
        for table, columns in COLUMNS.items()
    }
    assert found == expected


def test_labels_of_the_enum_types_in_order(catalog: Connection[Any]) -> None:
    query = """
        SELECT t.typname, array_agg(e.enumlabel::text ORDER BY e.enumsortorder)
        FROM pg_catalog.pg_type t JOIN pg_catalog.pg_enum e ON e.enumtypid = t.oid
        WHERE t.typnamespace = 'public'::regnamespace GROUP BY t.typname
    """
    assert dict(catalog.execute(query).fetchall()) == LABELS


def test_indexes(catalog: Connection[Any]) -> None:
    query = """
        SELECT c.relname, i.indisunique, pg_get_indexdef(i.indexrelid)
        FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
        WHERE c.relnamespace = 'public'::regnamespace
    """
    found = {
        (table, ("UNIQUE " if unique else "") + definition.partition(" USING ")[2])
        for table, unique, definition in catalog.execute(query)
    }
    assert found == INDEXES


def test_facts_are_guarded_by_triggers_that_nobody_switches_off(catalog: Connection[Any]) -> None:
    # tgtype (PostgreSQL, catalog/pg_trigger.h): 1 row, 2 before, 8 delete, 16 update, 32 truncate.
    # tgenabled A: fires always, in the replica role too.
    query = """
        SELECT c.relname, t.tgtype, t.tgenabled::text, p.proname
        FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
        JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
        WHERE NOT t.tgisinternal
    """
    assert set(catalog.execute(query).fetchall()) == {
        (table, kind, "A", "refuse_change_of_facts")
        for table in FACTS
        for kind in (1 + 2 + 8 + 16, 2 + 32)
    }


@pytest.mark.parametrize("table", FACTS)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {} SET {} = {}",
        "DELETE FROM {}",
        "TRUNCATE {}",
        "SET session_replication_role = replica; DELETE FROM {}",
        "SET session_replication_role = replica; TRUNCATE {}",
    ],
)
def test_not_even_a_superuser_changes_a_fact(
    database: Database, table: str, statement: str
) -> None:
    column = COLUMNS[table].split()[0]
    rows = {
        "ledger_claims": ("'k', 'k', gen_random_uuid(), 1"),
        "ledger_events": "1, gen_random_uuid(), 1, 't', now(), '', sha256('')",
        "ledger_idempotency": "'c', 'm', 'p', 'k', 'b', 1, 1",
        "ledger_nodes": "8, 0, sha256('')",
    }
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        connection.execute(f"INSERT INTO {table} VALUES ({rows[table]})")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="never changed"):
            connection.execute(statement.format(table, column, column))
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)


def test_what_the_service_may_do(catalog: Connection[Any]) -> None:
    query = """
        SELECT c.relname, array_agg(p.privilege::text)
        FROM pg_catalog.pg_class c CROSS JOIN
             unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES',
                          'TRIGGER']) AS p(privilege)
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
          AND has_table_privilege('fedledger_service', c.oid, p.privilege)
        GROUP BY c.relname
    """
    found = {table: set(privileges) for table, privileges in catalog.execute(query)}
    assert found == PRIVILEGES


def test_the_service_owns_nothing_and_makes_nothing(catalog: Connection[Any]) -> None:
    query = """
        SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls,
               has_schema_privilege('fedledger_service', 'public', 'CREATE'),
               (SELECT count(*) FROM pg_catalog.pg_class WHERE relowner = r.oid),
               (SELECT count(*) FROM pg_catalog.pg_auth_members WHERE member = r.oid)
        FROM pg_catalog.pg_roles r WHERE rolname = 'fedledger_service'
    """
    assert catalog.execute(query).fetchone() == (False,) * 6 + (0, 0)


def test_no_column_privilege_opens_another_way(catalog: Connection[Any]) -> None:
    query = "SELECT count(*) FROM pg_catalog.pg_attribute WHERE attacl IS NOT NULL AND attnum > 0"
    public = " AND attrelid IN (SELECT oid FROM pg_catalog.pg_class WHERE relnamespace = 'public'::regnamespace)"
    assert catalog.execute(query + public).fetchone() == (0,)


def test_the_projections_name_the_columns_there_are() -> None:
    short = {"timestamp with time zone": "timestamptz"}
    for projection in INLINE:
        described = []
        for line in COLUMNS[projection.table].strip().splitlines():
            name, _, kind = line.strip().removesuffix(" !").partition(" ")
            described.append((name, short.get(kind, kind)))
        assert sorted(projection.columns) == sorted(described), projection.table
    tables = {projection.table for projection in INLINE}
    assert tables | {f"{name}_history" for name in tables} == set(CURRENT_STATE)


def test_the_views_of_the_past_show_the_columns_of_the_present(catalog: Connection[Any]) -> None:
    query = """
        SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum),
               has_table_privilege('fedledger_service', c.oid, 'SELECT'),
               has_table_privilege('fedledger_service', c.oid, 'INSERT, UPDATE, DELETE')
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'as_of'::regnamespace AND a.attnum > 0 GROUP BY c.oid
    """
    assert {tuple(map(str, row)) for row in catalog.execute(query)} == {
        (table, str([line.split()[0] for line in columns.strip().splitlines()]), "True", "False")
        for table, columns in COLUMNS.items()
        if table.startswith("federation_") and not table.endswith("_history")
    }
