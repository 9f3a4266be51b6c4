"""A lever, and how it is taken away: something plain in the place of a function or a constant.

Rules
- What is replaced must be there, must be what the lever takes it for (a function with the same parameters, a
  value of the same type), and must differ from what takes its place. Else `Gone` is raised: a lever that no
  longer bites would measure two times the same.
- A name is replaced where it is read. A module that had imported it by name would go on with the old one.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

#: In the place of a lever's name: all of them stay. So both sides of a comparison begin in the same way.
NOTHING = "nothing"


class Gone(Exception):
    """The product has changed: there is nothing of that kind any more to be taken away."""


@dataclass(frozen=True)
class Swap:
    """In the place of `module:name` or `module:class.name`: a plain value, or what `make` makes of the
    original one."""

    target: str
    value: Any = None
    make: Callable[[Any], Any] | None = None

    def find(self) -> tuple[Any, str, Any]:
        """Who has it, under which name, and what it is. Raises Gone."""
        module, _, path = self.target.partition(":")
        *owners, name = path.split(".")
        try:
            owner: Any = importlib.import_module(module)
            for step in owners:
                owner = getattr(owner, step)
            original = inspect.getattr_static(owner, name)
        except (ImportError, AttributeError) as error:
            raise Gone(f"{self.target}: {error}") from None
        return owner, name, original

    def replacement(self, original: Any) -> Any:
        """What takes its place. Raises Gone where that would not fit, or be the same."""
        new = self.value if self.make is None else self.make(original)
        if isinstance(original, property):
            fits = isinstance(new, property)
        elif isinstance(original, type):
            fits = isinstance(new, type)
        elif callable(original):
            fits = callable(new) and _parameters(new) == _parameters(original)
        else:
            fits = type(new) is type(original)
        if not fits:
            raise Gone(f"{self.target} is {original!r}, in whose place {new!r} does not fit")
        if new is original or (not callable(original) and new == original):
            raise Gone(f"{self.target} is {original!r} already")
        return new


@dataclass(frozen=True)
class Lever:
    """One optimisation: its name, what it does in a sentence, how to take it away, where it should pay."""

    name: str
    what: str
    swaps: tuple[Swap, ...]
    #: Figures of stages, as `stage.figure`.
    shows: tuple[str, ...]
    #: Why it stays, where speed is not the reason or not the only one.
    besides: str = ""

    def take_away(self) -> list[tuple[Any, str, Any]]:
        """Take it out of this process; what to put back. Raises Gone, and then nothing is replaced."""
        found = [(swap, *swap.find()) for swap in self.swaps]
        planned = [(owner, name, old, swap.replacement(old)) for swap, owner, name, old in found]
        for owner, name, _, new in planned:
            setattr(owner, name, new)
        return [(owner, name, old) for owner, name, old, _ in planned]

    @contextmanager
    def taken_away(self) -> Iterator[None]:
        """For a while only."""
        before = self.take_away()
        try:
            yield
        finally:
            for owner, name, old in before:
                setattr(owner, name, old)


def around(wrap: Callable[..., Any]) -> Callable[[Any], Any]:
    """For `Swap.make`: `wrap` is called in the place of the original, which it gets first."""

    def make(original: Any) -> Any:
        @functools.wraps(original)
        def replaced(*arguments: Any, **named: Any) -> Any:
            return wrap(original, *arguments, **named)

        return replaced

    return make


def without_cache(original: Any) -> Any:
    """For `Swap.make`: a function that remembers nothing, of one that remembers what it returned."""
    try:
        return original.__wrapped__
    except AttributeError:
        raise Gone(f"{original!r} remembers nothing") from None


def _parameters(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # what is written in C does not always say
        return []
