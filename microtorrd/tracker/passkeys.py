"""Passkeys: who may announce, told by a word that only this user has, as the last part of the path.

A passkey is as good as a password. It is never kept, logged or shown: what is kept is a keyed digest of it,
whose key lives no longer than the process, so that neither a copy of the memory's tables nor the time that a
look takes tells anything of the passkeys that are right. A user's name is for people and no secret.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from hashlib import blake2b

#: What a passkey looks like: nothing in it needs escaping in a URL, and nobody guesses 16 such letters.
FORM = re.compile(r"[A-Za-z0-9_-]{16,64}")

#: Requests whose last part may be a passkey.
_BEFORE = (b"/announce/", b"/scrape/")


class Passkeys:
    """The users of a tracker, found by their passkeys."""

    def __init__(self, users: Iterable[tuple[str, str]]) -> None:
        """`users`: each with passkey and name."""
        self._secret = secrets.token_bytes(32)
        self._users = {self._digest(passkey): name for passkey, name in users}

    def __len__(self) -> int:
        return len(self._users)

    def user_of(self, passkey: str) -> str | None:
        """Return the name of the user whose passkey (attacker-controlled) this is; None: it is nobody's."""
        return self._users.get(self._digest(passkey))

    def _digest(self, passkey: str) -> bytes:
        return blake2b(passkey.encode("utf-8", "replace"), key=self._secret, digest_size=16).digest()


def split_path(path: bytes) -> tuple[bytes, str | None]:
    """Part the passkey from the path of a request: `/announce` and the passkey, or the path and None.

    `path` (attacker-controlled) is as it stands in the request. What is escaped is left to who unescapes it.
    """
    for before in _BEFORE:
        if path.startswith(before):
            passkey = path[len(before) :]
            if passkey and b"/" not in passkey and b"%" not in passkey:
                return before[:-1], passkey.decode("latin-1")
    return path, None
