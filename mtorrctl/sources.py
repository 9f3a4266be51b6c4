"""Where the bytes of a `.mtorrent` come from: a file, standard input, or a web server.

The client reads them and sends them to the daemon, which needs no right to the user's files and is never made
to fetch a URL. Everything is bounded: size, time, redirects, and the schemes that a redirect may lead to.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from typing import TYPE_CHECKING, BinaryIO

from microtorrd import __version__
from microtorrd.errors import InvalidMetainfo, InvalidParams
from microtorrd.proto.jsonrpc import MAX_METAINFO_BYTES
from mtorrctl.exits import Failure, WrongUsage
from mtorrctl.render import clean, exact_size

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

    from microtorrd.proto.metainfo import Metainfo

#: One read from a web server may take this long, and all of them together that long.
READ_S = 30.0
FETCH_S = 300.0

CHUNK_BYTES = 256 << 10


def is_magnet(source: str) -> bool:
    """Whether it is a magnet link, which is for the daemon to follow."""
    return source.lower().startswith("magnet:")


def check_magnet(link: str) -> str:
    """The link, if the daemon will be able to follow it. Raises WrongUsage."""
    from microtorrd.proto.magnet import parse_magnet

    try:
        parse_magnet(link)
    except InvalidParams as error:
        raise WrongUsage(str(error)) from None
    return link


def read_metainfo(source: str) -> bytes:
    """The bytes behind a path, `-` or an http(s) URL. Raises Failure; WrongUsage for what cannot be one."""
    if is_magnet(source):
        raise WrongUsage(
            "a magnet link holds no metainfo",
            "give the .mtorrent or .torrent file, or its http or https URL; `mtorrctl add` takes links",
        )
    if source.lower().startswith(("http://", "https://")):
        return _fetch(source)
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", source) and not os.path.exists(source):
        raise WrongUsage(f"{clean(source)}: only http and https URLs are fetched")
    if source == "-":
        return _read_whole(sys.stdin.buffer, "standard input")
    return _read_file(source)


def parse_named(raw: bytes, source: str) -> Metainfo:
    """The torrent that these bytes describe. Raises Failure that names where they came from."""
    from microtorrd.proto import metainfo

    try:
        return metainfo.parse(raw)
    except InvalidMetainfo as error:
        raise unfit(raw, source, error) from None


def unfit(raw: bytes, source: str, error: InvalidMetainfo) -> Failure:
    """What is said of bytes that describe no torrent. A file of another kind may be meant to be shared."""
    is_content = not raw.startswith(b"d") and os.path.exists(source)
    return Failure(
        f"{clean(source)}: {error}", f"to share it: mtorrctl seed {clean(source)}" if is_content else ""
    )


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                _check_size(os.fstat(file.fileno()).st_size, path)
            return _read_whole(file, path)
    except IsADirectoryError:
        raise Failure(f"{clean(path)} is a directory", f"to share it: mtorrctl seed {clean(path)}") from None
    except OSError as error:
        raise Failure(f"{clean(path)}: {error.strerror or error}") from None
    except ValueError as error:  # an embedded NUL
        raise WrongUsage(f"{clean(path)}: {error}") from None


def _read_whole(file: BinaryIO, name: str) -> bytes:
    raw = file.read(MAX_METAINFO_BYTES + 1)
    _check_size(len(raw), name)
    if not raw:
        raise Failure(f"{clean(name)} is empty")
    return raw


def _check_size(size_bytes: int, name: str) -> None:
    if size_bytes > MAX_METAINFO_BYTES:
        raise Failure(
            f"{clean(name)} is no .mtorrent: it has more than {exact_size(MAX_METAINFO_BYTES)}",
            f"to share it: mtorrctl seed {clean(name)}" if os.path.exists(name) else "",
        )


# ------------------------------------------------------------------------------------------------- the web


def _fetch(url: str) -> bytes:
    # Half of the client's start time if it were imported for every command.
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import Request

    shown = clean(url)
    end = time.monotonic() + FETCH_S
    try:
        request = Request(url, headers={"User-Agent": f"mtorrctl/{__version__}"})
        with _opener().open(request, timeout=READ_S) as answer:
            announced = answer.headers.get("Content-Length", "")
            length = int(announced) if announced.isdecimal() else 0
            _check_size(length, url)
            parts = []
            total = 0
            while chunk := answer.read1(CHUNK_BYTES):
                parts.append(chunk)
                total += len(chunk)
                _check_size(total, url)
                if time.monotonic() > end:
                    raise Failure(f"{shown}: not done within {FETCH_S:g} s")
            if total < length:
                raise Failure(f"{shown}: the answer ended after {total} of {length} bytes")
            raw = b"".join(parts)
    except HTTPError as error:
        error.close()
        raise Failure(f"{shown}: the server answered {error.code} {clean(error.reason)}") from None
    except URLError as error:
        reason = error.reason.strerror if isinstance(error.reason, OSError) else None
        raise Failure(f"{shown}: {clean(reason or error.reason)}") from None
    except TimeoutError:
        raise Failure(f"{shown}: no answer within {READ_S:g} s") from None
    except (HTTPException, OSError, ValueError) as error:
        raise Failure(f"{shown}: {clean(error) or type(error).__name__}") from None
    if not raw:
        raise Failure(f"{shown}: the answer is empty")
    if raw[:256].lstrip()[:1] == b"<":
        raise Failure(f"{shown} is a web page, not a .mtorrent", "is it the address of the file itself?")
    return raw


def _opener() -> OpenerDirector:
    from urllib.request import (
        HTTPDefaultErrorHandler,
        HTTPErrorProcessor,
        HTTPHandler,
        HTTPRedirectHandler,
        HTTPSHandler,
        OpenerDirector,
        ProxyHandler,
        UnknownHandler,
    )

    opener = OpenerDirector()
    # No handler for file:, ftp: or data:, so a redirect cannot lead there.
    for handler in (
        ProxyHandler,
        UnknownHandler,
        HTTPHandler,
        HTTPSHandler,
        HTTPDefaultErrorHandler,
        HTTPRedirectHandler,
        HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
