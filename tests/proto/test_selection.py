"""How files are named and chosen, and what follows for pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.errors import InvalidParams
from microtorrd.proto.geometry import Geometry
from microtorrd.proto.metainfo_model import FileEntry
from microtorrd.proto.selection import (
    HIGH,
    KEPT,
    LEAVING,
    LOW,
    NORMAL,
    OFF,
    Choice,
    choose,
    choose_ranges,
    find_files,
    is_wanted,
    name_of,
    parse_ranges,
    piece_priorities,
)

ENTRIES = (
    FileEntry(("t", "cd 1", "01.flac"), 10),
    FileEntry(("t", ".pad", "1"), 6, is_padding=True),
    FileEntry(("t", "cd 1", "02.flac"), 20),
    FileEntry(("t", "cd 2", "01.flac"), 0),
    FileEntry(("t", "cover[1].JPG"), 5),
    FileEntry(("t", "12"), 5),
)


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["0"], [0]),
        (["0,2-4", "5"], [0, 2, 3, 4, 5]),
        (["0-5"], [0, 2, 3, 4, 5]),  # padding is nobody's choice
        (["*.flac"], [0, 2, 3]),
        (["01.flac"], [0, 3]),
        (["cd 1"], [0, 2]),
        (["cd 1/"], [0, 2]),
        (["cd 1/0*"], [0, 2]),
        (["cd */01.flac"], [0, 3]),
        (["t/cd 2/01.flac"], [3]),
        (["t"], [0, 2, 3, 4, 5]),
        (["*"], [0, 2, 3, 4, 5]),
        (["cover[[]1].JPG"], [4]),
        (["t/12"], [5]),
        (["?2"], [5]),
    ],
)
def test_what_words_name(words: list[str], numbers: list[int]) -> None:
    assert find_files(words, ENTRIES) == numbers


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("*.mp3", "no file matches '*.mp3'"),
        ("COVER*", "no file matches"),
        ("6", "there is no file 6; the last one is 5"),
        ("0,3-9", "there is no file 9"),
        ("4-2", "4-2 is no range"),
        ("01.flac/x", "no file matches"),
        ("", "no file matches"),
    ],
)
def test_what_matches_nothing_is_named(word: str, problem: str) -> None:
    with pytest.raises(InvalidParams, match="files: ") as caught:
        find_files(["0", word], ENTRIES)
    assert problem in str(caught.value)
    assert caught.value.data["word"] == word


def test_a_choice_is_applied_in_its_order() -> None:
    choice = Choice(("*.flac",), (("high", ("cd 1",)), ("off", ("2",)), ("low", ("4",))))
    assert choose(ENTRIES, choice) == bytes([HIGH, NORMAL, OFF, NORMAL, LOW, OFF])
    assert choose(ENTRIES, Choice((), (("normal", ("*",)),))) == b""
    assert Choice.from_json(choice.to_json()) == choice
    assert Choice.from_json(Choice().to_json()) == Choice()


def test_choices_follow_each_other_until_the_files_are_known() -> None:
    choice = Choice().then("off", ["2"]).then("high", ["cd 1"]).then("low", ["2"])
    assert choice == Choice((), (("high", ("cd 1",)), ("low", ("2",))))
    assert choice.then("normal", ["*"]) == Choice(("*",), ())
    assert choose(ENTRIES, choice.then("off", ["*"])) == choose(ENTRIES, Choice((), (("off", ("*",)),)))
    with pytest.raises(InvalidParams, match="3-2 is no range"):
        choice.then("off", ["1", "3-2"])
    with pytest.raises(InvalidParams, match="too much is chosen"):
        for number in range(1000):
            choice = choice.then("off", [f"{number}{'x' * 4000}"])


def test_what_is_chosen_of_a_link_goes_on_top_of_what_it_says() -> None:
    said = ((2, 3),)
    assert choose(ENTRIES, Choice(), said) == choose_ranges(ENTRIES, said)
    marks = choose(ENTRIES, Choice((), (("high", ("3",)),)), said)
    assert [is_wanted(mark) for mark in marks] == [is_wanted(mark) for mark in choose_ranges(ENTRIES, said)]
    assert marks[3] == HIGH
    assert choose(ENTRIES, Choice(("0",)), said) == choose(ENTRIES, Choice(("0",)))


def test_a_link_may_name_files_that_are_not_there() -> None:
    assert choose_ranges(ENTRIES, ((2, 3), (9, 999_999_999))) == bytes(
        [OFF, NORMAL, NORMAL, NORMAL, OFF, OFF]
    )
    with pytest.raises(InvalidParams, match="none of the torrent's files"):
        choose_ranges(ENTRIES, ((1, 1), (7, 8)))


def test_marks_as_people_know_them() -> None:
    marks = (OFF, LOW, NORMAL, HIGH, KEPT, LEAVING)
    assert [name_of(mark) for mark in marks] == ["off", "low", "normal", "high", "off", "off"]
    assert [is_wanted(mark) for mark in marks] == [False, True, True, True, False, False]


@given(st.text(max_size=30))
def test_ranges_are_read_or_refused(text: str) -> None:
    found = parse_ranges(text)
    assert found is None or all(0 <= first < 10**9 and 0 <= last < 10**9 for first, last in found)


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.booleans(), st.sampled_from([OFF, LOW, HIGH, KEPT])), min_size=1
    ),
    st.integers(1, 20),
)
def test_a_piece_is_as_dear_as_the_dearest_file_in_it(layout: list[tuple[int, bool, int]], size: int) -> None:
    entries = [FileEntry(("t", str(n)), length, is_padding=pad) for n, (length, pad, _) in enumerate(layout)]
    geometry = Geometry(sum(length for length, _, _ in layout), size)
    marks = bytes(mark for _, _, mark in layout)
    dear = [mark if is_wanted(mark) and not pad else 0 for length, pad, mark in layout for _ in range(length)]
    expected = [max(dear[at : at + size]) for at in range(0, geometry.length, size)]
    assert piece_priorities(marks, entries, geometry) == bytes(expected)
    assert piece_priorities(b"", entries, geometry) is None


def test_digits_of_other_scripts_are_names() -> None:
    entries = (FileEntry(("t", "a"), 1), FileEntry(("t", "b"), 1), FileEntry(("t", "\u0661"), 1))
    assert parse_ranges("\u0661") is None
    assert find_files(["\u0661"], entries) == [2]
