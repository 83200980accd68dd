-- The record: facts that are only ever added, and the one row that numbers them.
-- Rules that hold here: facts take INSERT and SELECT, nothing else, from anybody; the service role
-- may change only the head and the current-state tables; nothing at all may be deleted by it.

DO $$
BEGIN
    -- Roles belong to the cluster, not to this database: another database may have made it already.
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'fedledger_service') THEN
        CREATE ROLE fedledger_service NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- another database's migration was faster
END
$$;

CREATE FUNCTION refuse_change_of_facts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'facts of the ledger are never changed: % on % refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege',
              HINT = 'Correct a mistake with a new event.';
END
$$;

CREATE TABLE ledger_events (
    position    bigint      NOT NULL CHECK (position > 0),
    stream_id   uuid        NOT NULL,
    version     bigint      NOT NULL,
    topic       text        NOT NULL,
    recorded_at timestamptz NOT NULL,
    body        bytea       NOT NULL,
    leaf        bytea       NOT NULL CHECK (octet_length(leaf) = 32),
    CONSTRAINT ledger_events_position PRIMARY KEY (position),
    CONSTRAINT ledger_events_stream UNIQUE (stream_id, version)
);
CREATE INDEX ledger_events_recorded_at ON ledger_events (recorded_at, position);
CREATE INDEX ledger_events_topic ON ledger_events (topic, position);

-- Bodies are compressed JSON or they are small: never read for a scan of positions and leaves.
ALTER TABLE ledger_events ALTER COLUMN body SET COMPRESSION pglz;

CREATE TABLE ledger_head (
    one                 boolean     NOT NULL DEFAULT true PRIMARY KEY CHECK (one),
    size                bigint      NOT NULL CHECK (size >= 0),
    frontier            bytea       NOT NULL,
    last_recorded_at    timestamptz,
    projections_version integer     NOT NULL
) WITH (fillfactor = 50);
INSERT INTO ledger_head (size, frontier, projections_version) VALUES (0, '', 1);

-- Roots of complete subtrees at levels 8, 16, 24: index counts subtrees of that level from 0.
CREATE TABLE ledger_nodes (
    level smallint NOT NULL,
    index bigint   NOT NULL,
    hash  bytea    NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (level, index)
);

-- What may exist once only, for ever, whatever the projections say.
CREATE TABLE ledger_claims (
    kind      text   NOT NULL,
    key       text   NOT NULL,
    stream_id uuid   NOT NULL,
    position  bigint NOT NULL,
    CONSTRAINT ledger_claims_once PRIMARY KEY (kind, key)
);

CREATE TABLE ledger_idempotency (
    credential     text   NOT NULL,
    method         text   NOT NULL,
    path           text   NOT NULL,
    key            text   NOT NULL,
    body_sha256    text   NOT NULL,
    first_position bigint NOT NULL,
    events         integer NOT NULL,
    CONSTRAINT ledger_idempotency_once PRIMARY KEY (credential, method, path, key)
);

DO $$
DECLARE
    facts text;
BEGIN
    FOREACH facts IN ARRAY ARRAY['ledger_events', 'ledger_nodes', 'ledger_claims', 'ledger_idempotency'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change_of_facts()',
                       facts || '_no_change', facts);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_facts()',
                       facts || '_no_truncate', facts);
        EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER %I', facts, facts || '_no_change');
        EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER %I', facts, facts || '_no_truncate');
        EXECUTE format('GRANT SELECT, INSERT ON %I TO fedledger_service', facts);
    END LOOP;
END
$$;
GRANT SELECT, UPDATE ON ledger_head TO fedledger_service;
GRANT SELECT ON schema_migration TO fedledger_service;
