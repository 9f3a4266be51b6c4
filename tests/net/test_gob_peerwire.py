"""A peer that runs the original, over real sockets: the door, the dial, the wire, what waits at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gevent
import pytest
from gevent import socket

from microtorrd.core.events import BlocksSent, StorageFailed
from microtorrd.greenlets import Crew
from microtorrd.net import outgoing
from microtorrd.net.batch import SendMemory
from microtorrd.net.dialer import Dialer, DialError
from microtorrd.net.gob_peerwire import GobPeerWire
from microtorrd.net.greeting import Joined
from microtorrd.net.listener import Listener
from microtorrd.net.peerwire import WireMemory
from microtorrd.proto import messages as m
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.gob_dialect import PIECE_END, GobEncoder, GobOpening, GobStreams
from microtorrd.rate import Limiter, TokenBucket
from tests.net.peers import PIECE_BYTES, WAIT_S, Bench, ColdFiles, Facts, HangingFiles
from tests.swarm.gob_peer import Link

ID_HASH = b"\xab" * 20
OURS = b"-MT0100-ours00000000"
THEIRS = b"an original of 20 by"


def opening_of(raw: bytes) -> GobOpening:
    opening = GobOpening()
    while not opening.done:
        raw, taken = raw[opening.wants :], raw[: opening.wants]
        opening.take(taken)
    return opening


class Pair:
    """A wire of ours, and an original at its other end."""

    def __init__(self, bench: Bench, *, buffers: int = 0, **options: Any) -> None:
        ours, theirs = bench.sockets(buffers)
        bench.ends.append(theirs)
        self.facts = Facts()
        decoder = opening_of(GobEncoder().handshake(ID_HASH, THEIRS)).decoder
        self.wire = GobPeerWire(
            sock=ours,
            peer=1,
            geometry=bench.geometry,
            post=self.facts.post,
            crew=bench.crew,
            pool=bench.pool,
            streams=GobStreams(decoder, GobEncoder()),
            **{
                "files": bench.files,
                "memory": bench.memory,
                "up": Limiter(),
                "down": Limiter(),
                **options,
            },
        )
        self.say = GobEncoder()
        self.link = Link(theirs)
        self.sock = theirs
        self.wire.start()

    def send(self, raw: bytes) -> None:
        self.sock.sendall(raw)

    def hear(self, count: int) -> list[tuple[bytes, int, bytes]]:
        with gevent.Timeout(WAIT_S):
            return [self.link.hear() for _ in range(count)]

    def serve_requests(self, count: int) -> None:
        """Be the core: let what is asked for be served."""
        self.facts.wait(lambda: len(self.facts.requests) >= count)
        self.wire.serve(self.facts.requests[:count])


@pytest.fixture
def make_pair(bench: Bench) -> Iterator[Callable[..., Pair]]:
    pairs: list[Pair] = []

    def make(**options: Any) -> Pair:
        pairs.append(Pair(bench, **options))
        return pairs[-1]

    yield make
    for pair in pairs:
        pair.wire.drop("the test is over")


def all_of(bench: Bench, *pieces: int) -> list[tuple[int, int, int]]:
    return [(piece, *block) for piece in pieces for block in bench.geometry.blocks(piece)]


def data_of(bench: Bench, piece: int) -> bytes:
    return bench.raw[piece * PIECE_BYTES : (piece + 1) * PIECE_BYTES]


def test_pieces_travel_both_ways(bench: Bench, make_pair: Callable[..., Pair]) -> None:
    pair = make_pair()
    slots = bench.slots(*all_of(bench, 1, 4))
    pair.wire.tell([m.BitfieldMessage(Bitfield(5).to_bytes()), m.Unchoke(), m.Interested(), m.Have(2)])
    pair.wire.fetch(slots)
    assert pair.hear(4) == [
        (b"Bitfield", 0, bytes(5)),
        (b"Have", 2, b""),
        (b"Request", 1, b""),
        (b"Request", 4, b""),
    ]
    pair.send(pair.say.bitfield(Bitfield(5)) + pair.say.request(3))
    for piece in (4, 1):
        data = data_of(bench, piece)
        pair.send(pair.say.piece_head(piece, len(data)) + data + PIECE_END)
    pair.facts.wait(lambda: len(pair.facts.slots) == len(slots))
    assert [bytes(slot.view) for slot in slots] == [bench.payload(*name) for name in all_of(bench, 1, 4)]
    assert pair.facts.messages == [m.BitfieldMessage(b"\0"), m.Unchoke(), m.Interested()]
    assert pair.wire.outstanding == 0
    pair.serve_requests(4)
    assert pair.hear(1) == [(b"Piece", 3, data_of(bench, 3))]
    pair.facts.wait(lambda: pair.facts.sent == 4)
    assert sum(fact.payload_bytes for fact in pair.facts.of(BlocksSent)) == PIECE_BYTES


def test_requests_wait_while_the_peer_is_choked(bench: Bench, make_pair: Callable[..., Pair]) -> None:
    pair = make_pair(up=Limiter(TokenBucket(200_000, 1)))
    for piece in (2, 0, 4):
        pair.send(pair.say.request(piece))
    pair.facts.wait(lambda: pair.facts.messages)
    assert pair.facts.requests == []
    pair.wire.tell([m.Unchoke()])
    pair.serve_requests(9)
    assert pair.facts.requests == all_of(bench, 2, 0, 4)
    pair.facts.wait(lambda: pair.facts.sent)
    pair.wire.tell([m.Choke()])  # in the middle of a piece, which is sent to its end
    pair.wire.withdraw(None, False)
    assert pair.hear(1) == [(b"Piece", 2, data_of(bench, 2))]
    assert len(pair.facts.requests) == 9
    pair.wire.tell([m.Have(1), m.Unchoke()])
    pair.facts.wait(lambda: len(pair.facts.requests) > 9)
    assert pair.facts.requests[9:] == all_of(bench, 0, 4)
    pair.wire.serve(pair.facts.requests[9:])
    assert pair.hear(3) == [
        (b"Have", 1, b""),
        (b"Piece", 0, data_of(bench, 0)),
        (b"Piece", 4, data_of(bench, 4)),
    ]


def test_what_breaks_the_protocol_ends_the_connection(make_pair: Callable[..., Pair]) -> None:
    pair = make_pair()
    pair.send(pair.say.request(5))
    left = pair.facts.left()
    assert (left.fault, left.reason) == (True, "piece 5 is outside of this torrent's 5 pieces")


def test_a_peer_that_goes_and_one_that_is_dropped(make_pair: Callable[..., Pair]) -> None:
    gone, dropped = make_pair(), make_pair()
    gone.sock.close()
    assert gone.facts.left().reason == "the other side closed the connection"
    dropped.wire.drop("enough")
    assert (dropped.facts.left().reason, dropped.facts.left().fault) == ("enough", False)
    dropped.wire.tell([m.Have(1)])
    with pytest.raises(ConnectionError):
        dropped.link.hear()


def test_a_failing_disk_is_reported(bench: Bench, make_pair: Callable[..., Pair]) -> None:
    pair = make_pair()
    bench.files.delete()
    pair.wire.serve(all_of(bench, 1))
    pair.facts.left()
    assert len(pair.facts.of(StorageFailed)) == 1


def test_pieces_of_any_size_get_through_small_buffers_and_limits(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(lengths=(700_001,))
    bench.geometry = Geometry(700_001, 300_000)
    for options in ({}, {"up": Limiter(TokenBucket(4 << 20, 1))}, {"files": bench.on_disk(1, ColdFiles)}):
        pair = Pair(bench, buffers=20_000, **options)
        pair.send(pair.say.request(2) + pair.say.request(0))
        pair.wire.tell([m.Unchoke(), m.Have(1)])
        pair.facts.wait(lambda pair=pair: pair.facts.requests)
        pair.wire.serve(pair.facts.requests)
        pair.wire.tell([m.Have(2)])
        heard = pair.hear(4)
        assert [name for name, _, _ in heard].count(b"Have") == 2
        assert [one for one in heard if one[0] == b"Piece"] == [
            (b"Piece", 2, bench.raw[600_000:]),
            (b"Piece", 0, bench.raw[:300_000]),
        ]
        pair.facts.wait(lambda pair=pair: pair.facts.sent == 7 + 19)
        assert sum(fact.payload_bytes for fact in pair.facts.of(BlocksSent)) == 400_001
        pair.wire.drop("enough")


def test_the_memory_is_that_of_all_and_who_does_not_read_holds_none(bench: Bench) -> None:
    memory = WireMemory()
    memory.send = SendMemory(1)
    deaf = Pair(bench, buffers=5_000, memory=memory)
    deaf.wire.serve(all_of(bench, 0, 1, 2))
    deaf.facts.wait(lambda: deaf.facts.sent)
    other, end, _ = bench.connect(memory=memory)
    end.expect((0, 0, 100))
    other.serve([(0, 0, 100)])
    end.hear_until(lambda heard: end.blocks)
    assert deaf.hear(3) == [(b"Piece", piece, data_of(bench, piece)) for piece in (0, 1, 2)]
    deaf.wire.drop("enough")


def test_one_that_goes_while_the_disk_reads_for_it_leaves_the_memory_alone(bench: Bench) -> None:
    memory = WireMemory()
    memory.send = SendMemory(1)
    hanging = bench.on_disk(1, HangingFiles)
    pair = Pair(bench, files=hanging, memory=memory)
    pair.wire.serve(all_of(bench, 0))
    gevent.sleep(0.01)
    assert hanging.reading == 1
    pair.wire.drop("gone")
    pair.facts.left()
    other, end, _ = bench.connect(memory=memory)
    end.expect((0, 0, 100))
    other.serve([(0, 0, 100)])
    gevent.sleep(0.01)
    assert not end.blocks and memory.send.lend(lambda: None) is None  # a thread may still write to it
    hanging.let_go()
    end.hear_until(lambda heard: end.blocks)


def test_a_long_wait_for_the_limit_does_not_keep_the_hub_busy(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "KEEP_ALIVE_S", 0.05)
    asked = 0

    class Watched(Limiter):
        def remaining(self, now: float) -> float:
            nonlocal asked
            asked += 1
            return super().remaining(now)

    pair = Pair(bench, up=Watched(TokenBucket(100, 1)))  # hours for one piece
    pair.wire.serve(all_of(bench, 0))
    gevent.sleep(0.3)
    assert 1 <= asked <= 10
    pair.wire.drop("enough")


# ---- the door


@pytest.fixture
def doors(crew: Crew) -> Iterator[tuple[Listener, list[Joined]]]:
    joined: list[Joined] = []
    listener = Listener(
        addresses=("127.0.0.1",),
        port=0,
        resolve=lambda swarm_id: swarm_id if swarm_id == ID_HASH else None,
        accept=joined.append,
        peer_id=OURS,
        crew=crew.child("door"),
    )
    listener.start()
    yield listener, joined
    listener.close()
    for each in joined:
        each.sock.close()


def test_an_original_at_the_door_is_answered_in_its_words(doors: tuple[Listener, list[Joined]]) -> None:
    listener, joined = doors
    with socket.create_connection(("127.0.0.1", listener.port)) as sock:
        link = Link(sock)
        link.greet(ID_HASH, THEIRS)
        assert link.peer_id == OURS
        with gevent.Timeout(WAIT_S):
            while not joined:
                gevent.sleep(0.001)
    (each,) = joined
    assert each.gob is not None
    assert (each.handshake.swarm_id, each.handshake.peer_id) == (ID_HASH, THEIRS)
    assert not (each.handshake.fast or each.handshake.extended)


@pytest.mark.parametrize(
    "raw",
    [
        GobEncoder().handshake(b"\xcd" * 20, THEIRS),
        GobEncoder().handshake(ID_HASH, OURS),
        GobEncoder().handshake(ID_HASH, THEIRS).replace(b"MICROTORRv1", b"MICROTORRv9"),
        b"6ff\r\n\r\n",
    ],
)
def test_who_is_no_original_of_ours_gets_no_word(doors: tuple[Listener, list[Joined]], raw: bytes) -> None:
    listener, joined = doors
    with socket.create_connection(("127.0.0.1", listener.port)) as sock, gevent.Timeout(WAIT_S):
        sock.sendall(raw)
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError as error:
            assert error.errno
    assert joined == []


# ---- the dial


class Original:
    """Listens like the original: speaks first, survives garbage, and forgets the socket."""

    def __init__(self, id_hash: bytes = ID_HASH, peer_id: bytes = THEIRS) -> None:
        self.words = GobEncoder().handshake(id_hash, peer_id)
        self.heard: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._socks: list[socket.socket] = []
        self.address = ("127.0.0.1", int(self._listening.getsockname()[1]))
        self._greenlet = gevent.spawn(self._work)

    def _work(self) -> None:
        while True:
            sock, _ = self._listening.accept()
            self._socks.append(sock)
            sock.sendall(self.words)
            self.heard.append(sock.recv(1))

    def close(self) -> None:
        self._greenlet.kill()
        for sock in (self._listening, *self._socks):
            sock.close()


@pytest.fixture
def make_original() -> Iterator[Callable[..., Original]]:
    made: list[Original] = []

    def make(*args: Any) -> Original:
        made.append(Original(*args))
        return made[-1]

    yield make
    for each in made:
        each.close()


def heard_of(original: Original, count: int) -> Sequence[bytes]:
    with gevent.Timeout(WAIT_S):
        while len(original.heard) < count:
            gevent.sleep(0.001)
    return original.heard


def test_an_original_that_is_dialed_is_dialed_again_in_gob(make_original: Callable[..., Original]) -> None:
    original, dialer = make_original(), Dialer(peer_id=OURS)
    for expected in ([b"\x13", b"6"], [b"\x13", b"6", b"6"]):  # the second time it is known
        joined = dialer.dial(original.address, b"i" * 20, id_hash=ID_HASH)
        assert list(heard_of(original, len(expected))) == expected
        assert joined.gob is not None
        assert (joined.handshake.peer_id, joined.address) == (THEIRS, original.address)
        joined.sock.close()


def test_an_original_that_is_not_for_us(make_original: Callable[..., Original]) -> None:
    dialer = Dialer(peer_id=OURS)
    for original, id_hash, reason in (
        (make_original(), None, "in which this torrent has no id"),
        (make_original(b"\xcd" * 20), ID_HASH, "another torrent"),
    ):
        with pytest.raises(DialError, match=reason):
            dialer.dial(original.address, b"i" * 20, id_hash=id_hash)
        assert list(heard_of(original, 1)) == [b"\x13"]
    with pytest.raises(DialError, match="ourselves") as caught:
        dialer.dial(make_original(ID_HASH, OURS).address, b"i" * 20, id_hash=ID_HASH)
    assert caught.value.ourselves


def test_an_original_that_is_connected_is_spared(make_original: Callable[..., Original]) -> None:
    original, dialer = make_original(), Dialer(peer_id=OURS)
    with pytest.raises(DialError, match="connected already") as caught:
        dialer.dial(
            original.address, b"i" * 20, id_hash=ID_HASH, is_connected=lambda peer_id: peer_id == THEIRS
        )
    assert caught.value.twin == THEIRS
    assert list(heard_of(original, 1)) == [b"\x13"]
