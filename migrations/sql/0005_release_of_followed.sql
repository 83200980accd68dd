-- Of which release's content the tables are that are filled after the commit, as the head row says of the
-- others: no other release writes them or reads the past from them.
ALTER TABLE projection_progress ADD COLUMN release integer NOT NULL DEFAULT 1;
