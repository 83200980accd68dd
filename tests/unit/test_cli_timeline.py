"""A grant's history as a story: when, who, what, why."""

import string

import pytest

from api.cli import timeline
from ledger.events import TOPICS

ACTOR = {
    "kind": "operator",
    "id": "4f0c2f3e-0000-4000-8000-000000000000",
    "roles": ["admin"],
    "auth": "bearer",
    "credential": "abcdefghijklmnop",
    "source": "127.0.0.1",
}


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_has_a_sentence_that_uses_only_its_own_facts(topic: str) -> None:
    used = {name for _, name, _, _ in string.Formatter().parse(timeline.SENTENCES[topic]) if name}
    assert used <= TOPICS[topic].model_fields.keys()


def test_no_sentence_is_left_for_a_topic_that_does_not_exist() -> None:
    assert timeline.SENTENCES.keys() == TOPICS.keys()


def test_an_event_is_told_with_time_position_actor_and_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timeline, "when", lambda text: text)
    told = timeline.lines(
        [
            {
                "position": 12,
                "recorded_at": "T1",
                "topic": "grant.proposed.v1",
                "actor": ACTOR,
                "reason": "merger\x1b[2J",
                "data": {
                    "subject_user_id": "user-42",
                    "scope": {
                        "resources": ["tasks", "credentials"],
                        "excluded_resources": ["memory"],
                        "filters": {
                            "tasks": {"include_teams": ["blue"], "include_personal": False}
                        },
                        "max_rows_per_query": 100,
                    },
                    "not_before": "T2",
                    "expires_at": "T3",
                },
            }
        ]
    )
    assert told == [
        (
            "T1  #12  Grant proposed for user user-42: tasks, credentials; not memory; "
            "tasks: no personal, blue; up to 100 rows a query; valid T2 to T3"
        ),
        "         by operator 4f0c2f3e (admin) from 127.0.0.1",
        "         because: merger\\x1b[2J",
    ]


def test_a_peer_is_named_with_what_it_showed() -> None:
    actor = {"kind": "peer", "id": "x", "auth": "enrollment-token", "credential": "acc"}
    assert timeline.who(actor) == "peer x with enrollment-token acc"


def test_a_later_releases_event_is_told_by_its_name() -> None:
    assert timeline.sentence("grant.painted.v1", {"colour": "red"}) == (
        "grant.painted.v1 colour: red"
    )


def test_digests_are_shortened_and_switches_spelled_out() -> None:
    assert timeline.sentence(
        "grant.approved.v1", {"terms_digest": "ab" * 32, "sufficient": False}
    ) == ("Grant approved (more needed), terms abababababab…")
