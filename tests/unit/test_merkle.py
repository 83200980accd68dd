"""The tree against a slow textbook twin, published vectors and golden roots."""

import base64
import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.tlog.merkle import (
    EMPTY_ROOT,
    Frontier,
    Node,
    ProofError,
    root_of,
    root_of_subtrees,
    verify_consistency,
    verify_inclusion,
)

VECTORS = Path(__file__).resolve().parents[2].parent / "shared" / "vectors" / "merkle.json"
"""transparency-dev/merkle's proof cases; they lie beside the project and are not part of it."""

LEAVES = [sha256(b"\x00" + str(number).encode()).digest() for number in range(1000)]

GOLDEN_ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "db3426e878068d28d269b6c87172322ce5372b65756d0789001d34835f601c03",
    2: "cb00989d94a569c0a678ae042b63dcd4625db96440517f37a6eb7976ea24ed4b",
    3: "725d5230db68f557470dc35f1d8865813acd7ebb07ad152774141decbae71327",
    7: "a3e23b32ccb6bf96d092d165d8aa546e09829de8f03b0e8957581d1e16b92bdf",
    8: "3b85a9626c1ccb64c6b95ec7fa64888defe2cf12e39e77e10812ce5fcb9cb58e",
    255: "32f85bcaa87d7bcd05728f09e9aeba350ba6a2f733830087f0597682848be5cb",
    256: "828515d033c19d8c901f37eccb8aed919667703486f8d2fff1cf7040321c5db1",
    257: "1eda049a4351d86f76252bd7ec0b7746ad75b7fa0316ad5f541dbda458a312c4",
    1000: "638afa98022925bacfddadb15ef22fd0199c1ac99c2973b6158243d13fce05c2",
}


# ---- RFC 6962 §2.1 as it stands there: slow, recursive, nothing shared with the code under test --


def textbook_root(leaves: Sequence[bytes]) -> bytes:
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = _split(len(leaves))
    return sha256(b"\x01" + textbook_root(leaves[:k]) + textbook_root(leaves[k:])).digest()


def textbook_path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = _split(len(leaves))
    if m < k:
        return [*textbook_path(m, leaves[:k]), textbook_root(leaves[k:])]
    return [*textbook_path(m - k, leaves[k:]), textbook_root(leaves[:k])]


def textbook_proof(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    return _subproof(m, leaves, whole=True)


def _subproof(m: int, leaves: Sequence[bytes], *, whole: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if whole else [textbook_root(leaves)]
    k = _split(len(leaves))
    if m <= k:
        return [*_subproof(m, leaves[:k], whole=whole), textbook_root(leaves[k:])]
    return [*_subproof(m - k, leaves[k:], whole=False), textbook_root(leaves[:k])]


def _split(size: int) -> int:
    k = 1
    while k * 2 < size:
        k *= 2
    return k


def shown(check: Callable[[], None]) -> bool:
    try:
        check()
    except ProofError:
        return False
    return True


# ---- roots -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "root"), GOLDEN_ROOTS.items())
def test_golden_roots(size: int, root: str) -> None:
    assert root_of(LEAVES[:size]).hex() == root == textbook_root(LEAVES[:size]).hex()


def test_every_size_has_the_textbook_root_and_can_be_taken_up_again() -> None:
    tree = Frontier()
    for size in range(300):
        assert tree.root() == textbook_root(LEAVES[:size])
        tree = Frontier(size, tree.edge())
        tree.append(LEAVES[size])


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=80), st.integers(0, 4))
def test_the_root_from_subtrees_is_that_from_leaves(leaves: list[bytes], level: int) -> None:
    """Whatever of the tree's left side is given as complete subtrees of one level."""
    width = 1 << level
    whole = len(leaves) // width
    subtrees = [
        (level, textbook_root_of_nodes(leaves[i * width : (i + 1) * width])) for i in range(whole)
    ]
    rest = [(0, leaf) for leaf in leaves[whole * width :]]
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    assert root_of_subtrees([*subtrees, *rest]) == frontier.root()


def textbook_root_of_nodes(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf *hashes*, halved at every step."""
    if len(leaves) == 1:
        return leaves[0]
    half = len(leaves) // 2
    left, right = textbook_root_of_nodes(leaves[:half]), textbook_root_of_nodes(leaves[half:])
    return sha256(b"\x01" + left + right).digest()


def test_a_copy_is_independent() -> None:
    tree = Frontier()
    tree.append(LEAVES[0])
    copy = tree.copy()
    copy.append(LEAVES[1])
    assert (tree.size, tree.root()) == (1, LEAVES[0])


@pytest.mark.parametrize(("size", "edge"), [(-1, b""), (0, bytes(32)), (3, bytes(32)), (1, b"x")])
def test_an_edge_of_another_size_is_refused(size: int, edge: bytes) -> None:
    with pytest.raises(ValueError, match="edge"):
        Frontier(size, edge)


def test_completed_subtrees_are_told_at_levels_8_16_24() -> None:
    tree, nodes = Frontier(), list[Node]()
    for leaf in LEAVES[:600]:
        nodes += tree.append(leaf)
    assert nodes == [
        Node(8, number, textbook_root(LEAVES[256 * number : 256 * (number + 1)]))
        for number in range(2)
    ]
    # The other levels by a tree of equal leaves just short of them.
    same = [LEAVES[0]]
    for _ in range(24):
        same.append(sha256(b"\x01" + same[-1] + same[-1]).digest())
    almost = Frontier(2**24 - 1, b"".join(reversed(same[:24])))
    assert almost.append(LEAVES[0]) == [
        Node(8, 2**16 - 1, same[8]),
        Node(16, 2**8 - 1, same[16]),
        Node(24, 0, same[24]),
    ]


# ---- proofs ----------------------------------------------------------------------------------


def test_every_inclusion_in_small_trees() -> None:
    for size in range(1, 40):
        root = textbook_root(LEAVES[:size])
        for index in range(size):
            proof = textbook_path(index, LEAVES[:size])
            verify_inclusion(index, size, LEAVES[index], proof, root)


def test_every_consistency_of_small_trees() -> None:
    for size2 in range(40):
        root2 = textbook_root(LEAVES[:size2])
        for size1 in range(size2 + 1):
            proof = textbook_proof(size1, LEAVES[:size2]) if size1 else []
            verify_consistency(size1, size2, proof, textbook_root(LEAVES[:size1]), root2)


@given(st.data())
def test_no_changed_inclusion_proof_is_accepted(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 64))
    index = data.draw(st.integers(0, size - 1))
    leaves, root = LEAVES[:size], textbook_root(LEAVES[:size])
    proof = textbook_path(index, leaves)
    wrong = data.draw(
        st.sampled_from(
            [
                (index, size, LEAVES[999], proof, root),
                (index, size, leaves[index], proof, LEAVES[999]),
                (index, size, leaves[index], [*proof, root], root),
                (index, size, leaves[index], [LEAVES[999], *proof[1:]], root)
                if proof
                else (1, 1, leaves[0], [], root),
                (index, size, leaves[index], proof[:-1], root)
                if proof
                else (0, 2, leaves[0], [], root),
                ((index + 1) % size, size, leaves[index], proof, root)
                if size > 1
                else (-1, 1, leaves[0], [], root),
                (index, size, leaves[index], [*proof[:-1], b"short"], root),
                (index, size, leaves[index][:31], proof, root),
            ]
        )
    )
    with pytest.raises(ProofError):
        verify_inclusion(*wrong)


@given(st.data())
def test_no_changed_consistency_proof_is_accepted(data: st.DataObject) -> None:
    size2 = data.draw(st.integers(2, 64))
    size1 = data.draw(st.integers(1, size2 - 1))
    root1, root2 = textbook_root(LEAVES[:size1]), textbook_root(LEAVES[:size2])
    proof = textbook_proof(size1, LEAVES[:size2])
    changes: list[tuple[int, int, list[bytes], bytes, bytes]] = [
        (size1, size2, proof, LEAVES[999], root2),
        (size1, size2, proof, root1, LEAVES[999]),
        (size1, size2, [*proof, root1], root1, root2),
        (size1, size2, proof[:-1], root1, root2),
        (size1, size2, [LEAVES[999], *proof[1:]], root1, root2),
        (size2 + 1, size2, proof, root1, root2),
        (size2, size2, [], root1, root2),
        (0, size2, [], root1, root2),
        (0, size2, proof, EMPTY_ROOT, root2),
        (-1, size2, proof, root1, root2),
    ]
    with pytest.raises(ProofError):
        verify_consistency(*data.draw(st.sampled_from(changes)))


def test_published_vectors(capsys: pytest.CaptureFixture[str]) -> None:
    """196 cases. On a bare checkout they are not there; the twin above then stands alone."""
    if not VECTORS.exists():
        with capsys.disabled():
            print("\nATTENTION: RFC 6962 vectors not found beside the project; not checked")
        return
    cases = json.loads(VECTORS.read_text())
    assert len(cases["inclusion"]) + len(cases["consistency"]) == 196
    for case in cases["inclusion"]:
        assert shown(lambda case=case: verify_inclusion(*_inclusion(case))) is not case["wantErr"]
    for case in cases["consistency"]:
        assert (
            shown(lambda case=case: verify_consistency(*_consistency(case))) is not case["wantErr"]
        )


def _inclusion(case: dict[str, Any]) -> tuple[int, int, bytes, list[bytes], bytes]:
    return (
        case["leafIdx"],
        case["treeSize"],
        _octets(case["leafHash"]),
        _proof(case),
        _octets(case["root"]),
    )


def _consistency(case: dict[str, Any]) -> tuple[int, int, list[bytes], bytes, bytes]:
    return (
        case["size1"],
        case["size2"],
        _proof(case),
        _octets(case["root1"]),
        _octets(case["root2"]),
    )


def _proof(case: dict[str, Any]) -> list[bytes]:
    return [_octets(step) for step in case["proof"] or []]


def _octets(text: str | None) -> bytes:
    return base64.b64decode(text or "")
