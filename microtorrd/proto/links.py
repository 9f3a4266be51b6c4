"""Where the symbolic links of a torrent lead (BEP 47): which can be made, and what is written in them.

A link may lead to a file of the torrent or to a directory with files in it, and nowhere else: not out of it,
not to where nothing is, and not in a circle, in which who follows links never comes to an end. One that leads
through others is made to lead straight to where they end, so nothing is ever reached through two of them.
What a link leads to is said by hostile strangers, so all of this holds whatever they say: what cannot be made
is a link that leads nowhere, and is not made.

Paths here are below the torrent's name. That none lies beneath a link is seen to in `paths.check_distinct`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from msgspec.structs import replace

from microtorrd.proto.metainfo_model import FileEntry

Parts = tuple[str, ...]

#: Of a chain with more links than that nobody can say what it is good for.
MOST_HOPS = 8

#: Where there are more links to directories none is made: whether they make circles would take long to see.
MOST_TO_DIRECTORIES = 500


def settle(files: tuple[FileEntry, ...]) -> tuple[FileEntry, ...]:
    """The same files; each link among them leads to where it ends, or nowhere."""
    links = {entry.path[1:]: entry.link for entry in files if entry.is_link}
    if not links:
        return files
    names = sorted(links)
    real = sorted(entry.path[1:] for entry in files if entry.is_on_disk)
    ends = {name: _end(name, links, names, real) for name in names}
    to_directories = {name: end for name, end in ends.items() if end and real[bisect_left(real, end)] != end}
    for name in to_directories.keys() - _without_circles(to_directories):
        ends[name] = ()
    return tuple([replace(entry, link=ends[entry.path[1:]]) if entry.is_link else entry for entry in files])


def text_of(link: Parts, target: Parts) -> str:
    """What is written in a link at this path, so that it leads there from wherever the torrent lies."""
    above = link[:-1]
    common = 0
    while common < min(len(above), len(target)) and above[common] == target[common]:
        common += 1
    return "/".join((*[".."] * (len(above) - common), *target[common:]))


def _end(link: Parts, links: dict[Parts, Parts], names: Sequence[Parts], real: Sequence[Parts]) -> Parts:
    """Where this link ends among the real files, or directories of them; nothing where it does not."""
    target = links[link]
    for _ in range(MOST_HOPS):
        # No link lies beneath another, so at most one is on the way, and sorts right before what is beyond.
        at = bisect_right(names, target) - 1
        through = names[at] if at >= 0 else ()
        if not through or target[: len(through)] != through:
            lies_in_it = link[: len(target)] == target
            return target if _is_there(target, real) and not lies_in_it else ()
        onward = links[through]
        if not onward:
            return ()
        target = onward + target[len(through) :]
    return ()


def _is_there(target: Parts, real: Sequence[Parts]) -> bool:
    at = bisect_left(real, target)
    return bool(target) and at < len(real) and real[at][: len(target)] == target


def _without_circles(ends: dict[Parts, Parts]) -> set[Parts]:
    """Those of these links to directories that come to an end, whichever links are followed there."""
    if len(ends) > MOST_TO_DIRECTORIES:
        return set()
    names = sorted(ends)
    lying = {}  # which links lie in the directory that one leads to: a run of the sorted names
    for name, end in ends.items():
        first = bisect_left(names, end)
        last = first
        while last < len(names) and names[last][: len(end)] == end:
            last += 1
        lying[name] = (first, last)
    waits = {name: last - first for name, (first, last) in lying.items()}  # for so many to be found free
    free: set[Parts] = set()
    fresh = [name for name in names if not waits[name]]
    while fresh:
        found = fresh.pop()
        free.add(found)
        at = bisect_left(names, found)
        for name, (first, last) in lying.items():
            if first <= at < last:
                waits[name] -= 1
                if not waits[name]:
                    fresh.append(name)
    return free
