-- An index of the events by their words (ledger/terms.py): throw-away, filled after the commit.
-- One row per term and block of 2048 positions, so that a frequent term takes 500 rows a million
-- events, and a rare one a row per event. See docs/adr/0012-an-index-of-words.md.
CREATE TABLE event_terms (
    term      bigint  NOT NULL,   -- BLAKE2b of the term, 8 bytes; collisions are found at the body
    block     integer NOT NULL,   -- (position - 1) / 2048
    positions bytea   NOT NULL,   -- where in the block: 2 bytes each, or from 128 on a bit each
    PRIMARY KEY (term, block)
);

GRANT SELECT, INSERT, UPDATE ON event_terms TO fedledger_service;
