"""The memory of pieces: the budget, its one exception, and what is kept."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from microtorrd.disk.buffers import GRAIN_BYTES, IDLE_BYTES, IDLE_S, BufferPool

MIB = 1 << 20


def test_memory_of_at_least_the_size_is_lent_up_to_the_budget() -> None:
    pool = BufferPool(4 * MIB)
    lent = [pool.lend(MIB) for _ in range(5)]
    assert [view and len(view) for view in lent] == [MIB] * 4 + [None]
    assert lent[0] is not None
    pool.give_back(lent[0])
    small = pool.lend(100)
    assert small is not None
    assert len(small) == GRAIN_BYTES
    assert pool.lend(MIB) is None
    assert pool.lent_bytes == 3 * MIB + GRAIN_BYTES


def test_a_piece_larger_than_the_budget_is_lent_when_nothing_else_is() -> None:
    pool = BufferPool(MIB)
    small = pool.lend(1)
    assert small is not None
    assert pool.lend(128 * MIB) is None
    pool.give_back(small)
    large = pool.lend(128 * MIB)
    assert large is not None
    assert len(large) == 128 * MIB
    assert pool.idle_bytes == 0
    assert pool.lend(1) is None
    pool.give_back(large)
    assert pool.idle_bytes == 0, "larger than the budget: not kept"


def test_memory_of_the_same_size_is_lent_again() -> None:
    pool = BufferPool(4 * MIB)
    first = pool.lend(MIB)
    assert first is not None
    first[:5] = b"trace"
    pool.give_back(first)
    assert pool.lend(2 * MIB) is not first
    again = pool.lend(MIB - 5)
    assert again is first
    assert again[:5] == b"trace"


def test_idle_memory_makes_way_for_other_sizes() -> None:
    pool = BufferPool(4 * MIB)
    for view in [pool.lend(MIB) for _ in range(4)]:
        assert view is not None
        pool.give_back(view)
    assert pool.idle_bytes == 4 * MIB
    assert pool.lend(3 * MIB) is not None
    assert (pool.lent_bytes, pool.idle_bytes) == (3 * MIB, MIB)


def test_not_more_than_some_memory_is_kept_and_not_for_long() -> None:
    now = 0.0
    pool = BufferPool(4 * IDLE_BYTES, clock=lambda: now)
    half = IDLE_BYTES // 2
    views = [view for _ in range(3) if (view := pool.lend(half)) is not None]
    pool.give_back(views[0])
    now = 5.0
    pool.give_back(views[1])
    pool.give_back(views[2])
    assert pool.idle_bytes == IDLE_BYTES
    now = 5.0 + IDLE_S - 0.1
    pool.trim()
    assert pool.idle_bytes == IDLE_BYTES
    now = 5.0 + IDLE_S
    pool.trim()
    assert pool.idle_bytes == 0


def test_what_was_not_lent_is_not_taken_back() -> None:
    pool = BufferPool(MIB)
    view = pool.lend(1)
    assert view is not None
    with pytest.raises(ValueError, match="not lent"):
        pool.give_back(memoryview(bytearray(len(view))))
    pool.give_back(view)
    with pytest.raises(ValueError, match="not lent"):
        pool.give_back(view)


class Budget(RuleBasedStateMachine):
    """Whatever is lent and given back, the budget holds and no two borrowers share memory."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BufferPool(16 * GRAIN_BYTES)
        self.lent: list[tuple[memoryview, bytes]] = []
        self.marks = 0

    @rule(size=st.integers(1, 20 * GRAIN_BYTES))
    def lend(self, size: int) -> None:
        view = self.pool.lend(size)
        if view is None:
            assert self.lent
            return
        assert len(view) >= size
        self.marks += 1
        mark = self.marks.to_bytes(4, "big")
        view[:4] = view[-4:] = mark
        self.lent.append((view, mark))

    @precondition(lambda self: self.lent)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        view, mark = self.lent.pop(data.draw(st.integers(0, len(self.lent) - 1)))
        assert view[:4] == view[-4:] == mark
        self.pool.give_back(view)

    @invariant()
    def within_the_budget(self) -> None:
        assert self.pool.lent_bytes == sum(len(view) for view, _ in self.lent)
        total = self.pool.lent_bytes + self.pool.idle_bytes
        assert total <= self.pool.limit_bytes or (len(self.lent) == 1 and self.pool.idle_bytes == 0)


TestBudget = Budget.TestCase
