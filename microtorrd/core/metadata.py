"""Puts the info dictionary of a magnet link together from pieces of 16 KiB that peers hand over (BEP 9).

One `Assembly` for each size that peers name: a liar about the size delays nobody else. Rules:
- at first every peer that names this size is asked for other pieces, up to `PIPELINE` at a time;
- only the whole can be checked. When it was wrong and several peers had a hand in it, nobody knows who lied:
  from then on it is fetched from one peer at a time, and whoever brings a wrong one alone is found out;
- who does not answer within `ANSWER_S` is passed over for the others, and given up after `STRIKES_MAX` times;
- memory grows with what has come, never with what is claimed.

Nothing here knows of connections, addresses or hashes; times are handed in.
"""

from __future__ import annotations

from microtorrd.errors import ProtocolError
from microtorrd.proto.metadata import piece_count, piece_size

#: Pieces asked of one peer at a time: some clients refuse more than a handful.
PIPELINE = 4

#: A piece that has not come after this time is asked for elsewhere.
ANSWER_S = 10.0

#: A peer that let us wait so often in a row hands nothing over.
STRIKES_MAX = 3

#: Who refused is not asked again for so long: it may be fetching the metadata itself, or bound its rate.
REFUSED_S = 5.0


class Source:
    """One peer that says it has the metadata."""

    __slots__ = ("asked", "ever", "rests_until", "strikes", "turns")

    def __init__(self) -> None:
        self.asked: dict[int, float] = {}  # pieces, and when
        self.ever: set[int] = set()  # asked of it at any time: an answer may come late
        self.rests_until = 0.0
        self.strikes = 0  # times in a row that it let us wait
        self.turns = 0  # how often it was the only one asked


class Assembly:
    """The metadata of one size. `alone`: from one peer at a time, from the beginning."""

    __slots__ = ("_asked", "_count", "_givers", "_parts", "alone", "chosen", "judging", "size", "sources")

    def __init__(self, size: int, *, alone: bool = False) -> None:
        self.size = size
        self.alone = alone
        self.judging = False  # it is whole, and being checked
        self.sources: dict[int, Source] = {}
        self.chosen: int | None = None  # whose turn it is, with `alone`
        self._count = piece_count(size)
        self._parts: dict[int, bytes] = {}
        self._givers: dict[int, int] = {}  # piece: the peer that brought it
        self._asked: dict[int, int] = {}  # piece: the peer that is to bring it

    @property
    def progress(self) -> float:
        """How much of it is here, 0 to 1."""
        return len(self._parts) / self._count

    @property
    def givers(self) -> set[int]:
        """Who had a hand in it, those that left included."""
        return set(self._givers.values())

    def add(self, peer: int) -> None:
        """This peer says that it has the metadata, of this size."""
        self.sources.setdefault(peer, Source())

    def remove(self, peer: int) -> None:
        """It is gone, or says so no more. What it brought stays, unless it was the only one asked."""
        if self.sources.pop(peer, None) is None:
            return
        self._asked = {piece: other for piece, other in self._asked.items() if other != peer}
        if self.chosen == peer and not self.judging:
            self._begin_anew()

    def wants(self, now: float) -> list[tuple[int, int]]:
        """What to ask now, as (peer, piece). It counts as asked."""
        if self.judging:
            return []
        orders: list[tuple[int, int]] = []
        missing = iter([p for p in range(self._count) if p not in self._parts and p not in self._asked])
        for number, source in self._those_to_ask(now):
            while len(source.asked) < PIPELINE:
                piece = next(missing, None)
                if piece is None:
                    return orders
                source.asked[piece] = now
                source.ever.add(piece)
                self._asked[piece] = number
                orders.append((number, piece))
        return orders

    def received(self, peer: int, piece: int, raw: bytes) -> bool:
        """A piece has come. True: it was the last one; ProtocolError: it cannot be one that we asked for."""
        source = self.sources.get(peer)
        if source is None or self.judging:
            return False
        if piece >= self._count or len(raw) != piece_size(self.size, piece):
            raise ProtocolError(f"piece {piece} of the metadata with {len(raw)} bytes")
        if piece not in source.ever:
            raise ProtocolError(f"piece {piece} of the metadata, which nobody asked for")
        source.strikes = 0
        source.asked.pop(piece, None)
        if piece in self._parts or (self.alone and self.chosen != peer):
            return False
        self._parts[piece] = raw
        self._givers[piece] = peer
        other = self._asked.pop(piece, peer)
        if other != peer and other in self.sources:
            self.sources[other].asked.pop(piece, None)
        return len(self._parts) == self._count

    def rejected(self, peer: int, piece: int, now: float) -> None:
        """It does not give this piece."""
        source = self.sources.get(peer)
        if source is None or source.asked.pop(piece, None) is None:
            return
        source.rests_until = now + REFUSED_S
        self._free(peer, piece)
        self._pass_on(peer)

    def look_after(self, now: float) -> list[int]:
        """Once a second: whoever is too slow is passed over. Returned are the peers to give up."""
        hopeless: list[int] = []
        for number, source in list(self.sources.items()):
            late = [piece for piece, at in source.asked.items() if now - at > ANSWER_S]
            if not late:
                continue
            source.strikes += 1
            source.rests_until = now + REFUSED_S
            for piece in late:
                del source.asked[piece]
                self._free(number, piece)
            if source.strikes >= STRIKES_MAX:
                hopeless.append(number)
            else:
                self._pass_on(number)
        return hopeless

    def whole(self) -> bytes:
        """All of it. From now on it is being checked."""
        self.judging = True
        return b"".join(self._parts[piece] for piece in range(self._count))

    def spoiled(self) -> None:
        """It was wrong. Fetch it again, from one peer at a time."""
        self.judging = False
        self.alone = True
        self._begin_anew()

    # ---------------------------------------------------------------------------------------- within

    def _those_to_ask(self, now: float) -> list[tuple[int, Source]]:
        if self.alone:
            if self.chosen is None:
                self._choose(now)
            chosen = None if self.chosen is None else self.sources[self.chosen]
            awake = chosen is not None and chosen.rests_until <= now
            return [(self.chosen, chosen)] if self.chosen is not None and chosen and awake else []
        ready = [item for item in self.sources.items() if item[1].rests_until <= now]
        return sorted(ready, key=lambda item: (item[1].strikes, len(item[1].asked)))

    def _choose(self, now: float) -> None:
        """Whose turn it is: who had the fewest, and of those whoever is not resting."""
        if self.sources:
            self.chosen = min(
                self.sources, key=lambda n: (self.sources[n].turns, self.sources[n].rests_until > now, n)
            )
            self.sources[self.chosen].turns += 1

    def _pass_on(self, peer: int) -> None:
        """The only one asked fails us: with another one it begins from the beginning."""
        if self.alone and self.chosen == peer and len(self.sources) > 1:
            self._begin_anew()

    def _free(self, peer: int, piece: int) -> None:
        if self._asked.get(piece) == peer:
            del self._asked[piece]

    def _begin_anew(self) -> None:
        self.chosen = None
        self._parts.clear()
        self._givers.clear()
        self._asked.clear()
        for source in self.sources.values():
            source.asked.clear()
