"""The private server's share of the memory."""

from pathlib import Path

import pytest

from migrations import memory

GIB = 2**30


@pytest.mark.parametrize(("total", "share"), [(GIB // 2, 128), (2 * GIB, 256), (64 * GIB, 512)])
def test_an_eighth_within_limits(total: int, share: int) -> None:
    assert memory.shared_buffers(total) == share


def test_what_a_container_may_take_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_LIMIT", limit)
    without = memory.shared_buffers()
    limit.write_text("max\n")
    assert memory.shared_buffers() == without
    limit.write_text(f"{GIB}\n")
    assert memory.shared_buffers() == 128
