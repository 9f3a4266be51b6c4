"""Where the bytes of a torrent lie below the URL of a web seed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtorrd.proto.metainfo import FileEntry
from microtorrd.proto.web_files import WebFiles, WebSpan


def single(url: str) -> str:
    (span,) = WebFiles(url, "näme 1%.iso", [FileEntry(("näme 1%.iso",), 5)], is_single_file=True).spans(1, 4)
    assert span[1:] == (1, 4, 5)
    return span.url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h/x.iso", "http://h/x.iso"),
        ("http://h/pub/", "http://h/pub/n%C3%A4me%201%25.iso"),
        ("http://h", "http://h/n%C3%A4me%201%25.iso"),
        ("https://u:p@h:8443/pub/?key=a/", "https://u:p@h:8443/pub/n%C3%A4me%201%25.iso?key=a/"),
        ("http://h/pöb/x%20y", "http://h/p%C3%B6b/x%20y"),
        ("http://[::1]:81/a#b", "http://[::1]:81/a"),
    ],
)
def test_a_single_file(url: str, expected: str) -> None:
    assert single(url) == expected


@pytest.mark.parametrize("url", ["http://h/pub", "http://h/pub/"])
def test_several_files(url: str) -> None:
    entries = [
        FileEntry(("t", "a"), 10),
        FileEntry(("t", "empty"), 0),
        FileEntry(("t", ".pad", "2"), 6, is_padding=True),
        FileEntry(("t", "b?", "c#d"), 20),
    ]
    files = WebFiles(url, "t", entries, is_single_file=False)
    assert list(files.spans(8, 20)) == [
        WebSpan("http://h/pub/t/a", 8, 2, 10),
        WebSpan("", 0, 6, 6),
        WebSpan("http://h/pub/t/b%3F/c%23d", 0, 12, 20),
    ]
    assert list(files.spans(35, 1)) == [WebSpan("http://h/pub/t/b%3F/c%23d", 19, 1, 20)]


def test_names_that_are_no_unicode_keep_their_bytes() -> None:
    entry = FileEntry(("t", b"\xff.bin".decode("utf-8", "surrogateescape")), 1)
    (span,) = WebFiles("http://h/", "t", [entry], is_single_file=False).spans(0, 1)
    assert span.url == "http://h/t/%FF.bin"


@given(st.lists(st.integers(0, 9), min_size=1).filter(any), st.data())
def test_spans_are_the_content_cut_at_the_files(lengths: list[int], data: st.DataObject) -> None:
    entries = [FileEntry(("t", str(number)), length) for number, length in enumerate(lengths)]
    files = WebFiles("http://h/", "t", entries, is_single_file=False)
    content = [(number, at) for number, length in enumerate(lengths) for at in range(length)]
    first = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(first, len(content)))
    spans = list(files.spans(first, end - first))
    assert all(span.length > 0 for span in spans)
    assert [
        (int(span.url.rpartition("/")[2]), span.begin + at) for span in spans for at in range(span.length)
    ] == content[first:end]
