-- Lists of the past, by what few of many had.

-- Certificates that were authorized and not yet made: every one was for a moment, and hardly any at one
-- position. As of the grants that waited, the view says it as a range too, for the index that finds them.
DO $$
BEGIN
    EXECUTE 'CREATE OR REPLACE VIEW as_of.federation_certificates AS '
        || rtrim(pg_get_viewdef('as_of.federation_certificates'::regclass), '; ')
        || ' AND int8range(from_position, to_position) @> (SELECT current_setting(''fedledger.position'')::bigint)';
END
$$;
CREATE INDEX federation_certificates_history_open ON federation_certificates_history
    USING gist (int8range(from_position, to_position)) WHERE state = 'authorized';

-- What a peer had and took along when it was suspended: all it ever had, but for what had ended by then.
CREATE INDEX federation_grants_history_lasting ON federation_grants_history (peer_id, expires_at, from_position)
    WHERE status IN ('pending_approval', 'pending_enrollment', 'active', 'suspended');

-- One grant of the past, while many are looked at: the newest that was there by then comes first, and the
-- others need not be read.
ALTER TABLE federation_grants_history DROP CONSTRAINT federation_grants_history_pkey;
CREATE UNIQUE INDEX federation_grants_history_id ON federation_grants_history (id, from_position DESC);
