"""The outline of DER (X.690), read and written: where elements begin and end, within bounds.

It interprets nothing but object identifiers: no names, no keys. It exists for what a full parser does not give:
a bound on the work before it starts, and the exact bytes of a part after it.
"""

from typing import Final, NamedTuple

SEQUENCE: Final = 0x30
OCTET_STRING: Final = 0x04

_CONSTRUCTED: Final = 0x20
_HIGH_TAG: Final = 0x1F


class DerError(ValueError):
    """The bytes are not DER, or more of it than allowed. The text never echoes them."""


class Element(NamedTuple):
    """One element: its tag octet, its content, and `der`, tag and length included."""

    tag: int
    content: bytes
    der: bytes


def check_outline(der: bytes, *, max_depth: int, max_elements: int) -> None:
    """Demand exactly one SEQUENCE, definite shortest lengths, and no more depth or breadth.

    Iterative, so no nesting can exhaust the stack; linear in the number of elements.

    Raises:
        DerError: anything else.
    """
    ends: list[int] = []
    offset, elements = 0, 0
    while ends or not elements:
        tag, start, end = _header(der, offset)
        elements += 1
        if elements > max_elements or len(ends) >= max_depth:
            raise DerError("more elements or levels than allowed")
        if not ends and (tag != SEQUENCE or end != len(der)):
            raise DerError("not exactly one sequence")
        if ends and end > ends[-1]:
            raise DerError("an element is longer than what holds it")
        if tag & _CONSTRUCTED:
            ends.append(end)
            end = start
        offset = end
        while ends and ends[-1] == offset:
            ends.pop()


def children(der: bytes) -> list[Element]:
    """Return the elements inside the one constructed element that `der` is.

    Raises:
        DerError: `der` is anything else.
    """
    tag, start, end = _header(der, 0)
    if not tag & _CONSTRUCTED or end != len(der):
        raise DerError("not exactly one constructed element")
    found = []
    while start < end:
        tag, content, following = _header(der, start)
        found.append(Element(tag, der[content:following], der[start:following]))
        start = following
    return found


def split_first(content: bytes) -> tuple[Element, bytes]:
    """Return the first element in the content of one, and what follows it.

    Raises:
        DerError: there is no element.
    """
    tag, start, end = _header(content, 0)
    return Element(tag, content[start:end], content[:end]), content[end:]


def oid_text(content: bytes) -> str:
    """Return the dotted form of an object identifier (X.690 §8.19) that a parser has taken."""
    arcs = [0]
    for octet in content:
        arcs[-1] = arcs[-1] << 7 | octet & 0x7F
        if octet < 0x80:
            arcs.append(0)
    root = min(arcs[0] // 40, 2)
    return ".".join(map(str, [root, arcs[0] - 40 * root, *arcs[1:-1]]))


def only_element(der: bytes) -> Element:
    """Return the one element that `der` is.

    Raises:
        DerError: it is anything else.
    """
    tag, start, end = _header(der, 0)
    if end != len(der):
        raise DerError("not exactly one element")
    return Element(tag, der[start:end], der)


def encode(tag: int, content: bytes) -> bytes:
    """Return one element of up to 65 535 bytes of content.

    Raises:
        DerError: there are more.
    """
    if len(content) > 0xFFFF:
        raise DerError("the content is too long")
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    size = 1 if len(content) < 0x100 else 2
    return bytes([tag, 0x80 | size]) + len(content).to_bytes(size, "big") + content


def _header(der: bytes, offset: int) -> tuple[int, int, int]:
    """Return (tag, start, end) of the element at `offset`, which lies within `der`."""
    if offset + 2 > len(der) or der[offset] & _HIGH_TAG == _HIGH_TAG:
        raise DerError("truncated, or a tag that is not used here")
    length, start = der[offset + 1], offset + 2
    if length >= 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[start : start + size], "big")
        # Two octets hold 65 535, more than anything read here; the shortest form is DER's.
        if size not in (1, 2) or length < (0, 0x80, 0x100)[size]:
            raise DerError("a length is not in DER, or too large")
        start += size
    if start + length > len(der):
        raise DerError("truncated")
    return der[offset], start, start + length
