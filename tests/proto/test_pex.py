"""Peer exchange: both ways, as others write it, and as nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.errors import ProtocolError
from microtorrd.proto.bencode import encode
from microtorrd.proto.compact import read_host
from microtorrd.proto.pex import LISTED_MAX, MAX_BYTES, REACHABLE, SEED, PexMessage

TABLE = [
    (PexMessage(), b"de"),
    (
        PexMessage({("10.0.0.1", 258): SEED | REACHABLE}, (("10.0.0.2", 1),)),
        b"d5:added6:\x0a\0\0\1\1\x027:added.f1:\x127:dropped6:\x0a\0\0\2\0\1e",
    ),
    (
        PexMessage({("2001:db8::1", 1): 0}, (("::1", 2),)),
        b"d6:added618:" + bytes.fromhex("20010db8000000000000000000000001") + b"\0\x018:added6.f1:\0"
        b"8:dropped618:" + bytes(15) + b"\1\0\2e",
    ),
]


@pytest.mark.parametrize(("message", "raw"), TABLE)
def test_both_ways(message: PexMessage, raw: bytes) -> None:
    assert message.encode() == raw
    assert PexMessage.decode(raw) == message


def test_what_cannot_be_a_peer_is_left_out() -> None:
    raw = encode(
        {
            "added": b"\0\0\0\0\0\1"
            + b"\xe0\0\0\1\0\1"
            + b"\x0a\0\0\1\0\0"
            + b"\x0a\0\0\1\0\1" * 2
            + b"\x0a",
            "added.f": b"\1\2\3",  # not one for each
            "added6": [b"x"],
            "dropped": b"\x0a\0\0\1\0\1" + b"\x0a\0\0\3\0\1",
            "dropped6": 7,
        }
    )
    # Who was added in the same message was not dropped in it.
    assert PexMessage.decode(raw) == PexMessage({("10.0.0.1", 1): 0}, (("10.0.0.3", 1),))


def test_no_more_is_read_than_anybody_needs() -> None:
    raw = encode({"added": b"".join(b"\x0a\0" + bytes(divmod(n, 256)) + b"\0\1" for n in range(1, 999))})
    assert len(PexMessage.decode(raw).added) == LISTED_MAX


@pytest.mark.parametrize(
    "raw", [b"", b"le", b"i1e", b"d5:added", b"d5:added1:x5:added1:xe", encode({"added": bytes(MAX_BYTES)})]
)
def test_what_is_no_small_dictionary_is_a_protocol_error(raw: bytes) -> None:
    with pytest.raises(ProtocolError, match="peer exchange"):
        PexMessage.decode(raw)


KEYS = ["added", "added.f", "added6", "added6.f", "dropped", "dropped6"]
values = st.one_of(st.binary(max_size=60), st.integers(), st.lists(st.binary(max_size=6), max_size=2))


@given(st.dictionaries(st.sampled_from(KEYS), values), st.integers(0, 60), st.binary(max_size=2))
def test_only_protocol_errors_come_out(said: dict[str, object], at: int, noise: bytes) -> None:
    raw = encode(said)
    for attempt in (raw, raw[:at] + noise + raw[at + len(noise) :], noise + raw):
        try:
            message = PexMessage.decode(attempt)
        except ProtocolError:
            continue
        for host, port in (*message.added, *message.dropped):
            assert read_host(host) is not None and 0 < port < 65536
        assert not set(message.added).intersection(message.dropped)
        # What was let in can be said on.
        assert PexMessage.decode(message.encode()) == message
