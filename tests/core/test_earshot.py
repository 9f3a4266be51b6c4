"""How much is taken in of what neighbours say."""

from __future__ import annotations

from microtorrd.core.earshot import (
    HEARD_BURST,
    HOSTS_MAX,
    NEW_BURST,
    NEW_PER_S,
    OF_A_HOST_BURST,
    OF_A_HOST_PER_S,
    PORT_KEPT_S,
    PORTS_OF_A_HOST,
    Earshot,
)

HOST = "192.168.1.9"


def believed(earshot: Earshot, host: str, ports: range, now: float) -> list[int]:
    """Those of the ports that are believed, named one a datagram."""
    return [port for port in ports if earshot.may_speak(host, now) and earshot.is_believed(host, port, now)]


def test_one_host_is_heard_so_often_and_others_are_heard_beside_it() -> None:
    earshot = Earshot(0.0)
    assert sum(earshot.may_speak(HOST, 0.0) for _ in range(1000)) == OF_A_HOST_BURST
    assert earshot.may_speak("192.168.1.10", 0.0)
    assert sum(earshot.may_speak(HOST, 10.0) for _ in range(1000)) == min(
        OF_A_HOST_BURST, 10 * OF_A_HOST_PER_S
    )


def test_all_together_are_heard_so_often() -> None:
    earshot = Earshot(0.0)
    hosts = [f"10.0.{number // 250}.{number % 250}" for number in range(2000)]
    assert sum(earshot.may_speak(host, 0.0) for host in hosts) == HEARD_BURST


def test_who_names_one_port_after_another_is_believed_a_few() -> None:
    earshot = Earshot(0.0)
    assert believed(earshot, HOST, range(1, 30), 0.0) == [*range(1, PORTS_OF_A_HOST + 1)]
    later = PORT_KEPT_S - 60
    assert believed(earshot, HOST, range(5, 30), later) == [*range(5, PORTS_OF_A_HOST + 1)]
    # Those that were not named since make room, and no others.
    now = PORT_KEPT_S + 1
    assert believed(earshot, HOST, range(100, 130), now) == [100, 101, 102, 103]
    assert believed(earshot, HOST, range(1, 9), now) == [5, 6, 7, 8]


def test_a_thousand_ports_take_days() -> None:
    earshot, tried = Earshot(0.0), set[int]()
    for port in range(1, 24 * 3600):  # one a second, for a day
        if earshot.may_speak(HOST, float(port)) and earshot.is_believed(HOST, port, float(port)):
            tried.add(port)
    assert len(tried) <= PORTS_OF_A_HOST * (24 * 3600 / PORT_KEPT_S + 1)


def test_hosts_that_are_made_up_name_no_more_than_a_few_a_second() -> None:
    earshot, taken = Earshot(0.0), 0
    for number in range(40_000):  # 400 seconds
        host, now = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", number / 100
        taken += earshot.may_speak(host, now) and earshot.is_believed(host, 7, now)
    assert NEW_BURST + 390 * NEW_PER_S < taken < NEW_BURST + 410 * NEW_PER_S


def test_who_speaks_again_and_again_is_not_forgotten_for_who_spoke_once() -> None:
    earshot = Earshot(0.0)
    assert believed(earshot, HOST, range(1, 9), 0.0) == [*range(1, PORTS_OF_A_HOST + 1)]
    for number in range(2 * HOSTS_MAX):
        now = number / 10
        earshot.may_speak(f"10.0.{number >> 8}.{number & 255}", now)
        if number % (HOSTS_MAX // 2) == 0:
            assert earshot.may_speak(HOST, now)
    assert believed(earshot, HOST, range(20, 30), 250.0) == []
