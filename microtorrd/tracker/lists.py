"""The files that say who may use the tracker: allow-list, deny-list, users with their passkeys.

Text, a line each; `#` begins a comment at the start of a line or behind a space. What is wrong in them is a
ConfigError with setting, file and line, and nothing of the file is taken: half a list would shut out, or let
in, who was meant otherwise. Passkeys are not quoted in errors.

Reading waits for a disk: callers do it where that holds up nobody.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from microtorrd.errors import ConfigError
from microtorrd.tracker.passkeys import FORM, Passkeys

#: Of one file: 780,000 swarms, which take 100 MB of memory.
MAX_FILE_BYTES = 32 << 20

MAX_NAME_CHARACTERS = 100

_SWARM_ID = re.compile(r"[0-9a-fA-F]{40}")
_COMMENT = re.compile(r"(?:^|\s)#.*")


class ListFiles(Protocol):
    """Which files; "" is none."""

    @property
    def allow_file(self) -> str: ...
    @property
    def deny_file(self) -> str: ...
    @property
    def passkeys_file(self) -> str: ...


class Lists(NamedTuple):
    """What the files say."""

    allowed: frozenset[bytes] = frozenset()  # swarm ids, 20 bytes
    denied: frozenset[bytes] = frozenset()
    passkeys: Passkeys | None = None  # None: nobody needs one


NO_LISTS = Lists()


def read_lists(files: ListFiles) -> Lists:
    """Read them; blocks. Raises ConfigError."""
    return Lists(
        allowed=_swarms(files.allow_file, "tracker.allow_file"),
        denied=_swarms(files.deny_file, "tracker.deny_file"),
        passkeys=_passkeys(files.passkeys_file, "tracker.passkeys_file") if files.passkeys_file else None,
    )


def _swarms(path: str, key: str) -> frozenset[bytes]:
    return frozenset(_swarm_ids(path, key)) if path else frozenset()


def _swarm_ids(path: str, key: str) -> Iterator[bytes]:
    for number, text in _lines(path, key):
        if not _SWARM_ID.fullmatch(text):
            # Not quoted: where the users' file is named here by mistake, it is a passkey.
            raise ConfigError(
                f"a line is a swarm id, which has 40 hex digits ({key})", key=key, file=path, line=number
            )
        yield bytes.fromhex(text)


def _passkeys(path: str, key: str) -> Passkeys:
    users: dict[str, tuple[str, int]] = {}
    for number, text in _lines(path, key):
        passkey, _, name = text.partition(" ")
        name = name.strip()
        wrong = ""
        if not FORM.fullmatch(passkey):
            wrong = "a line is a passkey of 16 to 64 letters, digits, - and _, a space, and a name"
        elif not name or len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
            wrong = f"behind the passkey stands a name of 1 to {MAX_NAME_CHARACTERS} letters"
        elif passkey in users:
            wrong = f"line {users[passkey][1]} has the same passkey"
        if wrong:
            raise ConfigError(f"{wrong} ({key})", key=key, file=path, line=number)
        users[passkey] = (name, number)
    return Passkeys((passkey, name) for passkey, (name, _) in users.items())


def _lines(path: str, key: str) -> Iterator[tuple[int, str]]:
    """The lines that say something, without comments, with their numbers."""
    for number, raw in enumerate(_read(path, key).removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            line = raw.decode()
        except UnicodeDecodeError:
            raise ConfigError(f"is not UTF-8 text ({key})", key=key, file=path, line=number) from None
        text = " ".join(_COMMENT.sub("", line).split())
        if text:
            yield number, text


def _read(path: str, key: str) -> bytes:
    try:
        # A pipe that nobody writes to would never come to its end.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"is not a file ({key})", key=key, file=path)
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror} ({key})", key=key, file=path) from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"has more than {MAX_FILE_BYTES >> 20} MiB ({key})", key=key, file=path)
    return data
