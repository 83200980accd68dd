"""What a documentation page tells its reader to do, taken out of it so that tests can do it."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, *kinds: str) -> list[tuple[str, str]]:
    """The (kind, text) of a page's fenced blocks, in order."""
    found = _FENCE.findall((DOCS / page).read_text())
    return [(kind, text) for kind, text in found if kind in kinds]


def shows(output: str, line: str) -> bool:
    """Whether some line of the output has the words of `line` in their order."""
    words = line.split()
    pattern = re.compile(r"(?:^|\s).*?".join(re.escape(word) for word in words))
    return any(pattern.search(one) for one in output.splitlines())
