"""What doctor says about one thing. It looks at nothing itself."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `hint` is the next step, empty when nothing is to be done."""

    id: str
    status: Status
    detail: str
    hint: str = ""
