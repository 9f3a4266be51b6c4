"""The files that say who may use the tracker: what is read, and what is wrong with them, by file and line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.errors import ConfigError
from microtorrd.tracker.lists import MAX_FILE_BYTES, Lists, read_lists
from microtorrd.tracker.settings import TrackerSettings

ONE, TWO = bytes(range(20)), b"\xab" * 20
KEY = "0123456789abcdef"


def allowed(file: Path) -> frozenset[bytes]:
    return read_lists(TrackerSettings(allow_file=str(file))).allowed


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "list"


def test_no_files_are_no_lists() -> None:
    assert read_lists(TrackerSettings()) == Lists()


def test_a_list_has_an_id_a_line_in_any_case_and_comments(file: Path) -> None:
    file.write_text(
        f"\ufeff# images\r\n\n  {ONE.hex()}\t# the first\r\n{TWO.hex().upper()}\n#{ONE.hex()}\n{TWO.hex()}"
    )
    assert allowed(file) == {ONE, TWO}
    assert read_lists(TrackerSettings(deny_file=str(file))) == Lists(denied=frozenset([ONE, TWO]))
    file.write_text("")
    assert allowed(file) == frozenset()


def test_users_have_a_passkey_and_a_name(file: Path) -> None:
    file.write_text(f"# who\n{KEY}  Ada Lovelace # of London\n{KEY}-_X Bob#2\n")
    passkeys = read_lists(TrackerSettings(passkeys_file=str(file))).passkeys
    assert passkeys is not None
    assert (passkeys.user_of(KEY), passkeys.user_of(f"{KEY}-_X")) == ("Ada Lovelace", "Bob#2")
    assert (len(passkeys), passkeys.user_of("")) == (2, None)
    file.write_text("")
    empty = read_lists(TrackerSettings(passkeys_file=str(file))).passkeys
    assert empty is not None, "nobody has one, and everybody needs one"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("no id\n", 1, "a line is a swarm id, which has 40 hex digits (tracker.allow_file)"),
        (f"# x\n{'0' * 39}\n", 2, "a line is a swarm id"),
        (f"{'0' * 40}\n{'0' * 40} x\n", 2, "a line is a swarm id"),
        ("0" * 41, 1, "a line is a swarm id"),
        (f"{KEY} Ada\n", 1, "a line is a swarm id"),
        (b"\n\nk\xe4se\n", 3, "is not UTF-8 text"),
    ],
)
def test_what_is_wrong_in_a_list_is_named(file: Path, text: str | bytes, line: int, says: str) -> None:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        allowed(file)
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert says in str(caught.value)
    assert (caught.value.key, caught.value.line) == ("tracker.allow_file", line)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("short Ada\n", 1, "a line is a passkey of 16 to 64 letters, digits, - and _, a space, and a name"),
        (f"{KEY}/{KEY} Ada\n", 1, "a line is a passkey"),
        (f"{KEY * 4}0 Ada\n", 1, "a line is a passkey"),
        (f"\n{KEY}\n", 2, "behind the passkey stands a name of 1 to 100 letters"),
        (f"{KEY} # Ada\n", 1, "stands a name"),
        (f"{KEY} Ada\x1b[2J\n", 1, "stands a name"),
        (f"{KEY} {'x' * 101}\n", 1, "stands a name"),
        (f"{KEY} Ada\n{KEY} Bob\n", 2, "line 1 has the same passkey"),
    ],
)
def test_what_is_wrong_with_a_user_is_named_and_the_passkey_is_not(
    file: Path, text: str, line: int, says: str
) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_lists(TrackerSettings(passkeys_file=str(file)))
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert says in str(caught.value)
    assert KEY not in str(caught.value)


def test_what_is_no_file_is_refused_and_not_waited_for(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        allowed(file)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        allowed(tmp_path)
    os.mkfifo(file)
    with pytest.raises(ConfigError, match="is not a file"):
        allowed(file)
    file.unlink()
    with file.open("wb") as sparse:
        sparse.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ConfigError, match="has more than 32 MiB"):
        allowed(file)


@given(raw=st.binary(max_size=200) | st.text(f"{KEY} #\n\t-", max_size=200).map(str.encode))
def test_any_bytes_are_lists_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any"
    file.write_bytes(raw)
    for setting in ("allow_file", "deny_file", "passkeys_file"):
        try:
            read_lists(TrackerSettings(**{setting: str(file)}))
        except ConfigError as error:
            assert error.file == str(file)
