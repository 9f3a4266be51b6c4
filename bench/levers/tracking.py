"""Levers of the tracker that we serve."""

from __future__ import annotations

from typing import Any

from bench.levers.swaps import Lever, Swap, around, without_cache


def read_each_time(self: Any, block: bytes) -> Any:
    """Headers are read however often they were read before."""
    from microtorrd.tracker.head import read_headers

    return read_headers(block)


def hosts_read_each_time(original: Any, service: Any, *arguments: Any) -> None:
    """No address is remembered by the service …"""
    original(service, *arguments)
    service._read_host = service._read_host.__wrapped__


def sources_read_each_time(original: Any, rule: Any, *arguments: Any) -> None:
    """… nor by the rule of sources."""
    original(rule, *arguments)
    rule._read = rule._read_address


def with_all_around(original: Any) -> Any:
    """gevent's own socket, which is one of the standard library's inside."""
    from gevent import socket

    class Around(socket.socket):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.settimeout(0.0)

    return Around


def watched_from_the_start(original: Any, server: Any, client: Any) -> None:
    """Every connection waits for its first request, also for one that is there."""
    if client.watcher is None:
        server._wait(client)
    else:
        original(server, client)


def noted(self: Any) -> bool:
    """As if somebody always listened."""
    return True


LEVERS = (
    Lever(
        "quiet-tracker",
        "an announce makes no note while nobody subscribed",
        (Swap("microtorrd.notes:NoteBoard.has_readers", property(noted)),),
        ("tracker.cpu",),
    ),
    Lever(
        "known-swarms",
        "the id of a swarm is unescaped once for all its peers",
        (Swap("microtorrd.proto.announce:_swarm_id", make=without_cache),),
        ("tracker.cpu",),
    ),
    Lever(
        "known-hosts",
        "the address of a client is read once",
        (
            Swap("microtorrd.tracker.service:TrackerService.__init__", make=around(hosts_read_each_time)),
            Swap("microtorrd.tracker.source:SourceRule.__init__", make=around(sources_read_each_time)),
        ),
        ("tracker.cpu",),
    ),
    Lever(
        "known-headers",
        "equal blocks of headers are read once",
        (Swap("microtorrd.tracker.http:HttpServer._read_headers", read_each_time),),
        ("tracker.cpu",),
    ),
    Lever(
        "bare-sockets",
        "a connection to the tracker is the interpreter's own socket, with nothing around it",
        (Swap("microtorrd.tracker.http:_Socket", make=with_all_around),),
        ("tracker.closing-cpu",),
    ),
    Lever(
        "late-watchers",
        "a connection gets a watcher when it has to wait, not when it comes",
        (Swap("microtorrd.tracker.http:HttpServer._on_readable", make=around(watched_from_the_start)),),
        ("tracker.closing-cpu",),
    ),
)
