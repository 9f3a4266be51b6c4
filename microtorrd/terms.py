"""On which terms a torrent is added: what its operator wishes of it besides its content."""

from __future__ import annotations

from msgspec import Struct

from microtorrd.proto.selection import Choice


class Terms(Struct, frozen=True, kw_only=True):
    """None: as the daemon is configured."""

    save_to: str | None = None
    seed_path: str | None = None  # the content is there already, and is shared from there
    paused: bool = False
    wait_seeders: int = 0
    wait_leechers: int = 0
    down: int = 0  # limit in bytes/s; 0: none
    up: int = 0
    label: str = ""
    sequential: bool = False
    choice: Choice = Choice()
    seed_after_download: bool | None = None
    super_seed: bool | None = None
