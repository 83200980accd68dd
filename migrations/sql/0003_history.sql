-- The past: every current-state row as it was from one position to another, and how far each table
-- that is filled after the commit has come. All of it can be thrown away and folded again.
-- A new column of a current-state table is added to its history and its view in the same migration.

CREATE TABLE projection_progress (
    name     text   NOT NULL PRIMARY KEY,
    position bigint NOT NULL CHECK (position >= 0)
) WITH (fillfactor = 50);
GRANT SELECT, INSERT, UPDATE ON projection_progress TO fedledger_service;

-- The views have the tables' own names: the same SELECT reads the present, or with this schema
-- before the others in search_path the past at the position in the setting fedledger.position.
CREATE SCHEMA as_of;
GRANT USAGE ON SCHEMA as_of TO fedledger_service;

DO $$
DECLARE
    present record;
    columns text;
BEGIN
    FOR present IN SELECT * FROM (VALUES
        ('federation_peers', 'id'), ('federation_grants', 'id'),
        ('federation_enrollment_tokens', 'accessor'), ('federation_certificates', 'serial'),
        ('federation_operators', 'id'), ('federation_credentials', 'accessor'),
        ('federation_policy', 'id'), ('federation_authorities', 'id'),
        ('federation_alarms', 'id'), ('federation_enrollment_rejections', 'id')
    ) AS t (name, key) LOOP
        -- A row holds at positions from_position <= P < to_position; the last one has no end.
        -- Ends are filled in later, once, and stand in no index but of a few rows: that keeps the
        -- update in its page.
        EXECUTE format('CREATE TABLE %I (LIKE %I, from_position bigint NOT NULL, '
                       'to_position bigint NOT NULL CHECK (to_position > from_position), '
                       'PRIMARY KEY (%I, from_position)) WITH (fillfactor = 85)',
                       present.name || '_history', present.name, present.key);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON %I TO fedledger_service', present.name || '_history');
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns
        FROM pg_attribute
        WHERE attrelid = present.name::regclass AND attnum > 0 AND NOT attisdropped;
        -- In a subselect the setting is read once per statement, not once per row.
        EXECUTE format('CREATE VIEW as_of.%I AS SELECT %s FROM %I '
                       'WHERE from_position <= (SELECT current_setting(''fedledger.position'')::bigint) '
                       'AND to_position > (SELECT current_setting(''fedledger.position'')::bigint)',
                       present.name, columns, present.name || '_history');
        EXECUTE format('GRANT SELECT ON as_of.%I TO fedledger_service', present.name);
    END LOOP;
END
$$;

-- Of grants the same is said once more as a range, for the index that finds what waited then.
DO $$
BEGIN
    EXECUTE 'CREATE OR REPLACE VIEW as_of.federation_grants AS '
        || rtrim(pg_get_viewdef('as_of.federation_grants'::regclass), '; ')
        || ' AND int8range(from_position, to_position) @> (SELECT current_setting(''fedledger.position'')::bigint)';
END
$$;

CREATE INDEX federation_peers_history_name ON federation_peers_history (lower(name));
CREATE INDEX federation_grants_history_proposed_at ON federation_grants_history (proposed_at, id, from_position);
CREATE INDEX federation_grants_history_status ON federation_grants_history (status, proposed_at, id, from_position);
-- Short or rare: of all the rows with such a status hardly any holds at one position.
CREATE INDEX federation_grants_history_waiting ON federation_grants_history
    USING gist (int8range(from_position, to_position))
    WHERE status IN ('pending_approval', 'pending_enrollment', 'suspended');
CREATE INDEX federation_grants_history_from ON federation_grants_history USING brin (from_position);
CREATE INDEX federation_grants_history_peer ON federation_grants_history (peer_id, proposed_at, id, from_position);
CREATE INDEX federation_grants_history_subject ON federation_grants_history (subject_user_id, proposed_at, id, from_position);
CREATE INDEX federation_enrollment_tokens_history_grant ON federation_enrollment_tokens_history (grant_id, accessor, from_position);
CREATE INDEX federation_certificates_history_authorized_at ON federation_certificates_history (authorized_at, serial, from_position);
CREATE INDEX federation_certificates_history_grant ON federation_certificates_history (grant_id, authorized_at, serial, from_position);
CREATE INDEX federation_certificates_history_key ON federation_certificates_history (key_digest);
CREATE INDEX federation_certificates_history_tbs ON federation_certificates_history (tbs_sha256) WHERE tbs_sha256 IS NOT NULL;
CREATE INDEX federation_credentials_history_operator ON federation_credentials_history (operator_id, accessor, from_position);
CREATE INDEX federation_alarms_history_raised_at ON federation_alarms_history (raised_at, id, from_position);
CREATE INDEX federation_certificates_history_from ON federation_certificates_history USING brin (from_position);
CREATE INDEX federation_certificates_history_state ON federation_certificates_history (state, authorized_at, serial, from_position)
    WHERE state <> 'issued';
CREATE INDEX federation_certificates_history_revoked ON federation_certificates_history (authorized_at, serial, from_position)
    WHERE revoked_at IS NOT NULL;

-- Lists of the present, by what few of many have.
CREATE INDEX federation_grants_status ON federation_grants (status, proposed_at, id);
CREATE INDEX federation_certificates_state ON federation_certificates (state, authorized_at, serial)
    WHERE state <> 'issued';
CREATE INDEX federation_certificates_revoked ON federation_certificates (authorized_at, serial)
    WHERE revoked_at IS NOT NULL;
