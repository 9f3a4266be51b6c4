"""Parameters as they were sent, checked; and words for what is wrong with them, with what was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from microtorrd.errors import InvalidParams
from microtorrd.proto.jsonrpc import decode_params

if TYPE_CHECKING:
    from microtorrd.rpc.methods import Method

#: Characters of what is wrong with a parameter: the decoder repeats wrong words of a choice as they are.
MAX_PROBLEM = 300


def read_params(method: Method, raw: msgspec.Raw | None) -> msgspec.Struct:
    """Decode and check the parameters. Raises `InvalidParams` that names the one at fault."""
    given = decode_params(raw)
    valid = method.params.__struct_fields__
    unknown = next((name for name in given if name not in valid), None)
    if unknown is not None:
        shown = unknown[:100]
        near = nearest(shown, valid)
        hint = f"; did you mean {near!r}?" if near else f"; it takes {listed(valid)}"
        raise InvalidParams(
            f"{method.name} has no parameter {shown!r}{hint}",
            parameter=shown,
            nearest=near,
            valid=list(valid),
        )
    try:
        return msgspec.json.decode(b"{}" if raw is None else raw, type=method.params)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _name_parameter(method, str(error)) from None


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that is most like this one, None when none is."""
    return next(iter(difflib.get_close_matches(name, list(valid), n=1, cutoff=0.6)), None)


def _name_parameter(method: Method, problem: str) -> InvalidParams:
    missing = re.fullmatch(r"Object missing required field `(\w+)`", problem)
    if missing:
        return InvalidParams(f"{method.name} needs the parameter {missing[1]!r}", parameter=missing[1])
    at_fault = re.fullmatch(r"(.*) - at `\$\.(\w+)(.*)`", problem, re.DOTALL)
    if at_fault is None:
        return InvalidParams(f"params: {problem}")
    what, name, inside = at_fault.groups()
    if len(what) > MAX_PROBLEM:
        what = f"{what[:MAX_PROBLEM]}…"
    if "matching regex '^/" in what:
        what = "Expected an absolute path"
    return InvalidParams(f"{name}{inside}: {what[0].lower()}{what[1:]}", parameter=name)


def listed(names: Iterable[str]) -> str:
    """These names, for people."""
    return ", ".join(names) or "none"
