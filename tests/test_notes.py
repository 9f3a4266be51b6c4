"""Notes to subscribers."""

from __future__ import annotations

from microtorrd.notes import NoteBoard


def test_what_a_reader_does_not_want_takes_no_place_in_its_queue() -> None:
    board = NoteBoard(clock=lambda: 5.0)
    reader, other = board.subscribe(bound=2), board.subscribe(bound=2)
    reader.wanted = lambda note: note["kind"] == "completed"
    board.publish("completed", name="a")
    for piece in range(10):
        board.publish("piece_verified", piece=piece)
    assert reader.get(0) == {"kind": "completed", "time": 5.0, "name": "a"}
    assert (reader.get(0), reader.lost) == (None, 0)
    assert other.lost == 9
