"""Where others see us: the address behind which we sit, as the daemon's peers and trackers tell it
(`yourip` of BEP 10, `external ip` of BEP 24).

No single peer is believed: each host has one vote a family, what most of them say counts, and two have to
agree on it. One for all torrents; it is a hint for BEP 40 and for people, and nothing else rests on it.
"""

from __future__ import annotations

from collections import Counter

from microtorrd.proto.compact import host_text, read_host

#: Voters that are remembered of each family; beyond that the oldest one is forgotten.
VOTERS_MAX = 64

#: So many hosts have to agree.
VOTES_LEAST = 2


class OwnAddresses:
    """The votes of the hosts that we are connected with."""

    __slots__ = ("_found", "_votes")

    def __init__(self) -> None:
        self._votes: dict[int, dict[bytes, bytes]] = {4: {}, 16: {}}  # by bytes of an address: voter, vote
        self._found: dict[int, bytes | None] = {}

    def heard(self, voter: str, vote: bytes) -> None:
        """A peer at this numeric address sees us at that one: 4 or 16 bytes, attacker-controlled."""
        usable, host = read_host(host_text(vote)), read_host(voter)
        if usable is None or host is None or len(usable) != len(host):
            return
        votes = self._votes[len(usable)]
        if votes.get(host) == usable:
            return
        votes.pop(host, None)
        if len(votes) >= VOTERS_MAX:
            del votes[next(iter(votes))]
        votes[host] = usable
        self._found.pop(len(usable), None)

    def told(self, voter: str, text: str) -> None:
        """The same from a tracker, in text (BEP 24)."""
        vote = read_host(text)
        if vote is not None:
            self.heard(voter, vote)

    def host(self, size: int) -> bytes | None:
        """Our address of the family whose addresses have so many bytes (4 or 16); None: nobody knows."""
        if size not in self._found:
            most = Counter(self._votes[size].values()).most_common(1)
            self._found[size] = most[0][0] if most and most[0][1] >= VOTES_LEAST else None
        return self._found[size]

    def known(self) -> list[str]:
        """Our addresses in text, for people."""
        return [host_text(host) for host in (self.host(4), self.host(16)) if host is not None]
