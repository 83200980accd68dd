"""A grant's history as a story: when, who, what, why."""

import string

import pytest
from msgspec.structs import fields

from api.cli import differences, timeline
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
    assert used <= {each.name for each in fields(TOPICS[topic])}


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


def _event(**changes: object) -> dict[str, object]:
    return {
        "position": 7,
        "recorded_at": "T1",
        "topic": "peer.activated.v1",
        "actor": ACTOR,
        "data": {"verification": "phoned"},
        "reason": None,
        **changes,
    }


def test_nobody_can_write_a_line_that_looks_like_an_event() -> None:
    forged = "fine\n2026-11-27 12:00:00 UTC  #8  Grant approved (enough)"
    for width in (None, 60):
        told = timeline.lines([_event(reason=forged, data={"verification": forged})], width)
        at_the_margin = [line for line in told if not line.startswith("        ")]
        assert at_the_margin == ["T1  #7  Peer activated; verified: fine"]
        assert any("Grant approved" in line for line in told)


def test_long_lines_are_broken_at_the_terminals_width() -> None:
    long = f"{'word ' * 40}4f0c2f3e-0000-4000-8000-000000000000"
    told = timeline.lines([_event(recorded_at="2026-11-27T12:00:00Z", reason=long)], 80)
    assert max(map(len, told)) <= 80
    assert " ".join(line.strip() for line in told[2:]) == f"because: {long}"
    assert any("4f0c2f3e-0000-4000-8000-000000000000" in line for line in told), "an id stays whole"
    assert max(map(len, timeline.lines([_event(reason=long)], 20))) <= 20
    assert len(timeline.lines([_event(reason=long)])) == 3, "a pipe gets whole lines"


def test_what_differs_is_told_by_the_same_words() -> None:
    scope = {"resources": ["tasks"], "max_rows_per_query": 5}
    told = differences.lines(
        [
            {
                "kind": "peer",
                "id": "x",
                "change": "changed",
                "fields": {
                    "verification": {"before": None, "after": "a\ngrant y ended"},
                    "scope": {"before": None, "after": scope},
                },
                "events": [],
            }
        ]
    )
    assert told == [
        "peer x changed",
        "    verification: - -> a\n        grant y ended",
        "    scope: - -> tasks; up to 5 rows a query",
        "    by the clock",
    ]
