"""Blocks that a peer's wire had filled before the core dropped the peer, and that it hears of afterwards."""

from __future__ import annotations

from microtorrd.core.events import BlocksReceived, Drop, PeerJoined, Store
from tests.core.rig import Rig, peer_id


def crossing(rig: Rig, number: int) -> PeerJoined:
    """A newer connection of peer 7, which replaces the older one."""
    return PeerJoined(number, None, peer_id(7), True, True, False, host="10.0.0.7")


def test_blocks_of_a_peer_that_was_dropped_meanwhile_can_be_fetched_from_others() -> None:
    rig = Rig(".", blocks=2)
    rig.join(1, "all", host="10.0.0.7", identity=peer_id(7))
    slots = list(rig.lent[1])
    assert len(slots) == 2
    slots[0].filled_by = 1  # its wire got this far when the newer connection was made …
    rig.lent[2] = []
    orders = rig.do(crossing(rig, 2), BlocksReceived(1, slots[:1]))  # … and is heard in the same batch
    assert [order.peer for order in orders if isinstance(order, Drop)] == [1]
    rig.join(3, "all")
    orders = rig.deliver(3)
    assert [order.buffer.piece for order in orders if isinstance(order, Store)] == [0]


def test_blocks_that_another_peer_brought_since_stay_as_they_are() -> None:
    rig = Rig(".", blocks=3)
    rig.join(1, "all", host="10.0.0.7", identity=peer_id(7))
    slots = list(rig.lent[1])
    rig.deliver(1, 1)
    rig.lent[2] = []
    rig.do(crossing(rig, 2))
    rig.join(3, "all")
    rig.deliver(3, 1)
    rig.do(BlocksReceived(1, slots))
    assert sorted(slot.filled_by or 0 for slot in slots) == [0, 1, 3]
    orders = rig.deliver(3)
    assert [order.buffer.piece for order in orders if isinstance(order, Store)] == [0]
