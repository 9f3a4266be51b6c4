"""From a line of a caller to the line that answers it. Knows no sockets.

This is one of the few places where `except Exception` stands (the layers test lists them): what a method did
not expect is a bug, is logged with its traceback, and reaches the caller as an internal error, nothing more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from microtorrd import logs
from microtorrd.errors import Busy, CallerError, NotAllowed, Stopping
from microtorrd.proto import jsonrpc
from microtorrd.rpc.api import Caller, Services
from microtorrd.rpc.methods import Method, find_method
from microtorrd.rpc.reading import read_params

#: Parameters that are too big or too dull for the log.
_NOT_LOGGED = frozenset({"metainfo"})

_log = logs.get(room="rpc")


class Dispatcher:
    """Answers lines with what the methods say."""

    def __init__(
        self,
        services: Services,
        *,
        breathe: Callable[[], None],
        max_answer: int = jsonrpc.MAX_LINE_BYTES,
    ) -> None:
        """`breathe` is called between the calls of a batch, so that others get their turn."""
        self._services = services
        self._breathe = breathe
        self._max_answer = max_answer

    def answer(self, line: bytes | bytearray, caller: Caller) -> bytearray | None:
        """The answer with its end of line; None when none is due. Raises nothing."""
        if len(line) < 64 and not line.strip():
            return None  # somebody typed an empty line
        try:
            incoming = jsonrpc.parse_calls(line)
        except jsonrpc.RpcError as error:
            return jsonrpc.encode_error(None, error) + b"\n"
        replies: list[bytearray] = []
        size = 0
        for item in incoming.items:
            reply = self._full(item) if size > self._max_answer else self._reply(item, caller)
            if reply is not None:
                replies.append(reply)
                size += len(reply)
            if incoming.batch:
                self._breathe()
        if not replies:
            return None
        return (jsonrpc.join_batch(replies) if incoming.batch else replies[0]) + b"\n"

    def _reply(self, item: jsonrpc.Call | jsonrpc.Refused, caller: Caller) -> bytearray | None:
        if isinstance(item, jsonrpc.Refused):
            return jsonrpc.encode_error(item.id, item.error)
        try:
            reply = jsonrpc.encode_result(item.id or jsonrpc.NULL, self._call(item, caller))
        except CallerError as error:
            reply = _encode_refusal(item, error)
        except Stopping as error:
            reply = jsonrpc.encode_error(item.id, NotAllowed(f"the daemon is stopping: {error}"))
        except Exception as error:
            _log.error("rpc_method_crashed", method=item.method[:100], pid=caller.pid, exc_info=error)
            problem = "internal error: the log of the daemon has it"
            reply = jsonrpc.encode_error(item.id, jsonrpc.RpcError(jsonrpc.INTERNAL_ERROR, problem))
        return None if item.id is None else reply

    def _call(self, call: jsonrpc.Call, caller: Caller) -> object:
        method = find_method(call.method)
        params = read_params(method, call.params)
        try:
            result = method.handler(self._services, params, caller)
        except CallerError as error:
            _record(method, params, caller, f"{type(error).__name__}: {error}")
            raise
        _record(method, params, caller, "ok")
        return result

    def _full(self, item: jsonrpc.Call | jsonrpc.Refused) -> bytearray | None:
        # A batch of a thousand lists must not become gigabytes.
        if item.id is None:
            return None
        return jsonrpc.encode_error(item.id, Busy("the answers to this batch grew too long; call one by one"))


def _encode_refusal(call: jsonrpc.Call, error: CallerError) -> bytearray:
    try:
        return jsonrpc.encode_error(call.id, error)
    except (TypeError, ValueError) as problem:
        # The facts or the text of the error hold what JSON cannot say. The caller gets what can be said.
        _log.error("rpc_error_not_json", method=call.method[:100], error=str(error), exc_info=problem)
        text = str(error).encode("utf-8", "backslashreplace").decode()
        return jsonrpc.encode_error(call.id, jsonrpc.RpcError(error.code, text))


def _record(method: Method, params: msgspec.Struct, caller: Caller, outcome: str) -> None:
    facts: dict[str, Any] = {
        name: value
        for name, value in msgspec.structs.asdict(params).items()
        if name not in _NOT_LOGGED and value != _defaults(type(params))[name]
    }
    # A limit method that is given no limit is asked for those in force.
    is_question = method.name.endswith(".limit") and not facts.keys() & {"down", "up"}
    speak = _log.info if method.changes and not is_question else _log.debug
    speak(
        "rpc_call",
        method=method.name,
        params=facts,
        uid=caller.uid,
        gid=caller.gid,
        pid=caller.pid,
        outcome=outcome,
    )


@cache
def _defaults(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """What each parameter is that was not given; it is not worth a word in the log."""
    return {
        field.name: field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        for field in msgspec.structs.fields(kind)
    }
