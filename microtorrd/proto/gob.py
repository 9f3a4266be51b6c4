"""Gob, the encoding of Go programs, as far as the original's peer wire needs it: both directions, no I/O.

A stream is a row of messages, each a length and a body that begins with the number of a type: a negative one
defines that type, a positive one is a value of it. Numbers are the sender's own, so a reader follows the
definitions of the stream. A value in an interface names its type in words, and where that type is new its
definition is written *into* the value: the message ends there, and the value goes on in the next one.

Rules
- Everything read is attacker-controlled. What is wrong with it raises ProtocolError, and nothing else does.
- One value, one form: numbers that are longer than need be, and zero values that are spelled out as fields,
  are refused, as Go never sends them.
- Known are structures, slices and interfaces of truth values, integers, byte strings and texts. Arrays, maps,
  floating point and types that encode themselves are refused.
- Types are few, their names short, their nesting shallow. No length is believed before it fits into its
  message, and messages are bounded by whoever reads them.
"""

from __future__ import annotations

from typing import NamedTuple

from microtorrd.errors import ProtocolError

#: Types that every stream knows.
BOOL, INT, BYTES, STRING, INTERFACE = 1, 2, 5, 6, 8
_BASIC = frozenset({BOOL, INT, BYTES, STRING, INTERFACE})

#: The lowest number that a sender gives: the ones below are Go's own. Older releases of Go begin with 65.
FIRST_ID = 64

#: Definitions in one stream (the original needs 8), fields of one structure, bytes of one name.
TYPES_MAX = 32
FIELDS_MAX = 16
NAME_MAX = 256

#: A structure in a structure in a … : deeper values are refused. The original needs 2.
DEPTH_MAX = 8

#: How a type is described: which field of Go's `wireType` is set.
_SLICE, _STRUCT = 2, 3

#: Any length needs no more bytes than this.
LENGTH_BYTES_MAX = 9


class Struct(NamedTuple):
    """A structure: its name, and the name and the type number of each field in order."""

    name: str
    fields: tuple[tuple[str, int], ...]


class Slice(NamedTuple):
    """A slice: the type number of its elements."""

    name: str
    element: int


Type = Struct | Slice


class Opened(NamedTuple):
    """A value whose fields come next: what it is called (None outside of an interface), and its type."""

    name: str | None
    type: Struct


class Reader:
    """A place in one message, of which the first bytes are here at least.

    `size` is the size of the whole message, also where `view` has only the beginning of it.
    """

    __slots__ = ("_size", "_view", "pos")

    def __init__(self, view: memoryview | bytes, size: int | None = None) -> None:
        self._view = memoryview(view)
        self._size = len(self._view) if size is None else size
        self.pos = 0

    @property
    def left(self) -> int:
        """How many bytes of the message follow, here or not."""
        return self._size - self.pos

    def take(self, count: int) -> memoryview:
        """The next bytes."""
        end = self.pos + count
        if end > len(self._view):
            raise ProtocolError("a gob message ends in the middle of a value")
        taken = self._view[self.pos : end]
        self.pos = end
        return taken

    def uint(self) -> int:
        """An unsigned number."""
        first = self.take(1)[0]
        if first < 128:
            return first
        count = 256 - first
        if count > 8:
            raise ProtocolError(f"a gob number of {count} bytes")
        raw = self.take(count)
        number = int.from_bytes(raw, "big")
        if not raw[0] or number < 128:
            raise ProtocolError("a gob number that is longer than it needs to be")
        return number

    def sint(self) -> int:
        """A signed number."""
        number = self.uint()
        return ~(number >> 1) if number & 1 else number >> 1

    def length(self) -> int:
        """How many bytes, or elements of one byte at least, follow in this message."""
        count = self.uint()
        if count > self.left:
            raise ProtocolError(f"a length of {count} in a gob message with {self.left} bytes left")
        return count

    def raw(self) -> bytes:
        """A byte string."""
        return bytes(self.take(self.length()))

    def name(self) -> str:
        """A name of a type or a field."""
        raw = self.raw()
        if len(raw) > NAME_MAX:
            raise ProtocolError(f"a gob name of {len(raw)} bytes")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise ProtocolError("a gob name that is not text") from None

    def field(self, before: int, most: int) -> int:
        """The number of the next field that is set, from 1 on; 0 at the end of the structure."""
        step = self.uint()
        if not step:
            return 0
        if before + step > most:
            raise ProtocolError("a field that its gob type does not have")
        return before + step


class Decoder:
    """What one stream has defined so far, and the values that follow it."""

    __slots__ = ("_name", "_types")

    def __init__(self) -> None:
        self._types: dict[int, Type] = {}
        self._name: str | None = None  # of the value in an interface whose type the last message defined

    def copy(self) -> Decoder:
        """Another one at the same place of the stream, to read ahead with."""
        other = Decoder()
        other._types = self._types.copy()
        other._name = self._name
        return other

    def open(self, reader: Reader) -> Opened | None:
        """Read a message up to the fields of its value; None: it had definitions only.

        In a structure whose one field is an interface the fields are those of the value in that.
        """
        while True:
            number = reader.sint()
            if number < 0:
                self._define(-number, reader)
                if not reader.left:
                    return None
                if self._name is None:
                    raise ProtocolError("something follows the definition of a gob type")
                reader.uint()  # how long the rest is; that is known already
                continue
            kind = self._types.get(number)
            if not isinstance(kind, Struct):
                raise ProtocolError(f"a gob value of the type {number}, which is no structure")
            if self._name is not None:
                return self._open_inner(kind, reader)
            if len(kind.fields) != 1 or kind.fields[0][1] != INTERFACE:
                return Opened(None, kind)
            if not reader.field(0, 1) or not (name := reader.name()):
                raise ProtocolError("a gob interface with nothing in it")
            self._name = name

    def _open_inner(self, kind: Struct, reader: Reader) -> Opened:
        name, self._name = self._name, None
        # Behind it only the end of the structure that the interface is in.
        if reader.uint() != reader.left - 1:
            raise ProtocolError("a gob value in an interface that does not fill its message")
        return Opened(name, kind)

    def fields(self, opened: Opened, reader: Reader) -> dict[str, object]:
        """The fields of an opened value, up to the end of its message; only those that are set."""
        values = self._struct(opened.type, reader, 0)
        self.finish(opened, reader)
        return values

    def finish(self, opened: Opened, reader: Reader) -> None:
        """Here the message has to end."""
        if opened.name is not None and reader.uint():
            raise ProtocolError("a gob interface with more than a value in it")
        if reader.left:
            raise ProtocolError("something follows a gob value in its message")

    def _struct(self, kind: Struct, reader: Reader, depth: int) -> dict[str, object]:
        if depth >= DEPTH_MAX:
            raise ProtocolError("gob values that are nested too deeply")
        values: dict[str, object] = {}
        number = 0
        while number := reader.field(number, len(kind.fields)):
            name, type_id = kind.fields[number - 1]
            value = self._value(type_id, reader, depth + 1)
            if not value and not isinstance(value, dict):
                raise ProtocolError("a gob field that is set to nothing")
            values[name] = value
        return values

    def _value(self, type_id: int, reader: Reader, depth: int) -> object:
        if type_id == BOOL:
            return _truth(reader.uint())
        if type_id == INT:
            return reader.sint()
        if type_id in (BYTES, STRING):
            return reader.raw()
        kind = self._types.get(type_id)
        if isinstance(kind, Struct):
            return self._struct(kind, reader, depth)
        if kind is None:  # an interface too: the one that there is was opened already
            raise ProtocolError(f"a gob value of the type {type_id} in another")
        return self._slice(kind, reader, depth)

    def _slice(self, kind: Slice, reader: Reader, depth: int) -> object:
        if depth >= DEPTH_MAX:
            raise ProtocolError("gob values that are nested too deeply")
        count = reader.length()
        if kind.element == BOOL:  # a byte each, and there may be millions
            raw = bytes(reader.take(count))
            if raw.translate(None, b"\0\1"):
                raise ProtocolError("a gob slice of truth values with others in it")
            return raw
        return [self._value(kind.element, reader, depth + 1) for _ in range(count)]

    # ---- definitions

    def _define(self, type_id: int, reader: Reader) -> None:
        if type_id < FIRST_ID:
            raise ProtocolError(f"a definition of the gob type {type_id}, which is Go's own")
        if type_id in self._types:
            raise ProtocolError(f"a second definition of the gob type {type_id}")
        if len(self._types) >= TYPES_MAX:
            raise ProtocolError(f"more than {TYPES_MAX} gob types")
        which = reader.field(0, 7)
        if which not in (_SLICE, _STRUCT):
            raise ProtocolError("a gob type that is neither a structure nor a slice")
        name, number = "", reader.field(0, 2)
        if number == 1:
            name = _common(type_id, reader)
            number = reader.field(1, 2)
        fields: tuple[tuple[str, int], ...] = ()
        element = 0
        if number == 2:
            if which == _STRUCT:
                fields = _fields(reader)
            else:
                element = _type_id(reader)
            number = reader.field(2, 2)
        if number or reader.field(which, which):
            raise ProtocolError("a definition of a gob type that does not end")
        if which == _SLICE and not element:
            raise ProtocolError("a gob slice of nothing")
        self._types[type_id] = Struct(name, fields) if which == _STRUCT else Slice(name, element)


def _common(type_id: int, reader: Reader) -> str:
    """The name of the type that is defined."""
    name, number = "", reader.field(0, 2)
    if number == 1:
        name = reader.name()
        number = reader.field(1, 2)
    if number != 2 or reader.sint() != type_id:
        raise ProtocolError("a definition of a gob type under two numbers")
    if reader.field(2, 2):
        raise ProtocolError("a definition of a gob type that does not end")
    return name


def _fields(reader: Reader) -> tuple[tuple[str, int], ...]:
    count = reader.length()
    if count > FIELDS_MAX:
        raise ProtocolError(f"a gob structure of {count} fields")
    fields = []
    for _ in range(count):
        if reader.field(0, 2) != 1:
            raise ProtocolError("a field of a gob structure without a name")
        name = reader.name()
        if reader.field(1, 2) != 2:
            raise ProtocolError("a field of a gob structure without a type")
        fields.append((name, _type_id(reader)))
        if reader.field(2, 2):
            raise ProtocolError("a definition of a gob field that does not end")
    if len(dict(fields)) < count:
        raise ProtocolError("a gob structure with two fields of one name")
    return tuple(fields)


def _type_id(reader: Reader) -> int:
    """The type of a field or an element; it may be defined later."""
    type_id = reader.sint()
    if type_id < FIRST_ID and type_id not in _BASIC:
        raise ProtocolError(f"the gob type {type_id}, which this wire has no use for")
    return type_id


def _truth(number: int) -> bool:
    if number > 1:
        raise ProtocolError(f"a gob truth value of {number}")
    return bool(number)


# ------------------------------------------------------------------------------------------------- writing


def uint(number: int) -> bytes:
    """An unsigned number."""
    if number < 128:
        return bytes((number,))
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return bytes((256 - len(raw),)) + raw


def sint(number: int) -> bytes:
    """A signed number."""
    return uint(~number << 1 | 1 if number < 0 else number << 1)


def text(value: bytes) -> bytes:
    """A text or a byte string: its length and itself."""
    return uint(len(value)) + value


def message(body: bytes) -> bytes:
    """A body as a message of the stream."""
    return uint(len(body)) + body


def struct_definition(type_id: int, name: bytes, fields: tuple[tuple[bytes, int], ...]) -> bytes:
    """The body that defines a structure."""
    listed = b"".join(b"\1" + text(field) + b"\1" + sint(kind) + b"\0" for field, kind in fields)
    return sint(-type_id) + b"\3\1" + _named(type_id, name) + b"\1" + uint(len(fields)) + listed + b"\0\0"


def slice_definition(type_id: int, name: bytes, element: int) -> bytes:
    """The body that defines a slice."""
    return sint(-type_id) + b"\2\1" + _named(type_id, name) + b"\1" + sint(element) + b"\0\0"


def _named(type_id: int, name: bytes) -> bytes:
    return b"\1" + text(name) + b"\1" + sint(type_id) + b"\0"
