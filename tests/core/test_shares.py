"""The figures at the end of a download."""

from __future__ import annotations

import pytest

from microtorrd.core.shares import median


@pytest.mark.parametrize(
    ("values", "middle"),
    [([3.0], 3.0), ([4.0, 1.0], 2.5), ([5.0, 1.0, 3.0], 3.0), ([9.0, 1.0, 2.0, 4.0], 3.0)],
)
def test_the_median(values: list[float], middle: float) -> None:
    assert median(values) == middle
