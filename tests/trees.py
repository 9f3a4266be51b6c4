"""Nested values out of one string of bytes: strategies of many small ones take long on a busy machine."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

#: Deeper ones are cut off.
DEEPEST = 6


def trees(leaves: Sequence[object], keys: Sequence[Hashable]) -> st.SearchStrategy[Any]:
    """Lists and dictionaries with these keys, in each other and with these leaves; simple ones first."""
    return st.binary(max_size=40).map(lambda raw: _tree(iter(raw), leaves, keys, 0))


def _tree(raw: Iterator[int], leaves: Sequence[object], keys: Sequence[Hashable], depth: int) -> object:
    kind, size = divmod(next(raw, 0), 4)
    if depth == DEEPEST or kind % 4 < 2:
        return leaves[next(raw, 0) % len(leaves)]
    if kind % 4 == 2:
        return [_tree(raw, leaves, keys, depth + 1) for _ in range(size)]
    return {keys[next(raw, 0) % len(keys)]: _tree(raw, leaves, keys, depth + 1) for _ in range(size + 1)}
