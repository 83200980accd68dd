"""The Merkle tree of RFC 6962: its right edge, its roots, and the checking of proofs.

It stores nothing and builds no proofs: who keeps the subtree roots is not its business.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final, NamedTuple, Self

HASH_SIZE: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()


class ProofError(ValueError):
    """A proof does not show what it was given for."""


class Node(NamedTuple):
    """The root of a complete subtree of 2^level leaves, the number-th of its level (from 0)."""

    level: int
    number: int
    hash: bytes


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 ‖ left ‖ right), RFC 6962 §2.1."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a tree: the roots of its complete subtrees, largest first.

    All that is needed to append leaves and to know the root; one hash per 1 bit of the size.
    """

    __slots__ = ("_edge", "size")

    def __init__(self, size: int = 0, edge: bytes = b"") -> None:
        """Take up the edge written by `edge()` of a tree with `size` leaves.

        Raises:
            ValueError: the edge's length is not that of a tree of this size.
        """
        if size < 0 or len(edge) != HASH_SIZE * size.bit_count():
            raise ValueError("this edge does not belong to a tree of this size")
        self.size = size
        self._edge = [edge[i : i + HASH_SIZE] for i in range(0, len(edge), HASH_SIZE)]

    def copy(self) -> Self:
        made = type(self)()
        made.size, made._edge = self.size, self._edge.copy()  # noqa: SLF001 - of our own class
        return made

    def edge(self) -> bytes:
        return b"".join(self._edge)

    def append(self, leaf: bytes) -> list[Node]:
        """Add one leaf hash; return the roots it completed at levels 8, 16, 24 …, lowest first."""
        completed: list[Node] = []
        bits, level, node = self.size, 0, leaf
        while bits & 1:
            node = node_hash(self._edge.pop(), node)
            bits >>= 1
            level += 1
            if level % 8 == 0:
                completed.append(Node(level, self.size >> level, node))
        self._edge.append(node)
        self.size += 1
        return completed

    def root(self) -> bytes:
        """Return the root of the whole tree, 32 bytes."""
        if not self._edge:
            return EMPTY_ROOT
        root = self._edge[-1]
        for left in reversed(self._edge[:-1]):
            root = node_hash(left, root)
        return root


def root_of_subtrees(subtrees: Iterable[tuple[int, bytes]]) -> bytes:
    """Return the root of a tree given as (level, root) of complete subtrees, left to right.

    Levels never rise from one to the next. Gives what a `Frontier` of the same leaves gives.
    """
    edge: list[tuple[int, bytes]] = []
    for level, node in subtrees:
        while edge and edge[-1][0] == level:
            node = node_hash(edge.pop()[1], node)
            level += 1
        edge.append((level, node))
    if not edge:
        return EMPTY_ROOT
    root = edge[-1][1]
    for _, left in reversed(edge[:-1]):
        root = node_hash(left, root)
    return root


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Return the root over leaf hashes."""
    tree = Frontier()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()


def verify_inclusion(
    index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that `leaf` is the index-th (from 0) of the tree with `size` leaves and this root.

    RFC 9162 §2.1.3.2, which spells out the check for RFC 6962 proofs.

    Raises:
        ProofError: it is not shown.
    """
    if not 0 <= index < size:
        raise ProofError("the index is outside the tree")
    _sizes_of((leaf, root, *proof))
    position, last, node = index, size - 1, leaf
    for step in proof:
        if last == 0:
            raise ProofError("the proof is too long")
        if position & 1 or position == last:
            node = node_hash(step, node)
            position, last = _up(position, last)
        else:
            node = node_hash(node, step)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise ProofError("the proof is too short")
    if node != root:
        raise ProofError("the proof leads to another root")


def verify_consistency(
    size1: int, size2: int, proof: Sequence[bytes], root1: bytes, root2: bytes
) -> None:
    """Check that the tree (size1, root1) is the beginning of the tree (size2, root2).

    RFC 9162 §2.1.4.2. Any tree begins with the empty one: that needs no proof and takes none.

    Raises:
        ProofError: it is not shown.
    """
    if not 0 <= size1 <= size2:
        raise ProofError("the first tree is larger than the second")
    if size1 == 0:
        _verify_same(proof, root1, EMPTY_ROOT)
    if size1 == size2:
        _verify_same(proof, root1, root2)
        return
    _sizes_of((root1, root2, *proof))
    if size1 == 0:
        return
    old, new = _climb(size1, size2, proof, root1)
    if (old, new) != (root1, root2):
        raise ProofError("the proof leads to other roots")


def _climb(size1: int, size2: int, proof: Sequence[bytes], root1: bytes) -> tuple[bytes, bytes]:
    """Return the two roots a consistency proof leads to."""
    # A complete first tree is itself the proof's starting point.
    steps = [root1, *proof] if size1 & (size1 - 1) == 0 else list(proof)
    if not steps:
        raise ProofError("the proof is too short")
    position, last = size1 - 1, size2 - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise ProofError("the proof is too long")
        if position & 1 or position == last:
            old, new = node_hash(step, old), node_hash(step, new)
            position, last = _up(position, last)
        else:
            new = node_hash(new, step)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise ProofError("the proof is too short")
    return old, new


def _up(position: int, last: int) -> tuple[int, int]:
    """Skip the levels at which a node on the right edge has no sibling."""
    while position and not position & 1:
        position, last = position >> 1, last >> 1
    return position, last


def _verify_same(proof: Sequence[bytes], root: bytes, expected: bytes) -> None:
    if proof:
        raise ProofError("nothing needs proving here, so the proof must be empty")
    if root != expected:
        raise ProofError("two roots for one size")


def _sizes_of(hashes: Iterable[bytes]) -> None:
    if any(len(value) != HASH_SIZE for value in hashes):
        raise ProofError("a hash has 32 bytes")
