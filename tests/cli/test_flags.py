"""The letters of `mtorrctl peers`, as people know them from other clients."""

from __future__ import annotations

import pytest

from mtorrctl.commands.torrents import PEER_COLUMNS

flags = next(column.value for column in PEER_COLUMNS if column.head == "FLAGS")

RESTING = {"am_interested": False, "peer_choking": True, "peer_interested": False, "am_choking": True}


@pytest.mark.parametrize(
    ("row", "letters"),
    [
        ({}, ""),
        ({"am_interested": True}, "d"),
        ({"am_interested": True, "peer_choking": False}, "D"),
        ({"peer_interested": True}, "u"),
        ({"peer_interested": True, "am_choking": False}, "U"),
        ({"peer_choking": False}, "K"),
        ({"am_choking": False}, "?"),
        (
            {
                "am_interested": True,
                "peer_choking": False,
                "peer_interested": True,
                "am_choking": False,
                "optimistic": True,
                "snubbed": True,
                "incoming": True,
                "source": "pex",
            },
            "DUOSIX",
        ),
        ({"source": "lsd"}, "L"),
        ({"source": "dht"}, "H"),
        ({"source": "tracker"}, ""),
    ],
)
def test_flags(row: dict[str, object], letters: str) -> None:
    assert flags({**RESTING, **row}) == letters
