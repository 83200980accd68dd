"""What a process that copies for a rebuild is told, and what it refuses."""

import json
from dataclasses import asdict
from io import StringIO

import pytest

from projections import copying
from projections.copying import Errand
from projections.progress import RebuildError
from projections.registry import SOURCES

ERRAND = Errand("host=/nowhere", SOURCES[0].name, base=1, chunk=1)


def test_a_program_updated_under_a_rebuild_copies_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"errand": asdict(ERRAND), "number": 1, "built": copying._built(ERRAND.source)}
    monkeypatch.setattr("sys.stdin", StringIO(json.dumps(told) + "\n"))
    monkeypatch.setattr(copying, "RELEASE", copying.RELEASE + 1)
    assert copying.main() == 1
    name, _, text = capsys.readouterr().out.partition(" ")
    assert copying._TOLD[name] is RebuildError
    assert text.startswith("the program was updated under the rebuild")
