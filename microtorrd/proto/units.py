"""Sizes, rates and times as people write them: `64 MiB`, `3 MB/s`, `20 Mbit/s`, `15 min`.

Bytes are `B`; `kB MB GB TB` are powers of 1000, `KiB MiB GiB TiB` of 1024. Bits are spelled out (`Mbit/s`):
what could mean either, as `Mb` or a bare `M`, is refused rather than guessed. Case matters only there.
"""

from __future__ import annotations

import re

_NUMBER = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(.*?)\s*", re.ASCII)

_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_BITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_SECONDS = {"": 1, "s": 1, "ms": 0.001, "min": 60, "h": 3600, "d": 86400}

#: More than any disk or line of our days: what lies beyond is a slip of the finger.
MOST_BYTES = 2**60


def parse_size(text: str) -> int:
    """Bytes. Raises ValueError, saying what would have been right."""
    number, unit = _split(text, 'a size is a number of bytes or text such as "64 MiB"')
    return _whole(text, number * _factor(text, unit, _BYTES))


def parse_rate(text: str) -> int:
    """Bytes per second; `none` is 0, no limit. The `/s` may be left out. Raises ValueError."""
    if text.strip().lower() == "none":
        return 0
    number, unit = _split(text, 'a rate is a number of bytes per second or text such as "3 MB/s"')
    unit = unit.removesuffix("/s")
    bits = _BITS.get(unit.lower())
    return _whole(text, number * (_factor(text, unit, _BYTES) if bits is None else bits / 8))


def parse_duration(text: str) -> float:
    """Seconds. Raises ValueError, saying what would have been right."""
    number, unit = _split(text, 'a time is a number of seconds or text such as "15 min"')
    factor = _SECONDS.get(unit)
    if factor is None:
        raise ValueError(f"unit {unit!r} in {text!r} is unknown: use ms, s, min, h or d")
    return number * factor


def spell_size(size_bytes: int) -> str:
    """The shortest exact spelling with a unit, such as `64 MiB` or `3 MB`; what `parse_size` reads back."""
    for unit in ("TiB", "TB", "GiB", "GB", "MiB", "MB", "KiB", "kB"):
        if size_bytes and size_bytes % _BYTES[unit.lower()] == 0:
            return f"{size_bytes // _BYTES[unit.lower()]} {unit}"
    return f"{size_bytes} B"


def spell_duration(duration_s: float) -> str:
    """The shortest exact spelling with a unit, such as `15 min`; what `parse_duration` reads back."""
    for unit in ("d", "h", "min"):
        if duration_s and duration_s % _SECONDS[unit] == 0:
            return f"{duration_s / _SECONDS[unit]:.0f} {unit}"
    return f"{duration_s:.6f}".rstrip("0").rstrip(".") + " s"


def _split(text: str, wanted: str) -> tuple[float, str]:
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} does not begin with a number: {wanted}")
    return float(found[1]), found[2]


def _factor(text: str, unit: str, units: dict[str, int]) -> int:
    if unit == "":
        return 1
    factor = units.get(unit.lower())
    if factor is None and unit.lower() in ("k", "m", "g", "t"):
        prefix = "k" if unit.lower() == "k" else unit.upper()
        raise ValueError(f"{text!r} could mean two things: write {prefix}B (1000) or {unit.upper()}iB (1024)")
    if factor is None:
        raise ValueError(f"unit {unit!r} in {text!r} is unknown: use B, kB, MB, GB, TB, KiB, MiB, GiB or TiB")
    if re.fullmatch(r"[KMGT]b", unit):
        raise ValueError(
            f"{text!r} could mean bits or bytes: write {unit[0]}B for bytes, {unit[0]}bit for bits"
        )
    return factor


def _whole(text: str, size: float) -> int:
    if size > MOST_BYTES:
        raise ValueError(f"{text!r} is more than {spell_size(MOST_BYTES)}")
    return round(size)
