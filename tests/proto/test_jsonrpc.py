"""JSON-RPC lines: one table both ways, any split, and nothing but the defined errors for any bytes."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtorrd import errors
from microtorrd.errors import CallerError, InvalidParams, NotFound, ProtocolError
from microtorrd.proto import jsonrpc
from microtorrd.proto.jsonrpc import Call, LineBuffer, Notification, Refused, Reply, RpcError

# ---------------------------------------------------------------------------------------------------- calls

GOOD_CALLS = [
    (b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":[1]}}', "a", b'{"x":[1]}', b"1"),
    (b'{"jsonrpc":"2.0","id":"7","method":"a.b"}', "a.b", None, b'"7"'),
    (b' {"method":"a", "id" : null, "jsonrpc" :"2.0"} \r', "a", None, b"null"),
    (b'{"jsonrpc":"2.0","method":"n","params":{}}', "n", b"{}", None),
    (b'{"jsonrpc":"2.0","id":1.50,"method":"a"}', "a", None, b"1.50"),
    ('{"jsonrpc":"2.0","id":"ü","method":"ä"}'.encode(), "ä", None, '"ü"'.encode()),
]


@pytest.mark.parametrize(("line", "method", "params", "call_id"), GOOD_CALLS)
def test_a_call_is_read_and_its_id_kept_as_it_was_written(
    line: bytes, method: str, params: bytes | None, call_id: bytes | None
) -> None:
    incoming = jsonrpc.parse_calls(line)
    assert not incoming.batch
    (call,) = incoming.items
    assert isinstance(call, Call)
    assert call.method == method
    assert (None if call.params is None else bytes(call.params)) == params
    assert (None if call.id is None else bytes(call.id)) == call_id


NOT_CALLS = [
    (b'{"id":1,"method":"a"}', b"1", jsonrpc.INVALID_REQUEST, "jsonrpc"),
    (b'{"jsonrpc":"1.0","id":1,"method":"a"}', b"1", jsonrpc.INVALID_REQUEST, "2.0"),
    (b'{"jsonrpc":2.0,"id":1,"method":"a"}', b"1", jsonrpc.INVALID_REQUEST, "2.0"),
    (b'{"jsonrpc":"2.0","id":1}', b"1", jsonrpc.INVALID_REQUEST, "method"),
    (b'{"jsonrpc":"2.0","id":1,"method":5}', b"1", jsonrpc.INVALID_REQUEST, "method"),
    (b'{"jsonrpc":"2.0","id":true,"method":"a"}', b"null", jsonrpc.INVALID_REQUEST, "id"),
    (b'{"jsonrpc":"2.0","id":[1],"method":"a"}', b"null", jsonrpc.INVALID_REQUEST, "id"),
    (b'{"jsonrpc":"2.0","id":"' + b"x" * 2000 + b'","method":"a"}', b"null", jsonrpc.INVALID_REQUEST, "id"),
    (b'{"jsonrpc":"2.0","id":"\xff","method":"a"}', b"null", jsonrpc.INVALID_REQUEST, "id"),
    (b'{"jsonrpc":"2.0","id":1,"method":"a","params":[1]}', b"1", jsonrpc.INVALID_PARAMS, "by name"),
    (b'{"jsonrpc":"2.0","id":1,"method":"a","params":null}', b"1", jsonrpc.INVALID_PARAMS, "by name"),
    (b'{"jsonrpc":"2.0","id":1,"method":"a","parms":{}}', b"1", jsonrpc.INVALID_REQUEST, "parms"),
    (b'{"jsonrpc":"2.0","id":1,"result":5}', b"1", jsonrpc.INVALID_REQUEST, "method"),
]


@pytest.mark.parametrize(("line", "call_id", "code", "word"), NOT_CALLS)
def test_what_is_no_call_is_refused_with_its_id_where_it_has_one(
    line: bytes, call_id: bytes, code: int, word: str
) -> None:
    (item,) = jsonrpc.parse_calls(line).items
    assert isinstance(item, Refused)
    assert bytes(item.id) == call_id
    assert item.error.code == code
    assert word in str(item.error)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"hello", jsonrpc.PARSE_ERROR),
        (b'{"jsonrpc":"2.0","id":1,"method":"a"', jsonrpc.PARSE_ERROR),
        (b'{"jsonrpc":"2.0"} {}', jsonrpc.PARSE_ERROR),
        (b"[" * 100_000, jsonrpc.PARSE_ERROR),
        (b'{"a":' * 100_000, jsonrpc.PARSE_ERROR),
        (b"5", jsonrpc.INVALID_REQUEST),
        (b"null", jsonrpc.INVALID_REQUEST),
        (b"[]", jsonrpc.INVALID_REQUEST),
        (b"[" + b",".join([b"1"] * (jsonrpc.MAX_BATCH + 1)) + b"]", jsonrpc.INVALID_REQUEST),
        (b"", jsonrpc.PARSE_ERROR),
    ],
)
def test_a_line_that_is_wrong_as_a_whole(line: bytes, code: int) -> None:
    with pytest.raises(RpcError) as caught:
        jsonrpc.parse_calls(line)
    assert caught.value.code == code


def test_a_batch_keeps_its_good_members() -> None:
    incoming = jsonrpc.parse_calls(
        b'[{"jsonrpc":"2.0","id":1,"method":"a"}, 5, {"foo":1}, {"jsonrpc":"2.0","method":"n"}]'
    )
    assert incoming.batch
    assert [type(item).__name__ for item in incoming.items] == ["Call", "Refused", "Refused", "Call"]


def test_parameters_are_decoded_by_name() -> None:
    (call,) = jsonrpc.parse_calls(b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":1,"y":"z"}}').items
    assert isinstance(call, Call)
    assert {name: bytes(raw) for name, raw in jsonrpc.decode_params(call.params).items()} == {
        "x": b"1",
        "y": b'"z"',
    }
    assert jsonrpc.decode_params(None) == {}


# --------------------------------------------------------------------------------------------- any bytes

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
#: Objects with the right members and wrong values: purely random bytes never get past the first brace.
request_shaped = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "1.0", 2]) | json_values,
        "id": json_values,
        "method": st.sampled_from(["torrent.add", ""]) | json_values,
        "params": json_values,
        "result": json_values,
        "error": st.fixed_dictionaries({}, optional={"code": json_values, "message": json_values})
        | json_values,
    },
)


@st.composite
def damaged_lines(draw: st.DrawFn) -> bytes:
    """JSON-RPC shaped text with a byte or two changed."""
    value = draw(request_shaped | st.lists(request_shaped | json_values, max_size=4))
    raw = bytearray(json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass"))
    for at in draw(st.lists(st.integers(0, max(0, len(raw) - 1)), max_size=2)):
        if raw:
            raw[at] = draw(st.integers(0, 255))
    return bytes(raw)


@settings(deadline=None)  # a busy machine is not a fault
@given(st.binary(max_size=200) | damaged_lines())
def test_bytes_of_a_caller_raise_nothing_but_rpc_errors_and_answers_can_be_sent(line: bytes) -> None:
    try:
        incoming = jsonrpc.parse_calls(line)
    except RpcError as error:
        answers = [jsonrpc.encode_error(None, error)]
    else:
        answers = []
        for item in incoming.items:
            if isinstance(item, Refused):
                answers.append(jsonrpc.encode_error(item.id, item.error))
                continue
            try:
                jsonrpc.decode_params(item.params)
            except InvalidParams as error:
                answers.append(jsonrpc.encode_error(item.id, error))
            if item.id is not None:
                answers.append(jsonrpc.encode_result(item.id, {"ok": True}))
    for answer in answers:
        assert b"\n" not in answer
        (reply,) = jsonrpc.parse_answers(answer)
        assert isinstance(reply, Reply)


@settings(deadline=None)  # a busy machine is not a fault
@given(st.binary(max_size=200) | damaged_lines())
def test_bytes_of_a_server_raise_nothing_but_protocol_errors(line: bytes) -> None:
    try:
        answers = jsonrpc.parse_answers(line)
    except ProtocolError as error:
        assert str(error)
    else:
        assert all(isinstance(answer, Reply | Notification) for answer in answers)


# --------------------------------------------------------------------------------------------------- lines


@settings(deadline=None)  # a busy machine is not a fault
@given(
    st.lists(st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b".")), max_size=8),
    st.lists(st.integers(0, 250), max_size=8),
)
def test_the_same_stream_cut_anywhere_gives_the_same_lines(lines: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(line + b"\n" for line in lines) + b"rest"
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    buffer = LineBuffer()
    found: list[bytes] = []
    for start, end in itertools.pairwise(edges):
        buffer.feed(stream[start:end])
        while (line := buffer.take()) is not None:
            found.append(bytes(line))
    assert found == lines
    assert buffer.held == len(b"rest")


@settings(deadline=None)  # a busy machine is not a fault
@given(st.lists(st.binary(min_size=1, max_size=60), max_size=12))
def test_what_is_held_is_always_what_is_inside_and_bounded(chunks: list[bytes]) -> None:
    buffer = LineBuffer(max_line=40)
    taken = fed = 0
    for chunk in chunks:
        buffer.feed(chunk)
        fed += len(chunk.replace(b"\n", b""))
        assert 0 <= buffer.held <= fed - taken
        try:
            while (line := buffer.take()) is not None:
                taken += len(line)
                assert len(line) <= 40
        except RpcError as error:
            assert error.code == jsonrpc.LINE_TOO_LONG
            assert buffer.held == 0
            return
        assert buffer.held == fed - taken <= 40


def test_lines_before_an_overlong_one_are_still_there() -> None:
    buffer = LineBuffer(max_line=10)
    buffer.feed(b"first\nsecond\n" + b"x" * 11)
    buffer.feed(b"y" * 100 + b"\nlater\n")
    assert buffer.take() == b"first"
    assert buffer.take() == b"second"
    with pytest.raises(RpcError, match="longer than 10 bytes"):
        buffer.take()


def test_a_line_of_the_greatest_length_passes_and_one_more_byte_does_not() -> None:
    exact, over = LineBuffer(max_line=10), LineBuffer(max_line=10)
    exact.feed(b"0123456789\n")
    assert exact.take() == b"0123456789"
    over.feed(b"0123456789")
    assert over.take() is None
    over.feed(b"a\n")
    with pytest.raises(RpcError):
        over.take()


def test_the_biggest_metainfo_fits_a_line() -> None:
    as_base64 = 4 * -(-jsonrpc.MAX_METAINFO_BYTES // 3)
    assert as_base64 + (1 << 20) < jsonrpc.MAX_LINE_BYTES


# ------------------------------------------------------------------------------------------- both directions


@pytest.mark.parametrize(
    ("method", "params"),
    [("daemon.ping", {}), ("torrent.add", {"metainfo": b"d4:infoe", "label": "ü\n\u2028"})],
)
def test_a_call_comes_out_as_it_went_in(method: str, params: dict[str, Any]) -> None:
    line = jsonrpc.encode_call(method, params, 3)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    (call,) = jsonrpc.parse_calls(line).items
    assert isinstance(call, Call)
    assert call.method == method
    assert jsonrpc.decode_params(call.params).keys() == params.keys()
    assert call.id is not None
    answer = jsonrpc.encode_result(call.id, {"rows": [1, None, "ü"]})
    assert jsonrpc.parse_answers(answer) == [Reply(3, {"rows": [1, None, "ü"]}, None)]


def test_a_batch_goes_both_ways() -> None:
    line = jsonrpc.encode_calls([("a", {}, 1), ("b", {"x": 1}, 2)])
    incoming = jsonrpc.parse_calls(line)
    assert incoming.batch
    replies = [jsonrpc.encode_result(item.id, 0) for item in incoming.items if item.id is not None]
    answers = jsonrpc.parse_answers(jsonrpc.join_batch(replies))
    assert answers == [Reply(1, 0, None), Reply(2, 0, None)]


def test_a_notification_goes_both_ways() -> None:
    line = jsonrpc.encode_notification("event", {"kind": "completed", "name": "a"})
    assert jsonrpc.parse_answers(line) == [Notification("event", {"kind": "completed", "name": "a"})]


def _concrete(kind: type[CallerError]) -> list[type[CallerError]]:
    return [kind, *(found for sub in kind.__subclasses__() for found in _concrete(sub))]


@pytest.mark.parametrize("kind", [k for k in _concrete(CallerError) if k.__module__ == errors.__name__])
def test_every_error_of_the_house_crosses_the_wire(kind: type[CallerError]) -> None:
    sent = kind("what is wrong", key="info.pieces")
    sent.data["message"] = "not mixed up with the text"
    (reply,) = jsonrpc.parse_answers(jsonrpc.encode_error(None, sent))
    assert isinstance(reply, Reply)
    got = reply.error
    assert got is not None
    assert (type(got) is kind) or kind is CallerError
    assert (str(got), got.code, got.data) == (str(sent), sent.code, sent.data)


def test_every_error_of_the_house_is_in_the_table_once() -> None:
    codes = [row.code for row in jsonrpc.ERROR_CODES]
    assert len(codes) == len(set(codes))
    known = {k.code for k in _concrete(CallerError) if k.__module__ == errors.__name__}
    assert known <= set(codes)


def test_a_code_without_a_class_keeps_its_number_and_odd_data_is_kept() -> None:
    (reply,) = jsonrpc.parse_answers(
        b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"internal error","data":[1]}}'
    )
    assert isinstance(reply, Reply)
    assert isinstance(reply.error, RpcError)
    assert (reply.error.code, reply.error.data) == (-32603, {"data": [1]})
    assert isinstance(jsonrpc.error_of(NotFound.code, "gone"), NotFound)


def test_text_that_is_not_unicode_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        jsonrpc.encode_call("torrent.add", {"save_to": "/tmp/\udcff"}, 1)
