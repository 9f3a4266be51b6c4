"""What peers want of us: interest, slots, requests, cancels.

Rules:
- a peer is served while we do not choke it, or what lies in its allowed fast set (BEP 6);
- a slot that is free goes to whoever is interested, at once; the choker only moves slots that are contested;
- a slot that is not used does not keep anybody waiting: another one is served besides, until the next choice;
- every request of a fast peer is answered, by a piece or a reject; requests are never dropped silently but
  those of a choked peer without the fast extension, as BEP 3 has it;
- what a peer has queued is bounded: beyond `QUEUE_MAX` a request is refused, without fast the peer dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from microtorrd.core import choker
from microtorrd.core.events import BlockRequest, Serve, Withdraw
from microtorrd.core.fastset import SET_SIZE, allowed_fast
from microtorrd.core.peer import Peer
from microtorrd.core.spreading import Spreading
from microtorrd.core.swarm import Swarm
from microtorrd.errors import ProtocolError
from microtorrd.proto.geometry import MAX_REQUEST_BYTES
from microtorrd.proto.messages import AllowedFast, Cancel, Choke, Message, Reject, Unchoke

#: Requests of one peer that we keep at a time; told to it as `reqq` (BEP 10): 32 MiB in blocks of 16 KiB.
QUEUE_MAX = 2048

#: A peer that cannot be refused a request (no fast extension) may exceed it by this factor: several clients
#: take no notice of `reqq`.
QUEUE_SLACK = 4

#: What we refuse to serve while we choke: the allowed fast set is for those who have nothing.
FAST_QUEUE_MAX = 64

#: What a choked peer still gets is the rest of a piece that takes no longer than this, or is no larger.
LET_THROUGH_S = 10.0
LET_THROUGH_LEAST_BYTES = 1 << 16

#: It is no more than one piece in so many: of a short content it would be a share worth riding free for.
FAST_SHARE = 64

#: A slot lies idle when its peer has asked for nothing so long, since others are bringing it what it wants of
#: us. As many peers as there are slots may be served besides those that hold them.
IDLE_S = 1.0

#: Of so many that wait for a slot all are looked at when one is to be given away. Of more as many of those
#: who wait longest and, for the slot by lot, as many others.
CROWD = 128

#: Cancels that come in a row are carried out so many at a time.
WITHDRAWN_TOGETHER = 256


class Uploading:
    """The serving side of one torrent."""

    __slots__ = (
        "_capacity_per_s",
        "_info_hash",
        "_optimistic",
        "_round",
        "_round_at",
        "_sent_before",
        "_served",
        "_spreading",
        "_swarm",
        "_waiting",
    )

    def __init__(self, swarm: Swarm, spreading: Spreading, info_hash: bytes) -> None:
        self._swarm = swarm
        self._spreading = spreading
        self._info_hash = info_hash
        self._optimistic: int | None = None
        self._round = 0
        self._round_at = float("-inf")
        self._capacity_per_s = float(choker.USUAL_PER_S)  # of our line, as far as it has shown
        self._sent_before = 0  # in all, until the last round
        # Those that are interested: who holds a slot, and who waits for one, the longest first.
        self._served: dict[int, Peer] = {}
        self._waiting: dict[int, Peer] = {}

    @property
    def slots(self) -> int:
        """Regular slots: what the operator says, or by capacity."""
        return self._swarm.settings.upload_slots or choker.slots_for(self._capacity_per_s)

    # ------------------------------------------------------------------------------------ interest, slots

    def greet(self, peer: Peer, now: float) -> None:
        """A new peer: free for all in a closed LAN; a few pieces free where it has to wait."""
        swarm = self._swarm
        if swarm.settings.always_unchoke:
            self._unchoke(peer, now)
        elif peer.fast and self._slots_free(now) <= 0 and self._gives_for_nothing():
            count = swarm.geometry.piece_count
            pieces = allowed_fast(peer.host, self._info_hash, count, min(SET_SIZE, count // FAST_SHARE))
            peer.fast_given = frozenset(piece for piece in pieces if swarm.have[piece])
            if peer.fast_given:
                swarm.tell(peer, *(AllowedFast(piece) for piece in sorted(peer.fast_given)))

    def _gives_for_nothing(self) -> bool:
        """Whether those that wait get a few pieces meanwhile (BEP 6): not of a seeder whose pieces are not
        all out yet. Neighbours have the same set: it would send these to all before the others to anybody."""
        swarm = self._swarm
        if swarm.complete:
            return not swarm.choices.super_seed and not swarm.availability.unowned().any()
        return bool(swarm.have.count)

    def interested(self, peer: Peer, now: float) -> None:
        """The peer wants something of us."""
        peer.peer_interested = True
        (self._waiting if peer.am_choking else self._served)[peer.number] = peer
        always = self._swarm.settings.always_unchoke
        if peer.am_choking and (always or self._slots_free(now) > 0):
            self._unchoke(peer, now)
        elif not peer.am_choking:
            lucky = self._optimistic is not None
            if not always and self._slots_free(now) < -lucky:
                self._choke(peer, now)  # its slot went to somebody else while it wanted nothing
            else:
                self._spreading.top_up(peer, now)

    def uninterested(self, peer: Peer, now: float) -> None:
        """The peer wants nothing more: its slot is free, but it stays unchoked until somebody needs it."""
        peer.peer_interested = False
        self._forget(peer)
        self.fill_slots(now)

    def nobody_wants(self) -> None:
        """All peers are about to go: no slot is given to somebody else any more."""
        for peer in (*self._served.values(), *self._waiting.values()):
            peer.peer_interested = False
        self._served.clear()
        self._waiting.clear()

    def left(self, peer: Peer, now: float) -> None:
        """The peer is gone already."""
        self._forget(peer)
        self._swarm.unchoked.pop(peer.number, None)
        if self._optimistic == peer.number:
            self._optimistic = None
        self._spreading.left(peer)
        self.fill_slots(now)

    def _forget(self, peer: Peer) -> None:
        self._served.pop(peer.number, None)
        self._waiting.pop(peer.number, None)

    def fill_slots(self, now: float) -> None:
        """Free slots go to whoever gives us most, or has waited longest; last to those who only take."""
        if not self._waiting:
            return
        if self._swarm.settings.always_unchoke:
            chosen = list(self._waiting.values())
        elif (free := self._slots_free(now)) > 0:
            contenders = self._contenders()
            contenders.sort(key=lambda peer: (-peer.gave_lately, peer.only_takes, peer.choked_at))
            chosen = contenders[:free]
        else:
            return
        for peer in chosen:
            self._unchoke(peer, now)

    def _contenders(self, by_lot: int = 0) -> list[Peer]:
        """Of those that wait who may be chosen, in the order of their coming: all. Of a crowd those who gave
        us something lately, some of those who wait longest, and so many more by lot: a slot or two are given
        away, and to weigh thousands against each other takes too long."""
        waiting = self._waiting
        numbers = set(waiting)
        if len(waiting) > CROWD:
            numbers = {peer.number for peer in waiting.values() if peer.down.total and peer.gave_lately}
            numbers.update(islice(waiting, CROWD))
            numbers.update(self._swarm.chance.sample(list(waiting), by_lot))
        return [waiting[number] for number in sorted(numbers)]

    def tick(self, now: float) -> None:
        """Once a second: is it time for a new choice? If not, is there a slot that nobody uses?"""
        if now - self._round_at >= choker.ROUND_S:
            self._round_at = now
            self.choose(now)
        else:
            self.fill_slots(now)

    def choose(self, now: float) -> None:
        """Move the slots to whom the choker says."""
        swarm = self._swarm
        rotate = self._round % choker.OPTIMISTIC_ROUNDS == 0
        self._round += 1
        self._judge_capacity(contested=len(self._served) + len(self._waiting) > self.slots)
        contenders = [*self._served.values(), *self._contenders(by_lot=CROWD)]
        contenders.sort(key=lambda peer: peer.number)
        candidates = [self._candidate(peer, now) for peer in contenders]
        choice = choker.choose(
            candidates,
            slots=self.slots,
            seeding=swarm.satisfied,
            always=swarm.settings.always_unchoke,
            optimistic=None if rotate else self._optimistic,
            chance=swarm.chance,
        )
        self._optimistic = choice.optimistic
        for peer in swarm.peers.values():
            peer.end_round()
            peer.optimistic = peer.number == choice.optimistic
            if peer.number in choice.unchoked:
                if peer.am_choking:
                    self._unchoke(peer, now)
            elif peer.peer_interested and not peer.am_choking:
                self._choke(peer, now)
            elif not peer.am_choking and choice.optimistic is not None:
                self._choke(peer, now)  # slots are contested: nobody comes back into one without asking

    def _judge_capacity(self, *, contested: bool) -> None:
        """What the last round carried is what our line carries, where there was somebody for every slot."""
        sent = self._swarm.up.total
        per_s = (sent - self._sent_before) / choker.ROUND_S
        self._sent_before = sent
        if per_s > self._capacity_per_s:
            self._capacity_per_s = per_s
        elif contested:  # slowly: a round may have been idle
            self._capacity_per_s = max(per_s, self._capacity_per_s / 2)

    def _candidate(self, peer: Peer, now: float) -> choker.Candidate:
        return choker.Candidate(
            peer=peer.number,
            gives_per_s=peer.gave_lately / choker.JUDGED_S,
            takes_per_s=peer.took_lately / choker.JUDGED_S,
            unchoked=not peer.am_choking,
            for_s=now - (peer.choked_at if peer.am_choking else peer.unchoked_at),
            joined_s=now - peer.joined_at,
            snubbing=peer.snubbed,
            only_takes=peer.only_takes,
        )

    def _slots_free(self, now: float) -> int:
        """How many more may be served. The operator's slots are what they are, used or not."""
        slots, served = self.slots, self._served.values()
        if self._swarm.settings.upload_slots:
            return slots - len(served)
        idle = sum(
            not peer.queue and now - max(peer.unchoked_at, peer.served_at) >= IDLE_S for peer in served
        )
        return slots - len(served) + min(idle, slots)

    def _unchoke(self, peer: Peer, now: float) -> None:
        peer.am_choking = False
        peer.unchoked_at = now
        self._swarm.unchoked[peer.number] = peer
        if self._waiting.pop(peer.number, None) is not None:
            self._served[peer.number] = peer
        # What we hand to it goes ahead, or it would begin with pieces of its own choice.
        self._spreading.top_up(peer, now)
        self._swarm.tell(peer, Unchoke())

    def _choke(self, peer: Peer, now: float) -> None:
        peer.am_choking = True
        del self._swarm.unchoked[peer.number]
        if self._served.pop(peer.number, None) is not None:
            self._waiting[peer.number] = peer
        peer.optimistic = False
        peer.choked_at = now
        self._swarm.tell(peer, Choke())
        last = self._nearly_through(peer)
        gone = tuple(request for request in peer.queue if request[0] != last)
        if gone:
            for request in gone:
                del peer.queue[request]
                peer.queue_bytes -= request[2]
            self._swarm.orders.append(Withdraw(peer.number, gone if peer.queue else None, reject=peer.fast))
        self._spreading.take_back(peer, but=last)

    def _nearly_through(self, peer: Peer) -> int | None:
        """A piece that has begun to leave and will soon be gone: the peer is choked, yet gets the rest of it.

        Half a piece is of no use to anybody, and who gets it next gets all of it. With the fast extension a
        choke takes nothing back: each request is answered, by a piece or a reject (BEP 6).
        """
        if not peer.fast or peer.whole_pieces or not peer.queue:
            return None
        piece, begin, _ = next(iter(peer.queue))
        left = sum(length for other, _, length in peer.queue if other == piece)
        soon = max(peer.took_lately / choker.JUDGED_S * LET_THROUGH_S, LET_THROUGH_LEAST_BYTES)
        return piece if begin and left <= soon else None

    # ----------------------------------------------------------------------------------------- requests

    def requested(self, peer: Peer, requests: Sequence[BlockRequest], now: float) -> None:
        """The peer asks for these blocks; the numbers are attacker-controlled. ProtocolError for bad ones."""
        queue = peer.queue
        if peer.whole_pieces and peer.am_choking:
            return  # this crossed with our choke; its wire remembers, and asks again
        if peer.am_choking or len(queue) + len(requests) > QUEUE_MAX:
            self._requested_in_vain(peer, requests)
            return
        swarm = self._swarm
        geometry = swarm.geometry
        bits = swarm.have.bits if peer.shown is None else peer.shown
        whole, pieces = geometry.piece_length, geometry.piece_count - 1  # the last piece may be shorter
        refused: list[BlockRequest] = []
        before, size = len(queue), 0
        for request in requests:
            piece, begin, length = request
            # What nearly every request is like, without a call; the door has the last word on all others.
            if not (
                0 <= piece < pieces
                and begin >= 0
                and 0 < length <= MAX_REQUEST_BYTES
                and begin + length <= whole
            ):
                geometry.admit_request(piece, begin, length)
            if bits[piece]:
                queue[request] = None
                size += length
            else:
                refused.append(request)
        if refused:
            self._refuse(peer, refused)
        if len(queue) == before + len(requests):
            peer.queue_bytes += size
            swarm.orders.append(Serve(peer.number, requests))
        else:
            swarm.hear_noise(peer, before + len(requests) - len(queue))
            fresh = list(islice(queue, before, None))
            peer.queue_bytes += sum(length for _, _, length in fresh)
            if fresh:
                swarm.orders.append(Serve(peer.number, fresh))
        self._spreading.asked(peer, requests, now)

    def cancelled(self, peer: Peer, message: Cancel) -> None:
        """The peer no longer wants a block; it may be on its way already, or was never asked for."""
        request = (message.piece, message.begin, message.length)
        self._swarm.hear_noise(peer)  # nobody gains from asking and cancelling for ever
        if request in peer.queue:
            del peer.queue[request]
            peer.queue_bytes -= message.length
            self._withdraw(peer, request)

    def _withdraw(self, peer: Peer, request: BlockRequest) -> None:
        """Take a block out of the queue. A row of these is one order: each costs a walk over the queue."""
        orders = self._swarm.orders
        last = orders[-1] if orders else None
        row = last.requests if isinstance(last, Withdraw) and last.peer == peer.number else None
        if row and len(row) < WITHDRAWN_TOGETHER:
            orders[-1] = Withdraw(peer.number, (*row, request), reject=peer.fast)
        else:
            orders.append(Withdraw(peer.number, (request,), reject=peer.fast))

    def sent(self, peer: Peer, blocks: int, payload_bytes: int, now: float) -> None:
        """Blocks left us, in the order in which they were asked for."""
        queue = peer.queue
        if blocks >= len(queue):
            queue.clear()
            peer.queue_bytes = 0
        else:
            for request in list(islice(queue, blocks)):
                del queue[request]
                peer.queue_bytes -= request[2]
        peer.served_at = now
        peer.up.add(payload_bytes, now)
        self._swarm.up.add(payload_bytes, now)
        self._spreading.top_up(peer, now)

    def _requested_in_vain(self, peer: Peer, requests: Iterable[BlockRequest]) -> None:
        """Requests of a peer that we choke, or that asks for too much at a time."""
        swarm = self._swarm
        bits = swarm.have.bits if peer.shown is None else peer.shown
        served: list[BlockRequest] = []
        refused: list[BlockRequest] = []
        bound = FAST_QUEUE_MAX if peer.am_choking else QUEUE_MAX
        if not peer.am_choking and not peer.fast:
            bound = QUEUE_MAX * QUEUE_SLACK
        for request in requests:
            piece, _, _ = swarm.geometry.admit_request(*request)
            entitled = not peer.am_choking or piece in peer.fast_given
            if entitled and bits[piece] and len(peer.queue) < bound:
                if request not in peer.queue:
                    peer.queue[request] = None
                    peer.queue_bytes += request[2]
                    served.append(request)
            else:
                refused.append(request)
        if served:
            swarm.orders.append(Serve(peer.number, served))
        if not refused:
            return
        swarm.hear_noise(peer, len(refused))
        if peer.am_choking and not peer.fast:
            return  # as BEP 3 has it: it will ask again when it is unchoked
        self._refuse(peer, refused)

    def _refuse(self, peer: Peer, requests: Sequence[BlockRequest]) -> None:
        if not peer.fast:
            if len(peer.queue) >= QUEUE_MAX:
                raise ProtocolError(f"more than {len(peer.queue)} requests at a time")
            raise ProtocolError(f"a request for piece {requests[0][0]}, which we do not have")
        rejects: list[Message] = [Reject(*request) for request in requests]
        self._swarm.tell(peer, *rejects)

    def check(self) -> None:
        """Recount who is served and who waits."""
        interested = {n: peer for n, peer in self._swarm.peers.items() if peer.peer_interested}
        assert self._served == {n: peer for n, peer in interested.items() if not peer.am_choking}, "served"
        assert self._waiting == {n: peer for n, peer in interested.items() if peer.am_choking}, "waiting"
        unchoked = {n: peer for n, peer in self._swarm.peers.items() if not peer.am_choking}
        assert self._swarm.unchoked == unchoked, "unchoked"

    def fast_has_enough(self, peer: Peer) -> None:
        """A peer that got going has no more need of its allowed fast set (BEP 6)."""
        if peer.fast_given and peer.have is not None and peer.have.count >= SET_SIZE:
            peer.fast_given = frozenset()
