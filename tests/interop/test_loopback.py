"""The two clients that everybody can have, both ways, without root: found by our tracker, with our file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.foreign import Aria2, Foreign, Libtorrent
from tests.interop import meetings
from tests.interop.conftest import require
from tests.interop.content import MIB, make_file, make_tree
from tests.interop.meeting import Meeting

both_clients = pytest.mark.parametrize("kind", [Libtorrent, Aria2], ids=lambda kind: kind.name)
both_shapes = pytest.mark.parametrize("make", [make_file, make_tree])
Make = Callable[[Path, int], Path]


@both_shapes
@both_clients
def test_it_downloads_from_us(loopback_meeting: Meeting, kind: type[Foreign], make: Make) -> None:
    require(kind)
    content = make(loopback_meeting.directory, 6 * MIB + 1)
    meetings.foreign_downloads(loopback_meeting, kind, content)


@both_shapes
@both_clients
def test_it_seeds_to_us(loopback_meeting: Meeting, kind: type[Foreign], make: Make) -> None:
    require(kind)
    content = make(loopback_meeting.directory, 6 * MIB + 1)
    meetings.foreign_seeds(loopback_meeting, kind, content)
