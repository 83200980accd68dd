-- Current state: tables that can be thrown away and folded again from the events.
-- Every row is a pure function of one stream; no foreign keys, so that a rebuild can swap one table.

CREATE TYPE peer_state AS ENUM ('pending', 'active', 'suspended', 'revoked');
CREATE TYPE grant_status AS ENUM (
    'pending_approval', 'pending_enrollment', 'active', 'suspended', 'expired', 'revoked', 'rejected'
);

CREATE TABLE federation_peers (
    id            uuid        NOT NULL PRIMARY KEY,
    version       bigint      NOT NULL,
    name          text        NOT NULL,
    base_url      text        NOT NULL,
    state         peer_state  NOT NULL,
    verification  text,
    registered_at timestamptz NOT NULL,
    activated_at  timestamptz,
    suspended_at  timestamptz,
    revoked_at    timestamptz,
    changed_at    timestamptz NOT NULL
);
CREATE INDEX federation_peers_name ON federation_peers (lower(name));

CREATE TABLE federation_grants (
    id                 uuid         NOT NULL PRIMARY KEY,
    version            bigint       NOT NULL,
    peer_id            uuid         NOT NULL,
    subject_user_id    text         NOT NULL,
    status             grant_status NOT NULL,
    scope              jsonb        NOT NULL,
    sensitive          boolean      NOT NULL,
    not_before         timestamptz  NOT NULL,
    expires_at         timestamptz  NOT NULL,
    terms_digest       text         NOT NULL,
    proposed_by        text         NOT NULL,
    proposed_at        timestamptz  NOT NULL,
    approvals          jsonb        NOT NULL,   -- [{"approver", "at", "lapses_at"}], one per person
    clone_suspected    boolean      NOT NULL,
    activated_at       timestamptz,
    ended_at           timestamptz,
    changed_at         timestamptz  NOT NULL
);
-- Lists are newest first; a grant keeps the moment it was proposed, so pages stay where they are.
CREATE INDEX federation_grants_proposed_at ON federation_grants (proposed_at, id);
CREATE INDEX federation_grants_peer ON federation_grants (peer_id, proposed_at, id);
CREATE INDEX federation_grants_subject ON federation_grants (subject_user_id, proposed_at, id);
CREATE INDEX federation_grants_live ON federation_grants (expires_at)
    WHERE status NOT IN ('expired', 'revoked', 'rejected');

CREATE TABLE federation_enrollment_tokens (
    accessor     text        NOT NULL PRIMARY KEY,
    grant_id     uuid        NOT NULL,
    token_sha256 text        NOT NULL,
    state        text        NOT NULL CHECK (state IN ('issued', 'redeemed', 'cancelled', 'locked')),
    expires_at   timestamptz NOT NULL,
    key_digest   text,
    issued_at    timestamptz NOT NULL,
    changed_at   timestamptz NOT NULL
);
CREATE INDEX federation_enrollment_tokens_grant ON federation_enrollment_tokens (grant_id, accessor);

-- One row per authorized issuance, so also the serials that never became a certificate.
CREATE TABLE federation_certificates (
    serial             text        NOT NULL PRIMARY KEY,
    grant_id           uuid        NOT NULL,
    issuance_id        uuid        NOT NULL,
    state              text        NOT NULL CHECK (state IN ('authorized', 'issued', 'failed', 'abandoned')),
    kind               text        NOT NULL,
    generation         integer     NOT NULL,
    accessor           text,
    predecessor        text,
    authority_id       uuid        NOT NULL,
    key_digest         text        NOT NULL,
    csr_sha256         text        NOT NULL,
    not_before         timestamptz NOT NULL,
    not_after          timestamptz NOT NULL,
    certificate        bytea,                  -- DER, only what was issued as authorized
    certificate_sha256 text,
    tbs_sha256         text,
    authorized_at      timestamptz NOT NULL,
    closed_at          timestamptz,            -- issued, failed or abandoned then
    failure            text,
    mis_issued         boolean     NOT NULL,
    revoked_at         timestamptz,            -- the certificate's own revocation
    revocation_reason  text,
    revocation_detail  text,
    authority_told     text
);
CREATE INDEX federation_certificates_authorized_at ON federation_certificates (authorized_at, serial);
CREATE INDEX federation_certificates_grant ON federation_certificates (grant_id, authorized_at, serial);
CREATE INDEX federation_certificates_key ON federation_certificates (key_digest);
CREATE INDEX federation_certificates_tbs ON federation_certificates (tbs_sha256) WHERE tbs_sha256 IS NOT NULL;
CREATE INDEX federation_certificates_not_after ON federation_certificates (not_after);
CREATE INDEX federation_certificates_open ON federation_certificates (authorized_at) WHERE state = 'authorized';

CREATE TABLE federation_operators (
    id            uuid        NOT NULL PRIMARY KEY,
    version       bigint      NOT NULL,
    kind          text        NOT NULL CHECK (kind IN ('person', 'machine')),
    roles         jsonb       NOT NULL,
    enabled       boolean     NOT NULL,
    registered_at timestamptz NOT NULL,
    changed_at    timestamptz NOT NULL
);

CREATE TABLE federation_credentials (
    accessor     text        NOT NULL PRIMARY KEY,
    operator_id  uuid        NOT NULL,
    token_sha256 text        NOT NULL,
    expires_at   timestamptz NOT NULL,
    issued_at    timestamptz NOT NULL,
    revoked_at   timestamptz
);
CREATE INDEX federation_credentials_operator ON federation_credentials (operator_id, accessor);

CREATE TABLE federation_policy (
    id                 uuid        NOT NULL PRIMARY KEY,
    version            bigint      NOT NULL,
    four_eyes          boolean     NOT NULL,
    required_approvals integer     NOT NULL,
    approval_days      integer     NOT NULL,
    max_grant_days     integer     NOT NULL,
    certificate_ttl    integer     NOT NULL,   -- seconds
    token_ttl          integer     NOT NULL,   -- seconds
    changed_at         timestamptz NOT NULL
);

CREATE TABLE federation_authorities (
    id          uuid        NOT NULL PRIMARY KEY,
    version     bigint      NOT NULL,
    kind        text        NOT NULL,
    chain       jsonb       NOT NULL,          -- base64 DER, the issuing certificate first
    not_after   timestamptz NOT NULL,
    adopted_at  timestamptz NOT NULL,
    retired_at  timestamptz
);

CREATE TABLE federation_alarms (
    id                   uuid        NOT NULL PRIMARY KEY,
    version              bigint      NOT NULL,
    kind                 text        NOT NULL,
    about                jsonb       NOT NULL,
    detail               text        NOT NULL,
    raised_at            timestamptz NOT NULL,
    raised_by            text        NOT NULL,
    acknowledged_at      timestamptz,
    acknowledged_by      text,
    acknowledged_because text
);
CREATE INDEX federation_alarms_raised_at ON federation_alarms (raised_at, id);
CREATE INDEX federation_alarms_open ON federation_alarms (raised_at, id) WHERE acknowledged_at IS NULL;

-- Failed redemptions, one row per note: counts towards a token's lock.
CREATE TABLE federation_enrollment_rejections (
    id         uuid        NOT NULL PRIMARY KEY,
    cause      text        NOT NULL,
    accessor   text,
    source     text,
    grant_id   uuid,
    count      bigint      NOT NULL,
    at         timestamptz NOT NULL
);
CREATE INDEX federation_enrollment_rejections_accessor ON federation_enrollment_rejections (accessor) WHERE accessor IS NOT NULL;

GRANT SELECT, INSERT, UPDATE ON
    federation_peers, federation_grants, federation_enrollment_tokens, federation_certificates,
    federation_operators, federation_credentials, federation_policy, federation_authorities,
    federation_alarms, federation_enrollment_rejections
TO fedledger_service;
