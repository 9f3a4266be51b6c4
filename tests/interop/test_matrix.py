"""Every client that matters, every way: the matrix that `make interop` prints.

In a network of namespaces, where each has an address of its own, as on real networks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.foreign import ALL, Foreign
from tests.interop import matrix, meetings
from tests.interop.conftest import require
from tests.interop.content import MIB, make_file, make_tree
from tests.interop.meeting import Meeting

MEETINGS = {
    "downloads": (meetings.foreign_downloads, 16 * MIB + 4321),
    "seeds": (meetings.foreign_seeds, 16 * MIB + 4321),
    "our-magnet": (meetings.foreign_follows_our_magnet, 4 * MIB + 4321),
    "their-magnet": (meetings.we_follow_a_magnet, 4 * MIB + 4321),
    "mixed": (meetings.mixed_swarm, 24 * MIB + 4321),
}
MAKERS: dict[str, Callable[[Path, int], Path]] = {"file": make_file, "directory": make_tree}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.mark.parametrize("shape", matrix.SHAPES)
@pytest.mark.parametrize("role", matrix.ROLES)
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_cell(
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
    kind: type[Foreign],
    role: str,
    shape: str,
) -> None:
    record_property(matrix.PROPERTY, f"{kind.name} {role} {shape}")
    require(kind)
    meeting: Meeting = request.getfixturevalue("network_meeting")
    meet, size_bytes = MEETINGS[role]
    meet(meeting, kind, MAKERS[shape](meeting.directory, size_bytes))
    # A peer id, as `-XY1234-` or `A2-1-36-`, stands in until the peer has introduced itself.
    theirs = {name for name in meeting.seen_clients if not name.lower().startswith(("-", "a2-", "microtorr"))}
    record_property(matrix.SEEN_AS, "; ".join(sorted(theirs)))
