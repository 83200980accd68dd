"""Every code with which a rule says no, for programs, documentation and tests: one table.

It decides nothing: each rule raises its own error, with a text that says what to do next. A test
compares this table with the sources, so a code can neither be forgotten here nor die unnoticed.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

REFUSALS: Final[Mapping[str, str]] = MappingProxyType(
    {
        # Not well formed (InvalidError, 422).
        "alarm-kind": "An alarm's kind is not 1 to 64 lower-case letters, digits and hyphens.",
        "authority-chain": "An authority was adopted without a chain.",
        "base-url": "A peer's base URL is not a plain https URL.",
        "credential-ttl": "A credential's life is not between 0 seconds and 366 days.",
        "empty-validity": "A grant would expire before it becomes valid.",
        "expires-in-past": "A grant's expiry is not in the future.",
        "expires-too-late": "A grant's expiry is later than the policy's max_grant_days allow.",
        "hold-means-suspend": "A single certificate cannot be put on hold; suspend its grant.",
        "key-digest": "A key digest is not 64 lower-case hex digits.",
        "peer-name": "A peer's name has a character, start or length that names cannot have.",
        "policy-field": "A policy field is unknown or its value outside the limits.",
        "reason-required": "This command takes a reason.",
        "reason-too-long": "The reason is longer than 2000 characters.",
        "roles": "An operator's roles are none, or not all known.",
        "subject-user-id": "The subject user id has a character or length it cannot have.",
        "token-ttl": "An enrollment token's life is not between 0 seconds and 7 days.",
        "verification-required": "It is not said what was verified about the peer.",
        # Not in the present state (RefusedError, 409).
        "access-log-shrunk": "The access log is shorter than a recorded checkpoint of it.",
        "alarm-acknowledged": "The alarm was acknowledged before.",
        "already-approved": "This person's approval counts already; another one is needed.",
        "already-created": "The database holds a ledger already.",
        "approval-not-needed": "The grant does not wait for an approval.",
        "authority-differs": "The authority's id stands for another chain, or is retired.",
        "authority-expiring": "The authority's own certificate ends within 5 minutes.",
        "certificate-expired": "An expired certificate cannot be renewed; enroll again.",
        "certificate-not-revoked": "The authority is told of revocations only.",
        "claim-taken": "Something that may exist once only exists already.",
        "grant-expiring": "Under 5 minutes are left for a certificate.",
        "grant-pending-approval": "The grant's present terms lack an approval that counts now.",
        "grant-pending-enrollment": "The peer has not enrolled yet.",
        "grant-suspended": "The grant or its peer is suspended.",
        "key-compromised": "The key was in a compromised certificate; a new key is needed.",
        "key-not-new": "A renewal takes a key that is in no other certificate.",
        "key-taken": "The key belongs to another grant; a new key is needed.",
        "last-holder": "The last enabled admin or approver cannot be disabled or relieved.",
        "not-yet-valid": "The grant's not_before has not come.",
        "nothing-to-amend": "The terms named are the grant's present ones.",
        "nothing-to-narrow": "Nothing would become smaller.",
        "operator-disabled": "The operator is disabled for good.",
        "order-mismatch": "Looked-up rows and folded events disagree about a certificate.",
        "peer-has-live-grants": "The peer has live grants (`grants`), and the call does not say to "
        "revoke them.",
        "peer-name-taken": "A peer of this name was registered before; names are never reused.",
        "peer-not-active": "The peer is not active.",
        "peer-wrong-state": "The peer's state does not allow the command.",
        "renewal-too-early": "Two thirds of the certificate's life are not over (`renew_after`).",
        "separation-of-duties": "Nobody holds both admin and approver.",
        "terms-changed": "The terms named are not the grant's present ones (`terms_digest`).",
        "token-redeemed": "The token was redeemed; revoke what came of it.",
        "widening-requires-new-grant": "The change would widen the grant (`widened`).",
        "wrong-status": "The grant's stored status does not allow the command.",
        # Withdrawn for good (GoneError 410 for peers, RefusedError 409 for commands).
        "certificate-revoked": "The certificate was revoked.",
        "grant-expired": "The grant has expired.",
        "grant-rejected": "The grant was rejected.",
        "grant-revoked": "The grant or its peer was revoked.",
        "revoked-in-flight": "The right went while the certificate was made; it is withheld.",
        # Not this caller (UnauthorizedError 401, ForbiddenError 403).
        "clone-suspected": "Two parties seem to hold this certificate's key; grant suspended.",
        "forbidden": "The caller's roles do not allow this (`roles` would).",
        "four-eyes": "Who proposed or amended a grant cannot approve it.",
        "unauthorized": "The credential, token or certificate is not valid.",
        # Elsewhere.
        "authority-unavailable": "The signing authority cannot be asked.",
        "crl-by-authority": "That authority signs elsewhere; no revocation list is published here.",
        "issuance-failed": "The authority did not issue; the same request starts anew.",
        "mis-issued": "The authority returned another certificate than ordered.",
        "not-found": "No such thing, or not the caller's.",
    }
)
"""Code → what it means. The error raised with it carries a text that says what to do next."""
