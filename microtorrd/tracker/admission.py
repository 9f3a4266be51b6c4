"""Who may use the tracker: everybody for every swarm, or by rules.

| asked for first to last | refused |
|---|---|
| a passkey, where users have some | who has none, or one that is nobody's: for every swarm |
| the deny-list | its swarms, whatever else admits them |
| `listed` | swarms that the allow-list does not name |
| `own` | swarms that are no torrent of this daemon's, and on no allow-list |

The rules are values: who changes them puts others in their place (`TrackerService.admit_by`). What a torrent
of "this daemon" is, only the daemon knows: it hands in `name_of`.
"""

from __future__ import annotations

from collections.abc import Callable

from microtorrd.errors import NotAdmitted
from microtorrd.tracker.lists import Lists
from microtorrd.tracker.service import Admission, OpenAdmission
from microtorrd.tracker.settings import Access

#: What a torrent of the daemon is called, by either of its swarm ids; None for what is none of its torrents.
#: Called on the hub, for each announce where only the daemon's torrents are served: it must not wait.
NameOf = Callable[[bytes], str | None]

NO_PASSKEY = "this tracker asks for a passkey: /announce/PASSKEY"
WRONG_PASSKEY = "the passkey is unknown"
NOT_SERVED = "this tracker does not serve this torrent"


def nobody(swarm_id: bytes) -> str | None:
    """For a tracker without a daemon's torrents around it."""
    return None


def admission(access: Access, lists: Lists, name_of: NameOf) -> Admission:
    """Return what these settings admit."""
    if access == "open" and not lists.denied and lists.passkeys is None:
        return OpenAdmission()
    return RuledAdmission(access, lists, name_of)


class RuledAdmission:
    """Admits by the rules above."""

    def __init__(self, access: Access, lists: Lists, name_of: NameOf) -> None:
        self._lists = lists
        self._is_open = access == "open"
        self._name_of = name_of if access == "own" else nobody

    def check(self, swarm_id: bytes, passkey: str | None) -> None:
        """See Admission; raises NotAdmitted."""
        allowed, denied, passkeys = self._lists
        if passkeys is not None:
            if passkey is None:
                raise NotAdmitted(NO_PASSKEY)
            if passkeys.user_of(passkey) is None:
                raise NotAdmitted(WRONG_PASSKEY)
        if swarm_id in denied:
            raise NotAdmitted(NOT_SERVED, parameter="info_hash")
        if not (self._is_open or swarm_id in allowed or self._name_of(swarm_id) is not None):
            raise NotAdmitted(NOT_SERVED, parameter="info_hash")
