"""JSON-RPC 2.0 as lines of bytes, both directions: what the control socket speaks.

One JSON value a line; a line may hold a batch. Parameters go by name only: an array of them is refused. Ids
are echoed as the raw bytes they came in, so a client gets back exactly what it sent. Everything here is pure:
bytes in, values out. The bytes of a caller can raise nothing but `RpcError`, those of a server nothing but
`ProtocolError`. A line is kept in memory once: the parameters are views into it (`msgspec.Raw`) until their
method decodes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from microtorrd.errors import (
    Busy,
    CallerError,
    Duplicate,
    InvalidMetainfo,
    InvalidParams,
    NotAllowed,
    NotFound,
    ProtocolError,
)

#: The longest line we take or send. The biggest metainfo we take is 64 MiB, which is 86 MiB as base64.
MAX_LINE_BYTES = 90 << 20

#: The biggest `.mtorrent` that fits a line with room for the other parameters.
MAX_METAINFO_BYTES = 64 << 20

#: The most calls in one batch: two bytes of a call that is none buy eighty bytes of answer.
MAX_BATCH = 1000

#: The longest id we echo, and the longest method name we look at.
MAX_ID_BYTES = 1024

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = InvalidParams.code
INTERNAL_ERROR = -32603
FAILED = CallerError.code
LINE_TOO_LONG = -32001


class ErrorCode(NamedTuple):
    """One row of the table of error codes."""

    code: int
    name: str
    meaning: str


#: Every code that an error object of ours can carry.
ERROR_CODES = (
    ErrorCode(PARSE_ERROR, "parse_error", "The line is not JSON."),
    ErrorCode(INVALID_REQUEST, "invalid_request", "The JSON is not a JSON-RPC 2.0 request."),
    ErrorCode(
        METHOD_NOT_FOUND, "method_not_found", "There is no such method; data.nearest names a similar one."
    ),
    ErrorCode(
        INVALID_PARAMS,
        "invalid_params",
        "A parameter is missing, unknown, of the wrong type or out of range; data.parameter names it.",
    ),
    ErrorCode(INTERNAL_ERROR, "internal_error", "A fault of the daemon's; its log has the traceback."),
    ErrorCode(FAILED, "failed", "The call was understood and could not be carried out."),
    ErrorCode(
        LINE_TOO_LONG, "line_too_long", f"The line is over {MAX_LINE_BYTES} bytes; the connection ends."
    ),
    ErrorCode(NotAllowed.code, "not_allowed", "Not possible in this state, or not permitted."),
    ErrorCode(NotFound.code, "not_found", "No torrent has this id or name, or several do."),
    ErrorCode(Duplicate.code, "duplicate", "The torrent is already here."),
    ErrorCode(
        InvalidMetainfo.code,
        "invalid_metainfo",
        "The metainfo is damaged, hostile or of a kind not taken; data.key names the key at fault.",
    ),
    ErrorCode(Busy.code, "busy", "A bound is reached; trying again later can help."),
)

_CLASSES: dict[int, type[CallerError]] = {
    kind.code: kind for kind in (InvalidParams, NotFound, Duplicate, InvalidMetainfo, NotAllowed, Busy)
}


class RpcError(CallerError):
    """An error with any code of `ERROR_CODES`; those of errors.py have classes of their own."""

    def __init__(self, code: int, message: str, **data: Any) -> None:
        super().__init__(message, **data)
        self.code = code


def error_of(code: int, message: str, data: object = None) -> CallerError:
    """The exception that an error object stands for: the class of errors.py where the code has one."""
    kind = _CLASSES.get(code)
    error = RpcError(code, message) if kind is None else kind(message)
    if isinstance(data, dict):
        error.data = {str(key): value for key, value in data.items()}
    elif data is not None:
        error.data = {"data": data}
    return error


# -------------------------------------------------------------------------------------------------- lines


class LineBuffer:
    """Cuts a stream into lines, keeping each once. `held` is what it keeps, for whoever sums up memory."""

    __slots__ = ("_lines", "_overlong", "_partial", "held", "max_line")

    def __init__(self, max_line: int = MAX_LINE_BYTES) -> None:
        self.max_line = max_line
        self.held = 0
        self._partial = bytearray()
        self._lines: deque[bytes | bytearray] = deque()
        self._overlong = False

    def feed(self, chunk: bytes) -> None:
        """Take bytes as they came. Nothing more is kept once a line is too long."""
        start = 0
        while not self._overlong:
            end = chunk.find(b"\n", start)
            part = len(chunk) - start if end < 0 else end - start
            if len(self._partial) + part > self.max_line:
                self._overlong = True
                self.held -= len(self._partial)
                self._partial = bytearray()
                return
            self.held += part
            if end < 0:
                self._partial += memoryview(chunk)[start:]
                return
            self._lines.append(self._finish(chunk[start:end]))
            start = end + 1

    def take(self) -> bytes | bytearray | None:
        """The next whole line without its end, or None. `RpcError` once only an overlong one is left."""
        if self._lines:
            line = self._lines.popleft()
            self.held -= len(line)
            return line
        if self._overlong:
            raise RpcError(
                LINE_TOO_LONG,
                f"the line is longer than {self.max_line} bytes; a .mtorrent may have {MAX_METAINFO_BYTES}",
                limit_bytes=self.max_line,
            )
        return None

    def _finish(self, tail: bytes) -> bytes | bytearray:
        if not self._partial:
            return tail
        line, self._partial = self._partial, bytearray()
        line += tail
        return line


# ----------------------------------------------------------------------------------------- calls, server side


class Call(NamedTuple):
    """A well-formed request. `id` is the raw JSON to echo, None for a notification, which gets no answer."""

    method: str  # attacker-controlled
    params: Raw | None  # a JSON object, not yet decoded
    id: Raw | None


class Refused(NamedTuple):
    """A part of a batch, or a whole line, that is no request: answer with the error."""

    id: Raw
    error: CallerError


class Incoming(NamedTuple):
    """What one line asks for. `batch`: the answers go back as one array."""

    items: list[Call | Refused]
    batch: bool


NULL = Raw(b"null")
_object_decoder = msgspec.json.Decoder(dict[str, Raw])
_array_decoder = msgspec.json.Decoder(list[Raw])
_text_decoder = msgspec.json.Decoder(str)
_any_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()

#: What msgspec raises for bytes that are not JSON; the last two escape it from deep inside.
_BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def parse_calls(line: bytes | bytearray) -> Incoming:
    """Read one line of a client. Raises `RpcError` when the line as a whole is at fault."""
    first = _first_byte(line)
    if first != b"[":
        return Incoming([_parse_call(_parse_object(line))], batch=False)
    try:
        members = _array_decoder.decode(line)
    except _BAD_JSON as error:
        raise _parse_error(error) from None
    if not members:
        raise RpcError(INVALID_REQUEST, "the batch is empty")
    if len(members) > MAX_BATCH:
        raise RpcError(INVALID_REQUEST, f"the batch has {len(members)} calls, at most {MAX_BATCH} are taken")
    items: list[Call | Refused] = []
    for member in members:
        try:
            items.append(_parse_call(_parse_object(member)))
        except RpcError as error:
            items.append(Refused(NULL, error))
    return Incoming(items, batch=True)


def decode_params(params: Raw | None) -> dict[str, Raw]:
    """The parameters by name, values still raw. Raises `InvalidParams`."""
    if params is None:
        return {}
    try:
        return _object_decoder.decode(params)
    except _BAD_JSON as error:
        raise InvalidParams(f"params: {error}") from None


def _parse_object(raw: bytes | bytearray | Raw) -> dict[str, Raw]:
    try:
        return _object_decoder.decode(raw)
    except msgspec.ValidationError:
        raise RpcError(INVALID_REQUEST, "a request is a JSON object") from None
    except _BAD_JSON as error:
        raise _parse_error(error) from None


def _parse_call(members: dict[str, Raw]) -> Call | Refused:
    raw_id = members.get("id")
    if raw_id is not None and not _is_id(raw_id):
        problem = f"the id is a string, a number or null, of at most {MAX_ID_BYTES} bytes"
        return Refused(NULL, RpcError(INVALID_REQUEST, problem))
    answer_to = NULL if raw_id is None else raw_id.copy()
    if _text(members.get("jsonrpc")) != "2.0":
        return Refused(answer_to, RpcError(INVALID_REQUEST, 'the member "jsonrpc" must be "2.0"'))
    method = _text(members.get("method"))
    if method is None:
        return Refused(answer_to, RpcError(INVALID_REQUEST, 'the member "method" must be a string'))
    unknown = members.keys() - {"jsonrpc", "id", "method", "params"}
    if unknown:
        problem = f"a request has no member {_shorten(min(unknown))!r}"
        return Refused(answer_to, RpcError(INVALID_REQUEST, problem))
    params = members.get("params")
    if params is not None and _first_byte(params) != b"{":
        problem = "parameters go by name: params is an object"
        return Refused(answer_to, InvalidParams(problem))
    return Call(method, params, None if raw_id is None else answer_to)


def _is_id(raw: Raw) -> bool:
    view = memoryview(raw)
    if len(view) > MAX_ID_BYTES:
        return False
    try:
        value = _any_decoder.decode(raw)
    except _BAD_JSON:
        return False
    return value is None or (isinstance(value, str | int | float) and not isinstance(value, bool))


def _text(raw: Raw | None) -> str | None:
    """The string that this is, None when it is something else or too long to be of interest."""
    if raw is None or len(memoryview(raw)) > MAX_ID_BYTES:
        return None
    try:
        return _text_decoder.decode(raw)
    except _BAD_JSON:
        return None


def _first_byte(raw: bytes | bytearray | Raw) -> bytes:
    # No further than this: megabytes of white space are not worth a search.
    return bytes(memoryview(raw)[:1024]).lstrip(b" \t\r\n")[:1]


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _parse_error(error: Exception) -> RpcError:
    problem = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return RpcError(PARSE_ERROR, f"the line is not JSON: {problem}")


# --------------------------------------------------------------------------------------- answers, server side


def encode_result(answer_to: Raw, result: object) -> bytearray:
    """A reply without its end of line. TypeError or ValueError for what JSON cannot say."""
    reply = bytearray()
    _encoder.encode_into({"jsonrpc": "2.0", "id": answer_to, "result": result}, reply)
    return reply


def encode_error(answer_to: Raw | None, error: CallerError) -> bytearray:
    """An error reply without its end of line; None where the id of the request is unknown."""
    body: dict[str, object] = {"code": error.code, "message": str(error)}
    if error.data:
        body["data"] = error.data
    reply = bytearray()
    _encoder.encode_into(
        {"jsonrpc": "2.0", "id": NULL if answer_to is None else answer_to, "error": body}, reply
    )
    return reply


def join_batch(replies: Iterable[bytes | bytearray]) -> bytearray:
    """The replies of a batch as one array."""
    return bytearray(b"[") + b",".join(replies) + b"]"


def encode_notification(method: str, params: Mapping[str, Any]) -> bytes:
    """A message that wants no answer, with its end of line."""
    return _encoder.encode({"jsonrpc": "2.0", "method": method, "params": params}) + b"\n"


# ------------------------------------------------------------------------------------------------ client side


class Reply(NamedTuple):
    """The answer to the call with this id; `error` is None where it went well."""

    id: str | int | float | None
    result: Any
    error: CallerError | None


class Notification(NamedTuple):
    """What the server says unasked."""

    method: str
    params: dict[str, Any]


def encode_call(method: str, params: Mapping[str, Any], call_id: int | str) -> bytes:
    """A request, with its end of line. `bytes` go as base64. ValueError for text that is not Unicode."""
    return _encoder.encode({"jsonrpc": "2.0", "id": call_id, "method": method, "params": params}) + b"\n"


def encode_calls(calls: Iterable[tuple[str, Mapping[str, Any], int | str]]) -> bytes:
    """A batch of (method, params, id), with its end of line."""
    batch = [
        {"jsonrpc": "2.0", "id": call_id, "method": method, "params": params}
        for method, params, call_id in calls
    ]
    return _encoder.encode(batch) + b"\n"


def parse_answers(line: bytes | bytearray) -> list[Reply | Notification]:
    """Read one line of a server: one message or a batch of them. Raises `ProtocolError`."""
    try:
        value = _any_decoder.decode(line)
    except _BAD_JSON as error:
        raise ProtocolError(f"the answer is not JSON: {error}") from None
    messages = value if isinstance(value, list) else [value]
    return [_parse_answer(message) for message in messages]


def _parse_answer(message: object) -> Reply | Notification:
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise ProtocolError("the answer is not JSON-RPC 2.0")
    method = message.get("method")
    if isinstance(method, str):
        params = message.get("params", {})
        if not isinstance(params, dict):
            raise ProtocolError("the parameters of a notification are not an object")
        return Notification(method, params)
    answer_to = message.get("id")
    if isinstance(answer_to, bool) or not isinstance(answer_to, str | int | float | None):
        raise ProtocolError("the id of an answer is neither a string nor a number")
    if "error" not in message:
        if "result" not in message:
            raise ProtocolError("the answer has neither a result nor an error")
        return Reply(answer_to, message["result"], None)
    error = message["error"]
    code, text = (error.get("code"), error.get("message")) if isinstance(error, dict) else (None, None)
    if not isinstance(code, int) or not isinstance(text, str):
        raise ProtocolError("the error of an answer has no code or no message")
    return Reply(answer_to, None, error_of(code, text, error.get("data")))
