"""How the daemon was called, and what its exit codes say. Light: `--check-config` needs no more than this."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from microtorrd import config
from microtorrd.config import Config

#: The exit codes; beyond 2 those of sysexits.h.
OK, FAILED, USAGE, LOCKED, MISCONFIGURED = 0, 1, 2, 75, 78


class Invocation(Struct, frozen=True):
    """Enough to read the settings, and to read them again on a reload."""

    config_path: str | None = None
    overrides: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def load(self) -> Config:
        """The settings as they are now. Raises ConfigError."""
        return config.load(self.config_path, self.overrides, self.environ)

    def config_file(self) -> str | None:
        """The main file that `load` reads, None where there is none."""
        return config.config_file(self.config_path, self.environ)
