"""The faults of the original program, each tried on ours: real processes on loopback, and each ends well.

The numbers are those of the list that was made when the original was examined. Left to the tests of other
rooms: what a tracker remembers and forgets, with a clock that is handed in (13, 15).
"""

from __future__ import annotations

import random
import re
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha1
from http.client import HTTPConnection
from pathlib import Path

import gevent
import msgspec
import pytest

from microtorrd.proto import bencode, metainfo
from mtorrctl.create import Recipe, create
from tests.net.web import WebServer
from tests.programs import PATIENCE_S, Run, Stage, digest

KIB, MIB = 1 << 10, 1 << 20

CONTENT = random.Random(3).randbytes(3 * MIB + 4321)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.close()


@pytest.fixture
def tracker(stage: Stage) -> Run:
    return stage.tracker()


@pytest.fixture
def mtorrent(stage: Stage, tracker: Run) -> Path:
    """Of a file that is shared by the tracker."""
    return stage.share(CONTENT)


def connect(port: int) -> socket.socket:
    """A connection to this machine, made without a look-up."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE_S)
    sock.connect(("127.0.0.1", port))
    return sock


def ask(url: str, path: str) -> tuple[int, bytes]:
    """The answer of a tracker: status and body."""
    connection = HTTPConnection("127.0.0.1")
    connection.sock = connect(int(url.rpartition(":")[2]))
    with closing(connection):
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read()


def announce(
    url: str, *, peer_id: str, swarm_id: bytes, port: int, event: str = "started"
) -> tuple[int, bytes]:
    """An announce as the original's client spells it."""
    query = f"peerId={peer_id}&swarmId={swarm_id.hex()}&ip=127.0.0.1&port={port}&event={event}"
    return ask(url, f"/announce?{query}")


def peers_known(url: str) -> int:
    """How many peers the tracker knows, over all swarms."""
    count: int = msgspec.json.decode(ask(url, "/health")[1])["peers"]
    return count


def whole(stage: Stage, *names: str) -> bool:
    """Whether each of these directories has the file."""
    return all((stage.directory / name / "freeware").read_bytes() == CONTENT for name in names)


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Peer:
    """A peer of our own, that does as it likes."""

    def __init__(self, run: Run, mtorrent: Path, *, reserved: bytes = bytes(8)) -> None:
        with run.client() as client:
            port = client.call("session.stats")["listen_port"]
        self.torrent = metainfo.parse(mtorrent.read_bytes())
        self.sock = connect(port)
        self._reserved = reserved

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def handshake(self, protocol: bytes = b"BitTorrent protocol", swarm_id: bytes | None = None) -> bytes:
        """Shake hands; the answer, empty where the other side closes."""
        peer_id = b"-XX0000-" + random.randbytes(12)
        swarm = self.torrent.info_hash if swarm_id is None else swarm_id
        self.sock.sendall(bytes([len(protocol)]) + protocol + self._reserved + swarm + peer_id)
        return self.read(68)

    def say(self, number: int, payload: bytes = b"", *, length: int | None = None) -> None:
        """Send one message."""
        size = 1 + len(payload) if length is None else length
        self.sock.sendall(struct.pack(">IB", size, number) + payload)

    def read(self, size: int) -> bytes:
        """So many bytes, or fewer where the other side closes."""
        got = b""
        while len(got) < size:
            try:
                chunk = self.sock.recv(size - len(got))
            except ConnectionResetError:
                break
            if not chunk:
                break
            got += chunk
        return got

    def is_dropped(self) -> bool:
        """Whether the other side closes, whatever it says before."""
        try:
            while self.sock.recv(1 << 16):
                continue
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        return True


REQUEST_0 = struct.pack(">III", 0, 0, 16 * KIB)
INTERESTED, HAVE, BITFIELD, REQUEST, PIECE, CANCEL = 2, 4, 5, 6, 7, 8


class TestTransfers:
    def test_1_pieces_of_16000_bytes_at_full_speed(self, stage: Stage, tracker: Run) -> None:
        mtorrent = stage.share(CONTENT, piece_length=16000)
        leechers = [stage.leech(mtorrent, name) for name in "ab"]
        seeder = stage.seed(mtorrent)
        assert [run.wait() for run in leechers] == [0, 0]
        assert whole(stage, "a", "b")
        assert seeder.interrupt() == 0

    @pytest.mark.parametrize("content", [b"", b"x", bytes(32 * KIB)], ids=["empty", "a byte", "two pieces"])
    def test_contents_at_the_edge(self, stage: Stage, tracker: Run, content: bytes) -> None:
        mtorrent = stage.share(content, piece_length=16 * KIB)
        stage.seed(mtorrent)
        leecher = stage.leech(mtorrent, "a")
        assert leecher.wait() == 0
        assert (stage.directory / "a/freeware").read_bytes() == content
        assert "NaN" not in leecher.text

    def test_2_leechers_outlive_their_only_source(self, stage: Stage, mtorrent: Path) -> None:
        seeder = stage.seed(mtorrent, "-u", "300")
        leechers = [stage.leech(mtorrent, name) for name in "ab"]
        leechers[0].wait_until_done(1)
        seeder.kill()
        stage.runs.remove(seeder)
        another = stage.seed(mtorrent)
        assert [run.wait() for run in leechers] == [0, 0]
        assert whole(stage, "a", "b")
        assert another.interrupt() == 0
        stage.tracker().interrupt()  # removes what the killed one had to leave behind

    def test_2_nobody_around_is_no_reason_to_fail(self, stage: Stage, mtorrent: Path) -> None:
        leecher = stage.leech(mtorrent, "a", "--waitSeeders", "0")
        leecher.wait_for("downloading")
        stage.seed(mtorrent)
        assert leecher.wait() == 0

    def test_3_a_peer_that_goes_with_requests_outstanding(self, stage: Stage, mtorrent: Path) -> None:
        seeder = stage.seed(mtorrent)
        for _ in range(20):
            with Peer(seeder, mtorrent) as peer:
                assert len(peer.handshake()) == 68
                peer.say(INTERESTED)
                for piece in range(190):
                    peer.say(REQUEST, struct.pack(">III", piece, 0, 16 * KIB))
        assert stage.leech(mtorrent, "a").wait() == 0
        assert seeder.interrupt() == 0

    def test_4_leechers_that_finish_and_die_among_others(self, stage: Stage, mtorrent: Path) -> None:
        seeder = stage.seed(mtorrent, "-u", "2000")
        leechers = [stage.leech(mtorrent, name) for name in "abcd"]
        victim = stage.leech(mtorrent, "victim")
        victim.wait_for("downloading")
        victim.kill()
        stage.runs.remove(victim)
        assert [run.wait() for run in leechers] == [0, 0, 0, 0]
        assert whole(stage, *"abcd")
        assert seeder.interrupt() == 0
        stage.tracker().interrupt()

    def test_11_limits_hold_whoever_dials_and_do_not_mix(self, stage: Stage, tracker: Run) -> None:
        mtorrent = stage.share(CONTENT[: 2 * MIB])
        # The first comer listens, the later one dials.
        listening = stage.leech(mtorrent, "listens", "-d", "1000", "-u", "10")
        listening.wait_for("waiting")
        seeder = stage.seed(mtorrent)
        dialling = stage.leech(mtorrent, "dials", "-d", "1000", "-u", "10")
        for run in (listening, dialling):
            assert run.wait() == 0
            speed = re.search(r"Average speed: ([\d.]+) MB/s", run.text)
            assert speed is not None
            assert 0.5 < float(speed[1]) < 1.25  # not 25, which is no limit, and not 0.01, the upload's
        assert seeder.interrupt() == 0


class TestSwarms:
    def test_5_ghosts_hold_up_nobody(self, stage: Stage, mtorrent: Path) -> None:
        id_hash = sha1(CONTENT).digest()
        for number in range(5):
            announce(stage.url, peer_id=f"ghost{number:015}", swarm_id=id_hash, port=closed_port())
        # Two that start together: each is told of the other before it can be reached.
        leechers = [stage.leech(mtorrent, name) for name in "ab"]
        seeder = stage.seed(mtorrent)
        assert [run.wait() for run in leechers] == [0, 0]
        assert seeder.interrupt() == 0

    def test_6_a_leecher_that_goes_while_another_waits(self, stage: Stage, mtorrent: Path) -> None:
        stays, goes = (stage.leech(mtorrent, name, "-v", "2") for name in ("stays", "goes"))
        stays.wait_for(r"Peer \w+ at .* (connected|came to us)")
        assert goes.interrupt() == 0
        stays.wait_for(r"Peer \w+ at .* left")
        seeder = stage.seed(mtorrent)
        assert stays.wait() == 0
        assert seeder.interrupt() == 0

    def test_7_the_first_of_two_that_waited_leaves(self, stage: Stage, mtorrent: Path) -> None:
        seeder = stage.seed(mtorrent)
        first = stage.leech(mtorrent, "a", "--waitLeechers", "2")
        first.wait_for("waiting")
        second = stage.leech(mtorrent, "b", "--waitLeechers", "2")
        assert [first.wait(), second.wait()] == [0, 0]
        assert whole(stage, "a", "b")
        assert seeder.interrupt() == 0

    def test_7_auto_seed_hands_over(self, stage: Stage, mtorrent: Path) -> None:
        seeder = stage.seed(mtorrent)
        keeper = stage.leech(mtorrent, "a", "-a")
        keeper.wait_for("whole; seeding it until interrupted")
        assert "DOWNLOAD STATS" in keeper.text
        assert seeder.interrupt() == 0
        late = stage.leech(mtorrent, "b")
        assert late.wait() == 0
        assert "Downloaded from Seeders: 100%" in late.text
        assert keeper.interrupt() == 0

    @pytest.mark.parametrize("frozen", ["seeder", "leecher"])
    def test_8_a_frozen_peer_holds_up_nobody(self, stage: Stage, mtorrent: Path, frozen: str) -> None:
        seeder = stage.seed(mtorrent, "-u", "500")
        leecher = stage.leech(mtorrent, "a")
        leecher.wait_until_done(1)
        victim = seeder if frozen == "seeder" else stage.leech(mtorrent, "victim")
        if frozen == "leecher":
            victim.wait_until_done(1)
        victim.daemon.suspend()
        healthy = stage.seed(mtorrent)
        assert leecher.wait(90) == 0
        assert whole(stage, "a")
        assert healthy.interrupt() == 0

    def test_8_a_peer_that_stops_reading_holds_up_nobody(self, stage: Stage, tracker: Run) -> None:
        mtorrent = stage.share(random.Random(4).randbytes(24 * MIB))
        seeder = stage.seed(mtorrent)
        with Peer(seeder, mtorrent) as peer:
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.handshake()
            peer.say(INTERESTED)
            for piece in range(peer.torrent.piece_count):
                peer.say(REQUEST, struct.pack(">III", piece, 0, 16 * KIB))
            assert stage.leech(mtorrent, "a").wait() == 0
        assert seeder.interrupt() == 0

    def test_9_silent_and_wrong_clients_block_nobody_and_leak_nothing(
        self, stage: Stage, mtorrent: Path
    ) -> None:
        seeder = stage.seed(mtorrent)
        with Peer(seeder, mtorrent) as peer:
            peer.handshake()
        before = seeder.daemon.num_fds()
        silent = [Peer(seeder, mtorrent) for _ in range(10)]
        for number in range(20):
            with Peer(seeder, mtorrent) as peer:
                wrong: dict[str, bytes] = {"protocol": b"MICROTORRv1 protocol"} if number % 2 else {}
                answer = peer.handshake(**wrong) if wrong else peer.handshake(swarm_id=bytes(20))
                assert answer == b""
        assert stage.leech(mtorrent, "a").wait() == 0
        for peer in silent:
            peer.sock.close()
        with gevent.Timeout(PATIENCE_S), seeder.client() as client:
            client.subscribe()
            while seeder.daemon.num_fds() > before + 2:  # ours, and one that may have been open before
                client.next_note(0.1)
        assert seeder.interrupt() == 0


BAD_MESSAGES = {
    "a request beyond the pieces": (REQUEST, struct.pack(">III", 1 << 20, 0, 16 * KIB)),
    "a request beyond the piece": (REQUEST, struct.pack(">III", 0, 1 << 30, 16 * KIB)),
    "a request for too much": (REQUEST, struct.pack(">III", 0, 0, 1 << 30)),
    "a request of a negative piece": (REQUEST, struct.pack(">iii", -1, 0, 16 * KIB)),
    "a request for nothing": (REQUEST, struct.pack(">III", 0, 0, 0)),
    "a have beyond the pieces": (HAVE, struct.pack(">I", 0xFFFFFFFF)),
    "a have of two bytes": (HAVE, b"\0\0"),
    "a bitfield too long": (BITFIELD, bytes(100_000)),
    "a bitfield with spare bits": (BITFIELD, b"\xff" * 25),
}


def serves(seeder: Run, mtorrent: Path) -> bool:
    """Whether a peer gets a block that it asks for."""
    with Peer(seeder, mtorrent) as peer:
        if len(peer.handshake()) != 68:
            return False
        peer.say(INTERESTED)
        peer.say(REQUEST, REQUEST_0)
        want = struct.pack(">IBII", 9 + 16 * KIB, PIECE, 0, 0) + CONTENT[: 16 * KIB]
        got = b""
        while want not in got and (chunk := peer.sock.recv(1 << 16)):
            got += chunk
        return want in got


def test_10_one_bad_message_ends_one_connection(stage: Stage, mtorrent: Path) -> None:
    seeder = stage.seed(mtorrent)
    for kind, message in BAD_MESSAGES.items():
        with Peer(seeder, mtorrent) as peer:
            peer.handshake()
            peer.say(INTERESTED)
            peer.say(*message)
            assert peer.is_dropped(), kind
        assert serves(seeder, mtorrent), kind
    with Peer(seeder, mtorrent) as peer:
        peer.handshake()
        peer.say(REQUEST, length=0xFFFFFFF0)
        assert peer.is_dropped(), "an absurd length"
    with Peer(seeder, mtorrent) as peer:
        again = peer.handshake()
        peer.sock.sendall(again)
        assert peer.is_dropped(), "a second handshake"
    with Peer(seeder, mtorrent) as peer:
        peer.sock.sendall(random.Random(5).randbytes(1000))
        assert peer.is_dropped(), "garbage"
    with Peer(seeder, mtorrent) as peer:
        peer.handshake()
        peer.say(PIECE, struct.pack(">II", 0, 0) + bytes(16 * KIB))
        assert serves(seeder, mtorrent), "data that nobody asked for"
    assert seeder.row()["state"] == "seeding"
    assert seeder.interrupt() == 0


class TestTrackers:
    def test_12_fifty_clients_at_once(self, stage: Stage, tracker: Run) -> None:
        swarm_id = bytes(20)

        def client(number: int) -> int:
            for turn in range(10):
                status, reply = announce(
                    stage.url, peer_id=f"{number:010}{turn:010}", swarm_id=swarm_id, port=1000 + number
                )
                assert status == 200
                assert b'"Peers":{' in reply
            return 10

        clients = [gevent.spawn(client, number) for number in range(50)]
        gevent.joinall(clients, timeout=60, raise_error=True)
        assert sum(client.value for client in clients) == 500
        assert tracker.process.poll() is None
        assert tracker.interrupt() == 0

    def test_13_an_unknown_peer_that_says_alive_is_no_ghost(self, stage: Stage, tracker: Run) -> None:
        status, _ = announce(stage.url, peer_id="g" * 20, swarm_id=b"s" * 20, port=1, event="alive")
        assert status == 400
        assert peers_known(stage.url) == 0

    def test_14_the_tracker_dies_in_the_middle(self, stage: Stage, tracker: Run, mtorrent: Path) -> None:
        seeder = stage.seed(mtorrent, "-u", "1000")
        leecher = stage.leech(mtorrent, "a")
        leecher.wait_until_done(1)
        tracker.kill()
        stage.runs.remove(tracker)
        assert leecher.wait() == 0
        assert whole(stage, "a")
        assert seeder.interrupt() == 0
        stage.tracker().interrupt()

    def test_14_a_tracker_that_comes_late(self, stage: Stage) -> None:
        port = closed_port()
        stage.url = f"http://127.0.0.1:{port}"
        mtorrent = stage.share(CONTENT)
        seeder = stage.seed(mtorrent)
        seeder.wait_for(r"\[CRITICAL\]: Tracker .*; trying again")
        leecher = stage.leech(mtorrent, "a")
        leecher.wait_for(r"\[CRITICAL\]: Tracker .*; trying again")
        stage.tracker(bind=f"127.0.0.1:{port}")
        assert leecher.wait(90) == 0
        assert seeder.interrupt() == 0

    @pytest.mark.slow
    def test_15_a_tracker_that_is_restarted_learns_of_everybody(
        self, stage: Stage, tracker: Run, mtorrent: Path
    ) -> None:
        seeders = [stage.seed(mtorrent) for _ in range(2)]
        assert tracker.interrupt() == 0
        restarted = stage.tracker("-v", "1", bind=stage.url.removeprefix("http://"))
        # `alive` comes every 15 s, is refused, and `started` follows by itself.
        with gevent.Timeout(40, AssertionError(restarted.text)):
            while len(set(re.findall(r"peerId=(\S{20})&.*&event=started", restarted.text))) < 2:
                restarted.wait_for_more()
        assert stage.leech(mtorrent, "a").wait() == 0
        assert [run.interrupt() for run in seeders] == [0, 0]

    def test_16_a_tracker_that_hangs_holds_up_no_end(
        self, stage: Stage, tracker: Run, mtorrent: Path
    ) -> None:
        seeder = stage.seed(mtorrent, "-v", "2")
        seeder.wait_for(r"Tracker .* \(microtorr\) knows")
        tracker.daemon.suspend()
        assert seeder.signal(signal.SIGINT).wait(15) == 0
        tracker.daemon.resume()
        assert tracker.interrupt() == 0

    def test_peers_are_signed_off(self, stage: Stage, tracker: Run, mtorrent: Path) -> None:
        seeder = stage.seed(mtorrent)
        leecher = stage.leech(mtorrent, "a")
        assert leecher.wait() == 0
        assert seeder.interrupt() == 0
        assert peers_known(stage.url) == 0


class TestFiles:
    @pytest.mark.parametrize(
        "content",
        [CONTENT[:-1] + b"!", CONTENT[: 2 * MIB], CONTENT + b"x", b""],
        ids=["another byte", "too short", "too long", "empty"],
    )
    def test_17_a_seed_file_that_does_not_match(
        self, stage: Stage, tracker: Run, mtorrent: Path, content: bytes
    ) -> None:
        wrong = stage.directory / "wrong"
        wrong.write_bytes(content)
        run = stage.microtorr("download", mtorrent, "-p", "0", "-s", wrong)
        assert run.wait() == 1
        assert re.search(r"\[CRITICAL\]: .*wrong.*(match|bytes)", run.text)
        assert wrong.read_bytes() == content
        assert peers_known(stage.url) == 0

    def test_17_a_seed_file_that_is_none(self, stage: Stage, mtorrent: Path) -> None:
        for name in ("nothing", "."):
            run = stage.microtorr("download", mtorrent, "-p", "0", "-s", name)
            assert run.wait() == 1
            assert "[CRITICAL]: " in run.text

    def test_18_corrupt_metainfo(self, stage: Stage, mtorrent: Path, tracker: Run) -> None:
        raw = mtorrent.read_bytes()
        top = bencode.decode(raw)
        assert isinstance(top, dict)

        def changed(**values: object) -> bytes:
            info = {
                **top[b"info"],
                **{key.replace("_", " ").encode(): value for key, value in values.items()},
            }
            return bencode.encode({**top, b"info": info})

        bad = {
            "truncated": raw[:200],
            "empty": b"",
            "text": b"a text\n",
            "short hashes": changed(pieces=top[b"info"][b"pieces"][:-20]),
            "half a hash": changed(pieces=top[b"info"][b"pieces"][:-1]),
            "no piece length": changed(piece_length=0),
            "negative piece length": changed(piece_length=-1),
            "another piece length": changed(piece_length=1 << 20),
            "huge length": changed(length=1 << 62),
            "negative length": changed(length=-1),
            "short length": changed(length=5),
            "a bomb": b"9999999999999:a",
        }
        runs = {}
        for name, content in bad.items():
            (stage.directory / name).write_bytes(content)
            runs[name] = stage.microtorr("download", stage.directory / name, "-p", "0")
        for name, run in runs.items():
            assert run.wait() == 1
            assert run.text.startswith(f"[CRITICAL]: {stage.directory}/{name}")
        assert peers_known(stage.url) == 0

    def test_18_an_id_that_is_not_that_of_the_content(self, stage: Stage, tracker: Run) -> None:
        """Who has the content does not seed it, and who fetches it, from somebody who does, is told."""
        (stage.directory / "freeware").write_bytes(CONTENT)
        with closing(WebServer({"/freeware": CONTENT})) as server:
            recipe = Recipe(trackers=((f"{stage.url}/announce",),), web_seeds=(f"{server.url}freeware",))
            mtorrent = Path(create(str(stage.directory / "freeware"), None, recipe).path)
            mtorrent.write_bytes(mtorrent.read_bytes().replace(sha1(CONTENT).digest(), bytes(20)))
            seeder = stage.seed(mtorrent, ready=False)
            leecher = stage.leech(mtorrent, "a", "--waitSeeders", "0")
            for run in (seeder, leecher):
                assert run.wait() == 1
                assert "[CRITICAL]: the content does not match the id_hash of its metainfo" in run.text
        assert digest(stage.directory / "a" / "freeware") == digest(stage.directory / "freeware")

    @pytest.mark.parametrize("name", [b"../escaped.bi", b"/tmp/escaped.bi", b"..", b"a/../../escaped.bi"])
    def test_19_names_that_lead_elsewhere(self, stage: Stage, tracker: Run, name: bytes) -> None:
        digest = sha1(b"x").hexdigest().encode()
        info = {b"Id": digest, b"Length": 1, b"Name": name, b"Piece_length": 1, b"Sha1sum": digest}
        files = {
            "original": {b"Announce": stage.url.encode(), b"Info": info},
            "ours": {
                b"info": {b"name": name, b"length": 1, b"piece length": 1, b"pieces": sha1(b"x").digest()}
            },
        }
        for kind, top in files.items():
            path = stage.directory / kind
            path.write_bytes(bencode.encode(top))
            run = stage.microtorr("download", path, "-p", "0", cwd=stage.directory / "deep")
            assert run.wait() == 1
            assert "[CRITICAL]: " in run.text
            assert "ame" in run.text
        assert not list(stage.directory.rglob("escaped*"))

    def test_19_the_path_as_it_was_typed_is_no_place_to_save(self, stage: Stage, tracker: Run) -> None:
        digest = sha1(b"x").hexdigest().encode()
        info = {b"Id": digest, b"Length": 1, b"Name": b"./sub/s.txt", b"Piece_length": 1, b"Sha1sum": digest}
        mtorrent = stage.directory / "s.txt.mtorrent"
        mtorrent.write_bytes(bencode.encode({b"Announce": stage.url.encode(), b"Info": info}))
        (stage.directory / "s.txt").write_bytes(b"x")
        seeder = stage.seed(mtorrent)
        assert stage.leech(mtorrent, "a").wait() == 0
        assert (stage.directory / "a/s.txt").read_bytes() == b"x"
        assert seeder.interrupt() == 0


class TestNetwork:
    def test_20_the_same_port_twice(self, stage: Stage, mtorrent: Path) -> None:
        first = stage.seed(mtorrent)
        with first.client() as client:
            port = str(client.call("session.stats")["listen_port"])
        second = stage.microtorr("download", mtorrent, "-i", "lo", "-p", port, cwd=stage.directory / "a")
        assert second.wait() == 1
        assert re.search(rf"\[CRITICAL\]: .*{port}", second.text)
        assert stage.leech(mtorrent, "b").wait() == 0
        assert first.interrupt() == 0

    def test_20_ipv6(self, stage: Stage) -> None:
        stage.tracker(bind="[::1]:0")
        mtorrent = stage.share(CONTENT)
        seeder = stage.seed(mtorrent)
        leecher = stage.leech(mtorrent, "a", "-v", "2")
        assert leecher.wait() == 0
        assert "at ::1 " in leecher.text
        assert seeder.interrupt() == 0

    def test_an_interface_that_is_not_there(self, stage: Stage, mtorrent: Path, tracker: Run) -> None:
        run = stage.microtorr("download", mtorrent, "-i", "nonet0")
        assert run.wait() == 1
        assert "nonet0" in run.text
        assert peers_known(stage.url) == 0

    def test_what_was_fetched_is_kept_for_the_next_run(self, stage: Stage, mtorrent: Path) -> None:
        slow = stage.seed(mtorrent, "-u", "1000")
        first = stage.leech(mtorrent, "a")
        first.wait_until_done(MIB)
        done = first.row()["done_bytes"]
        assert first.interrupt() == 0
        assert "Downloaded from Seeders: 100%" in first.text
        second = stage.leech(mtorrent, "a")
        assert second.wait() == 0
        assert whole(stage, "a")
        # All in all nothing was sent twice, but for what was under way when the first run ended.
        sent = slow.row()["uploaded_bytes"]
        assert len(CONTENT) <= sent < len(CONTENT) + done // 2
        assert slow.interrupt() == 0
