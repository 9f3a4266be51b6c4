"""Any facts from any peers, liars among them: after each every invariant holds, and nothing leaks."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from microtorrd.core import events
from microtorrd.core.settings import SwarmSettings, TorrentSettings
from microtorrd.errors import StorageError
from microtorrd.proto.bitfield import Bitfield
from microtorrd.proto.extended import DONT_HAVE_NUMBER
from microtorrd.proto.messages import (
    AllowedFast,
    BitfieldMessage,
    Cancel,
    Choke,
    Extended,
    Have,
    HaveAll,
    HaveNone,
    Interested,
    KeepAlive,
    Message,
    NotInterested,
    Port,
    Reject,
    Request,
    Suggest,
    Unchoke,
)
from tests.core.rig import Rig, of

PIECES = 6
BLOCK = 16384
#: Within pieces of two and of three blocks: none; parts of pieces; whole ones, and more.
PADDING = ((), ((5, 2 * BLOCK), (70_000, 130_000)), ((BLOCK, 5 * BLOCK), (6 * BLOCK - 1, 9 * BLOCK)))
FATES = (
    *("stop", "fail", "check", "doubt", "confirm", "mismatch"),
    *("memory", "wanted", "choose", "wish", "wish", "dials", "addresses"),
)
FULL = StorageError("/x: No space left on device", path="/x", cause="no_space")

piece = st.integers(0, PIECES - 1)
any_piece = st.one_of(piece, st.integers(-1, 1 << 32))
begin = st.one_of(st.sampled_from([0, BLOCK, 2 * BLOCK]), st.integers(-1, 1 << 32))
length = st.one_of(st.just(BLOCK), st.integers(-1, 200_000))
block = st.tuples(any_piece, begin, length)
good_block = st.tuples(piece, st.sampled_from([0, BLOCK]), st.just(BLOCK))
sensible: st.SearchStrategy[Message] = st.one_of(
    st.sampled_from([Choke(), Unchoke(), Unchoke(), Interested(), Interested(), NotInterested()]),
    st.builds(Have, piece),
    st.builds(Suggest, piece),
    st.builds(AllowedFast, piece),
    st.builds(lambda b: Cancel(*b), good_block),
    st.builds(lambda piece: Extended(DONT_HAVE_NUMBER, piece.to_bytes(4, "big")), piece),
)
message: st.SearchStrategy[Message] = st.one_of(
    st.sampled_from(
        [
            Choke(),
            Unchoke(),
            Unchoke(),
            Interested(),
            NotInterested(),
            KeepAlive(),
            HaveAll(),
            HaveNone(),
            Port(1),
        ]
    ),
    st.builds(Have, piece),
    st.builds(Have, any_piece),
    st.builds(Suggest, piece),
    st.builds(AllowedFast, piece),
    st.builds(BitfieldMessage, st.binary(max_size=2)),
    st.builds(lambda b: Reject(*b), good_block),
    st.builds(lambda b: Cancel(*b), st.one_of(block, good_block)),
    st.builds(lambda b: Request(*b), st.one_of(block, good_block)),
    st.builds(Extended, st.integers(0, 5), st.binary(max_size=20)),
    st.builds(lambda piece: Extended(DONT_HAVE_NUMBER, piece.to_bytes(4, "big")), piece),
)
pieces_had = st.one_of(st.just("all"), st.just(""), st.text(".x", min_size=PIECES, max_size=PIECES))
address = st.tuples(st.sampled_from(["10.0.0.1", "10.0.0.2", "::1"]), st.integers(0, 4))
number = st.integers(0, 1 << 30)


class Facts(RuleBasedStateMachine):
    """Drives a rig with whatever comes to mind."""

    rig: Rig
    next_peer: int

    @initialize(
        have=st.one_of(
            st.just("." * PIECES), st.just("x" * PIECES), st.text(".x", min_size=PIECES, max_size=PIECES)
        ),
        peers=st.lists(st.tuples(pieces_had, st.booleans()), max_size=4),
        memory=st.sampled_from([2 * BLOCK, 5 * BLOCK, 1 << 30]),
        slots=st.integers(0, 3),
        always=st.booleans(),
        wait=st.integers(0, 1),
        id_hash=st.booleans(),
        seed_after=st.booleans(),
        super_seed=st.booleans(),
        seed=number,
        blocks=st.sampled_from([2, 3]),
        zeros=st.sampled_from(PADDING),
    )
    def make(self, **how: Any) -> None:
        self.rig = Rig(
            how["have"],
            blocks=how.get("blocks", 2),
            last_bytes=20_000,
            memory=how["memory"],
            settings=SwarmSettings(
                upload_slots=how["slots"],
                always_unchoke=how["always"],
                connections_per_torrent=5,
                dials_at_once=2,
                request_timeout_s=4.0,
                idle_timeout_s=60.0,
                ban_after=2,
            ),
            torrent=TorrentSettings(
                wait_seeders=how["wait"],
                seed_after_download=how["seed_after"],
                super_seed=how["super_seed"],
            ),
            id_hash=how["id_hash"],
            zeros=how.get("zeros", ()),
            seed=how["seed"],
        )
        self.next_peer = 0
        for have, fast in how["peers"]:
            self.join(have=have, fast=fast, unchoke=True, interested=True)

    def some_peer(self, which: int) -> int:
        """One that is connected, if any."""
        peers = list(self.rig.core.swarm.peers)
        return peers[which % len(peers)] if peers else 0

    # --------------------------------------------------------------------------------- peers that behave

    @rule(
        have=pieces_had,
        fast=st.booleans(),
        unchoke=st.booleans(),
        interested=st.booleans(),
    )
    def join(self, have: str, fast: bool, unchoke: bool, interested: bool) -> None:
        self.next_peer += 1
        self.rig.join(self.next_peer, have, fast=fast, unchoke=unchoke)
        if interested:
            self.rig.say(self.next_peer, Interested())

    @rule(which=number, blocks=st.integers(1, 4), rate=st.sampled_from([1e5, 1e9]))
    def quicken(self, which: int, blocks: int, rate: float) -> None:
        """The peer says that it serves larger blocks, and is quick, or was."""
        if peer := self.some_peer(which):
            record = self.rig.peer(peer)
            record.largest_block = max(record.largest_block, blocks * BLOCK)
            record.pipeline.rate = rate

    @rule(which=number, count=st.integers(1, 6))
    def deliver_some(self, which: int, count: int) -> None:
        self.deliver(which, count)

    def deliver(self, which: int, count: int) -> None:
        asked = [peer for peer, slots in self.rig.lent.items() if slots]
        if asked:
            self.rig.deliver(asked[which % len(asked)], count)

    @rule(which=number)
    def deliver_all(self, which: int) -> None:
        self.deliver(which, 1 << 20)

    @rule(which=number, messages=st.lists(sensible, min_size=1, max_size=3))
    def say_something_sensible(self, which: int, messages: list[Message]) -> None:
        peer = self.some_peer(which)
        if peer:
            fast = self.rig.peer(peer).fast
            self.rig.say(peer, *(m for m in messages if fast or not isinstance(m, (Suggest, AllowedFast))))

    @rule(which=number, requests=st.lists(good_block, min_size=1, max_size=4))
    def request_something_sensible(self, which: int, requests: list[events.BlockRequest]) -> None:
        peer = self.some_peer(which)
        have = self.rig.core.have
        if peer:
            self.rig.do(
                events.RequestsReceived(peer, [r for r in requests if have[r[0]] and r[0] < PIECES - 1])
            )

    @rule(which=number)
    def deliver_late(self, which: int) -> None:
        """A block is in its slot, and before its fact is handled the peer chokes us."""
        asked = [peer for peer, slots in self.rig.lent.items() if slots]
        if not asked:
            return
        peer = asked[which % len(asked)]
        slot = self.rig.lent[peer].pop(0)
        if slot.filled_by is None:
            slot.filled_by = peer
            self.rig.say(peer, Choke())
            self.rig.do(events.BlocksReceived(peer, [slot]))

    @rule(which=number, count=st.integers(1, 3))
    def reject(self, which: int, count: int) -> None:
        asked = [peer for peer, slots in self.rig.lent.items() if slots]
        if asked:
            peer = asked[which % len(asked)]
            slots, self.rig.lent[peer] = self.rig.lent[peer][:count], self.rig.lent[peer][count:]
            self.rig.say(peer, *(Reject(slot.piece, slot.begin, slot.length) for slot in slots))

    # -------------------------------------------------------------------------------- and those that do not

    @rule(
        fast=st.booleans(),
        extended=st.booleans(),
        incoming=st.booleans(),
        identity=st.one_of(
            st.none(), st.sampled_from([b"-AA" + bytes(17), b"-ZZ" + bytes(17), b"-MT0001-MMMMMMMMMMMM"])
        ),
        known=st.one_of(st.none(), address),
        host=st.sampled_from(["10.0.0.1", "127.0.0.1", "::1"]),
    )
    def join_somehow(
        self,
        *,
        fast: bool,
        extended: bool,
        incoming: bool,
        identity: bytes | None,
        known: events.Address | None,
        host: str,
    ) -> None:
        self.next_peer += 1
        self.rig.connect(
            self.next_peer,
            fast=fast,
            extended=extended,
            incoming=incoming,
            identity=identity,
            address=known,
            host=host,
        )

    @rule(which=number, messages=st.lists(message, max_size=6))
    def say(self, which: int, messages: list[Message]) -> None:
        if peer := self.some_peer(which):
            gone = {(m.piece, m.begin, m.length) for m in messages if isinstance(m, Reject)}
            self.rig.lent[peer] = [s for s in self.rig.lent[peer] if (s.piece, s.begin, s.length) not in gone]
            self.rig.say(peer, *messages)

    @rule(which=number, requests=st.lists(st.one_of(block, good_block), max_size=6))
    def request(self, which: int, requests: list[events.BlockRequest]) -> None:
        self.rig.do(events.RequestsReceived(which % (self.next_peer + 1), requests))

    @rule(which=number, blocks=st.integers(0, 5))
    def sent(self, which: int, blocks: int) -> None:
        self.rig.do(events.BlocksSent(which % (self.next_peer + 1), blocks, blocks * BLOCK))

    @rule(which=number, fault=st.booleans())
    def leave(self, which: int, fault: bool) -> None:
        self.rig.leave(self.some_peer(which), fault=fault)

    # -------------------------------------------------------------------------------------- disk, operator

    @rule(
        which=number,
        good=st.integers(0, 2),
        digests=st.lists(st.sampled_from([b"good", b"bad"]), min_size=2, max_size=2),
    )
    def disk(self, which: int, good: int, digests: list[bytes]) -> None:
        storing = list(self.rig.storing)
        if storing:
            chosen = storing[which % len(storing)]
            if good:
                self.rig.stored(chosen)
            else:
                self.rig.corrupt(chosen, digests)

    @rule(seconds=st.sampled_from([1, 1, 3, 15, 70]))
    def tick(self, seconds: int) -> None:
        self.rig.tick(seconds)

    @rule(
        what=st.sampled_from(FATES),
        good=st.sets(piece),
        bad=st.sets(piece),
        yes=st.booleans(),
        found=st.lists(address, max_size=4),
    )
    def fate(
        self, *, what: str, good: set[int], bad: set[int], yes: bool, found: list[events.Address]
    ) -> None:
        """What operators, disks and trackers do. Most of the time it runs again afterwards."""
        rig = self.rig
        match what:
            case "stop":
                rig.do(events.Stopped())
            case "fail":
                failed = next(iter(rig.storing), None)
                if failed is not None:
                    rig.borrowed -= len(rig.storing.pop(failed).memory)
                rig.do(events.StorageFailed(FULL, failed))
                if yes:
                    rig.do(events.StorageRecovered())
            case "check":
                rig.do(
                    events.Started(recheck=True), events.PiecesChecked(sorted(good), sorted(bad - good), yes)
                )
            case "doubt":
                rig.do(events.RecheckWanted(sorted(good), yes))
                rig.do(events.PiecesChecked(sorted(bad), (), True))
            case "confirm" | "mismatch":
                rig.do(events.ContentConfirmed(what == "confirm"))
            case "memory":
                rig.do(events.MemoryFreed())
            case "wanted":
                rig.do(events.MemoryWanted())
            case "choose":
                rig.do(
                    events.SettingsChanged(
                        TorrentSettings(sequential=yes, seed_after_download=not bad, super_seed=bool(good))
                    )
                )
            case "wish":
                ranks = bytes(1 + (p in bad) if p in good else 0 for p in range(PIECES))
                rig.do(events.WishesChanged(None if yes and not good else ranks))
            case "dials":
                for order in of(rig.journal, events.Dial)[-2:]:
                    rig.do(events.DialFailed(order.address, "refused", yes))
            case "addresses":
                rig.do(events.AddressesFound(found, "tracker"))
        if yes or len(good) > 1:
            rig.do(events.Started())
            if rig.core.phase.value == "checking":
                rig.do(events.PiecesChecked(sorted(good), sorted(set(range(PIECES)) - good), True))

    # -------------------------------------------------------------------------------------------- always

    @invariant()
    def memory_adds_up(self) -> None:
        if hasattr(self, "rig"):
            making = [*self.rig.core.workshop.partials.values()]
            held = sum(len(partial.buffer.memory) for partial in making)
            held += sum(len(buffer.memory) for buffer in self.rig.storing.values())
            assert held == self.rig.borrowed, "memory that nobody gives back"
            assert set(self.rig.core.workshop.storing) == set(self.rig.storing)

    @invariant()
    def wires_agree(self) -> None:
        """What the core believes to have asked is what the wires were told."""
        if hasattr(self, "rig"):
            for peer, record in self.rig.core.swarm.peers.items():
                lent = self.rig.lent[peer]
                assert sum(-(-slot.length // BLOCK) for slot in lent) == record.pipeline.out, f"peer {peer}"
                assert all(slot.length <= record.largest_block for slot in lent), f"peer {peer}"

    def teardown(self) -> None:
        if hasattr(self, "rig"):
            self.all_ends_well()

    def all_ends_well(self) -> None:
        """Whatever happened: with an honest seeder and a sound disk it becomes complete."""
        rig = self.rig
        rig.memory = 1 << 30
        rig.do(events.Stopped())
        while rig.storing:
            rig.stored()
        rig.do(events.SettingsChanged(TorrentSettings(seed_after_download=True)), events.WishesChanged(None))
        rig.core.ending.waited = True
        rig.do(events.Started())
        if rig.state == "checking" and rig.core.phase.value == "checking":
            rig.do(events.PiecesChecked([], range(PIECES), True))
        for turn in range(60):
            if rig.core.have.complete:
                break
            if not rig.core.swarm.peers:
                self.next_peer += 1
                rig.join(self.next_peer, "all", host=f"10.7.0.{turn}")
            for peer in list(rig.lent):
                rig.deliver(peer)
            while rig.storing:
                rig.stored()
            rig.do(events.MemoryFreed())
            rig.tick(5)
        assert rig.core.have == Bitfield.full(PIECES)


TestFacts = Facts.TestCase
TestFacts.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
