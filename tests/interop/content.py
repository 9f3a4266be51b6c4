"""What is shared in these tests, and whether it arrived."""

from __future__ import annotations

import random
from pathlib import Path

KIB, MIB = 1 << 10, 1 << 20


def make_file(directory: Path, size_bytes: int) -> Path:
    """A file of random bytes, always the same ones."""
    path = directory / "disk image.raw"
    path.write_bytes(random.Random(size_bytes).randbytes(size_bytes))
    return path


def make_tree(directory: Path, size_bytes: int) -> Path:
    """A directory of uneven files: none and one byte long, shorter and longer than pieces, below each other,
    with names of several scripts; `size_bytes` and a few more in all."""
    chance = random.Random(size_bytes)
    root = directory / "données № 1"
    sizes = {
        "0 empty": 0,
        "1 byte": 1,
        "a/b/c/deep.bin": 300_007,
        "a/b/exactly one piece": 64 * KIB,
        "a/ключ.txt": 777,
        "last of all": 5,
        "large.bin": size_bytes * 3 // 4 + 12_345,
        "middle/雪.dat": size_bytes // 4,
        "middle/empty too": 0,
    }
    for name, size in sizes.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(size))
    return root


def difference(wanted: Path, found: Path, *, empty_too: bool = True) -> str | None:
    """The first thing that is not the same in both, or None. What is there besides does not count: clients
    keep notes of their own beside the content. `empty_too`: files without a byte must be there."""
    if wanted.is_file():
        names = [Path()]
    else:
        names = sorted(path.relative_to(wanted) for path in wanted.rglob("*") if path.is_file())
    for name in names:
        ours, theirs = wanted / name, found / name
        if not (empty_too or ours.stat().st_size):
            continue
        if not theirs.is_file():
            return f"{theirs} is missing"
        if ours.stat().st_size != theirs.stat().st_size:
            return f"{theirs} has {theirs.stat().st_size} bytes, not {ours.stat().st_size}"
        if ours.read_bytes() != theirs.read_bytes():
            return f"{theirs} has other bytes"
    return None
