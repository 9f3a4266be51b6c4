"""Other people's clients at a tracker of ours that asks for passkeys."""

from __future__ import annotations

import pytest

from bench.foreign import Aria2, Foreign, Libtorrent
from tests.interop.conftest import require
from tests.interop.content import MIB, make_file
from tests.interop.meeting import Meeting
from tests.interop.meetings import wait_for_foreign

KEY = "Vj3-0123456789_abcdef"


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        (Libtorrent, "http"),
        (Aria2, "http"),
        # Of the clients here only those that are built on it tell a UDP tracker the path of its URL (BEP 41).
        (Libtorrent, "udp"),
    ],
)
def test_it_finds_us_by_a_passkey(loopback_meeting: Meeting, kind: type[Foreign], scheme: str) -> None:
    require(kind)
    meeting = loopback_meeting
    users = meeting.directory / "passkeys"
    users.write_text(f"{KEY} {kind.name}\n")
    gate = meeting.daemon(
        "gate", tracker__enabled="true", tracker__bind="127.0.0.1:0", tracker__passkeys_file=users
    )
    meeting.url = f"{scheme}://127.0.0.1:{gate.call('session.stats')['tracker_port']}/announce/{KEY}"
    content = make_file(meeting.directory, 2 * MIB + 1)
    file = meeting.share(content)
    with gate.client() as notes:
        notes.subscribe(kinds=["tracker_request"])
        meeting.add(meeting.daemon("seeder"), file, "--seed", str(content))
        theirs = meeting.directory / "theirs"
        meeting.foreign(kind, file, theirs)
        wait_for_foreign(meeting, kind, content, theirs)
        while not (note := notes.next_note(30.0) or {}).get("peer_id", "").startswith(kind.peer_id_start):
            assert note, "it never announced"
        assert (note["user"], note["failure"], note["transport"]) == (kind.name, "", scheme)
