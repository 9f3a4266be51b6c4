"""Where the bytes of a torrent lie below the URL of a web seed (BEP 19, GetRight style).

Rules: a URL that ends in `/` is the directory of the content, and the torrent's name is appended, with the
file's path where there are several. That of a single file is taken as it stands otherwise; for several files
the missing `/` is supplied, as deployed clients do. Padding (BEP 47) lies nowhere: it is zeros.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

from microtorrd.proto.metainfo_model import FileEntry

#: What may stand in a path or query as it is; a percent sign is taken for an escape that is there already.
_SAFE_PATH = "/%:@!$&'()*+,;=~"
_SAFE_QUERY = _SAFE_PATH + "?"


class WebSpan(NamedTuple):
    """A run of content bytes within one file of a web seed."""

    url: str  # "" for padding: zeros
    begin: int  # in the file
    length: int
    file_length: int


class WebFiles:
    """The files of one torrent below one URL. `name` is the torrent's."""

    __slots__ = ("_begins", "_entries", "_is_single_file", "_name", "url")

    def __init__(self, url: str, name: str, entries: Sequence[FileEntry], *, is_single_file: bool) -> None:
        self.url = url
        self._name = name
        self._is_single_file = is_single_file
        # Empty files hold no offset and would confuse the bisection.
        self._entries = [entry for entry in entries if entry.length]
        self._begins = list(accumulate((entry.length for entry in self._entries), initial=0))[:-1]

    def spans(self, offset: int, length: int) -> Iterator[WebSpan]:
        """The files that hold these bytes of the content, in order."""
        at = bisect_right(self._begins, offset) - 1
        while length > 0:
            entry, begin = self._entries[at], offset - self._begins[at]
            part = min(length, entry.length - begin)
            yield WebSpan("" if entry.is_padding else self._url_of(entry), begin, part, entry.length)
            offset, length, at = offset + part, length - part, at + 1

    def _url_of(self, entry: FileEntry) -> str:
        scheme, netloc, path, query, _ = urlsplit(self.url)
        path = quote(path or "/", safe=_SAFE_PATH)
        if self._is_single_file:
            parts: tuple[str, ...] = (self._name,) if path.endswith("/") else ()
        else:
            parts = (self._name, *entry.path[1:])
            path = path if path.endswith("/") else f"{path}/"
        path += "/".join(quote(part, safe="", errors="surrogateescape") for part in parts)
        return urlunsplit((scheme, netloc, path, quote(query, safe=_SAFE_QUERY), ""))
