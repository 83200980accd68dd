"""The adapter to step-ca against our own small fake: the contract, and answers nobody can ask for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ca.step_ca import StepCaAuthority
from support.authority_contract import StepCaContract
from support.fake_step_ca import FakeStepCa, fake_step_ca


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeStepCa]:
    with fake_step_ca(tmp_path) as fake:
        yield fake


class TestFakeStepCa(StepCaContract):
    @pytest.fixture
    def server(self, server: FakeStepCa) -> FakeStepCa:
        return server

    @pytest.fixture
    def authority(self, server: FakeStepCa, tmp_path: Path) -> Iterator[StepCaAuthority]:
        authority = server.authority(tmp_path / "authority")
        yield authority
        authority.client.close()
