"""What is kept of folded states: the last of each stream, and only so many."""

from uuid import uuid4

from ledger.remembering import Remembered


def test_the_last_state_of_a_stream_is_kept() -> None:
    kept, stream = Remembered(), uuid4()
    assert kept.get(stream) is None
    kept.keep(stream, "first")
    kept.keep(stream, "second")
    assert kept.get(stream) == "second"


def test_the_one_unused_for_longest_is_forgotten() -> None:
    kept, used, unused, new = Remembered(most=2), uuid4(), uuid4(), uuid4()
    kept.keep(used, "used")
    kept.keep(unused, "unused")
    kept.get(used)
    kept.keep(new, "new")
    assert [kept.get(one) for one in (used, unused, new)] == ["used", None, "new"]
