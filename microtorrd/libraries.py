"""The libraries that a start does not wait for: that they are there, and when they are imported.

What costs milliseconds and is not needed before the torrents stand is imported after that, bit by bit, so
that nobody is held up (`warm_up`); who needs something of it before that calls it, too. That all of it is
installed is seen to before anything begins (`missing`): nothing is to be found missing in the middle of the
night.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from gevent import monkey

#: The libraries in question.
LATER = ("ifaddr", "requests", "structlog")

#: What a daemon will need sooner or later. Each holds up the hub for some milliseconds, the largest for 20;
#: what they import themselves stands before them where it is large.
STEPS = (
    "microtorrd.log_lines",
    "http.cookiejar",
    "importlib.metadata",
    "urllib3",
    "charset_normalizer",
    "idna",
    "requests",
    "microtorrd.net.tracker_http",
)


def missing(names: Sequence[str]) -> list[str]:
    """Those of these that are not installed."""
    return [name for name in names if find_spec(name) is None]


def prepare_tls() -> None:
    """Import `ssl` so that it waits politely. Before anything else imports it."""
    if not monkey.is_module_patched("ssl"):
        monkey.patch_ssl()


def warm_up(breathe: Callable[[], None]) -> None:
    """Import the rest. `breathe` is called between two steps, so that others get their turn."""
    prepare_tls()
    for name in STEPS:
        if name not in sys.modules:
            breathe()
            import_module(name)


@contextmanager
def without(*absent: str, unless_used: Sequence[str] = ()) -> Iterator[None]:
    """Import something without what it imports and we do not use: `absent` are as if they were not installed,
    those `unless_used` are imported when something of them is wanted."""
    hidden: dict[str, ModuleType | None] = {
        **dict.fromkeys(absent),
        **{name: _Later(name) for name in unless_used},
    }
    hidden = {name: module for name, module in hidden.items() if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]  # None: there is no such module
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


class _Later(ModuleType):
    """In the place of a module."""

    def __getattr__(self, name: str) -> object:
        return getattr(import_module(self.__name__), name)
