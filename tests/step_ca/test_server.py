"""The real step-ca that the other tests rely on: it starts, stops, holds still, and dies."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.step_ca import StepCa, step_ca

pytestmark = pytest.mark.step_ca


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StepCa]:
    with step_ca(tmp_path) as server:
        yield server


def version(server: StepCa) -> httpx.Response:
    return httpx.get(f"{server.url}/version", verify=False, trust_env=False, timeout=1.0)


def test_it_survives_what_the_tests_do_to_it(server: StepCa) -> None:
    assert "version" in version(server).json()
    with server.held_up(), pytest.raises(httpx.TimeoutException):
        version(server)
    assert version(server).is_success
    server.restart()
    server.kill()
    with pytest.raises(httpx.ConnectError):
        version(server)
    server.start()
    assert version(server).is_success
    assert any(line.get("path") == "/version" for line in server.lines())
