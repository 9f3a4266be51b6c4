"""Where settings come from: file, `conf.d/*.toml` beside it, environment, `--set`; the later outweighs.

What is wrong is refused with a ConfigError that names the setting, where it was set, and what would be right.
The files are only read, never written. The settings themselves are in `settings.py`.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import pwd
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import msgspec.json
from msgspec import Struct

from microtorrd import settings, settings_text
from microtorrd.errors import ConfigError
from microtorrd.proto import places, units
from microtorrd.settings import Config, Record

__all__ = ["RECORDS", "Changes", "Config", "adopt", "as_table", "config_file", "diff", "load", "split_bind"]

SYSTEM_FILE = "/etc/microtorrd/microtorrd.toml"

ENVIRONMENT_PREFIX = "MICROTORRD_"

#: `sun_path` of unix(7) holds 108 bytes, the last of which is a NUL.
SOCKET_PATH_MAX_BYTES = 107

RECORDS: dict[str, Record] = {record.name: record for record in settings.records()}

_SECTIONS = tuple(dict.fromkeys(record.section for record in RECORDS.values()))
_TYPES = {
    section: get_type_hints(struct, include_extras=True) for section, struct in get_type_hints(Config).items()
}


class _Given(Struct, frozen=True):
    """A value as somebody wrote it, and where."""

    value: Any
    is_text: bool  # from the environment or the command line, where everything is text
    origin: str  # for messages; "" when the file says it all
    file: str | None = None
    line: int | None = None

    def wrong(self, name: str, message: str) -> ConfigError:
        """The error that says so."""
        where = f" ({self.origin})" if self.origin else ""
        return ConfigError(f"{name}: {message}{where}", key=name, file=self.file, line=self.line)


def load(path: str | None, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Config:
    """The settings that hold. `path` None looks in the usual places; `overrides` are `section.key=value`.

    Raises ConfigError.
    """
    environ = os.environ if environ is None else environ
    given: dict[str, _Given] = {}
    for file in _files(path, environ):
        given.update(_from_file(file))
    given.update(_from_environment(environ))
    given.update(_from_overrides(overrides))
    defaults = _placed_defaults(path, environ)
    home = _home(environ)
    values: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    for name, record in RECORDS.items():
        if name in given:
            values[record.section][record.key] = _value(record, given[name], home)
        elif name in defaults:
            values[record.section][record.key] = defaults[name]
    config = msgspec.convert(values, Config)
    _check_together(config, given)
    return config


def config_file(path: str | None, environ: Mapping[str, str]) -> str | None:
    """The main file that `load` reads, None where there is none."""
    candidate = _usual_file(environ) if path is None else path
    return candidate if path is not None or os.path.lexists(candidate) else None


def as_table(config: Config) -> dict[str, dict[str, Any]]:
    """The settings as plain tables, ready for JSON or TOML."""
    table: dict[str, dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(config))
    return table


class Changes(Struct, frozen=True):
    """The names of settings that differ: which apply at once, and which wait for a restart."""

    live: tuple[str, ...]
    restart: tuple[str, ...]


def diff(old: Config, new: Config) -> Changes:
    """What a reload from `old` to `new` changes."""
    changed = [record for record in RECORDS.values() if _get(old, record) != _get(new, record)]
    return Changes(
        live=tuple(record.name for record in changed if record.live),
        restart=tuple(record.name for record in changed if not record.live),
    )


def adopt(old: Config, new: Config) -> Config:
    """`old` with those settings of `new` that can change while the daemon runs: what holds after a reload."""
    table = as_table(old)
    for name in diff(old, new).live:
        record = RECORDS[name]
        table[record.section][record.key] = _get(new, record)
    return msgspec.convert(table, Config)


def split_bind(bind: str) -> tuple[str, int]:
    """`host:port` or `[host]:port` of numeric addresses; ValueError says what is wrong."""
    found = re.fullmatch(r"(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})", bind, re.ASCII)
    if found is None:
        raise ValueError(f"{bind!r} is not HOST:PORT, as 0.0.0.0:8888 or [::]:8888")
    host, port = found[1] if found[2] is None else found[2], int(found[3])
    if port > 65535:
        raise ValueError(f"port {port} of {bind!r} is above 65535")
    _numeric_address(host)
    return host, port


# --------------------------------------------------------------------------------------------- the sources


def _usual_file(environ: Mapping[str, str]) -> str:
    if directory := environ.get("CONFIGURATION_DIRECTORY", "").split(":")[0]:
        return f"{directory}/microtorrd.toml"  # systemd.exec(5)
    if os.geteuid() == 0 and os.path.exists(SYSTEM_FILE):
        return SYSTEM_FILE
    named = environ.get("XDG_CONFIG_HOME", "")
    base = named if named.startswith("/") else f"{_home(environ)}/.config"
    return f"{base}/microtorrd/microtorrd.toml"


def _files(path: str | None, environ: Mapping[str, str]) -> Iterator[str]:
    main = _usual_file(environ) if path is None else path
    if path is not None or os.path.lexists(main):
        yield main
    directory = os.path.join(os.path.dirname(main), "conf.d")
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ConfigError(f"cannot be listed: {error.strerror}", file=directory) from error
    # Editors keep hidden files beside those that they work on.
    yield from (os.path.join(directory, name) for name in names if re.fullmatch(r"[^.].*\.toml", name))


def _from_file(file: str) -> dict[str, _Given]:
    try:
        text = Path(file).read_bytes().decode()
        tables = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=file) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 text (byte {error.start})", file=file) from error
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+)", str(error))
        raise ConfigError(f"is not TOML: {error}", file=file, line=int(at[1]) if at else None) from error
    lines = _line_numbers(text)
    given = {}
    for section, table in tables.items():
        line = lines.get(section)
        if section not in _SECTIONS:
            raise ConfigError(_unknown_section(section), key=section, file=file, line=line)
        if not isinstance(table, dict):
            raise ConfigError(f"{section} is a section: write [{section}]", key=section, file=file, line=line)
        for key, value in table.items():
            name = f"{section}.{key}"
            line = lines.get(name)
            if name not in RECORDS:
                raise ConfigError(_unknown_key(section, key), key=name, file=file, line=line)
            given[name] = _Given(value, False, "", file, line)
    return given


def _line_numbers(text: str) -> dict[str, int]:
    """Where each section and each `section.key` stands, as far as a line tells without a parser."""
    section = ""
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*[\"']?([^\"'\]\s]+)[\"']?\s*\]", line):
            section = header[1]
            found.setdefault(section, number)
        elif key := re.match(r"\s*[\"']?([\w.-]+?)[\"']?\s*=", line):
            name = f"{section}.{key[1]}" if section else key[1]
            found.setdefault(name, number)
            found.setdefault(name.split(".")[0], number)
    return found


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    given = {}
    for variable, text in environ.items():
        if variable.startswith(ENVIRONMENT_PREFIX):
            section, _, key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().partition("_")
            origin = f"environment variable {variable}"
            given[_known(section, key, origin)] = _Given(text, True, origin)
    return given


def _from_overrides(overrides: Sequence[str]) -> dict[str, _Given]:
    given = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        section, dot, key = name.strip().partition(".")
        if not equals or not dot:
            # The value is not quoted: it may be a secret.
            raise ConfigError(f"{name + equals!r} is not section.key=value (--set)")
        given[_known(section, key, "--set")] = _Given(text, True, "--set")
    return given


def _known(section: str, key: str, origin: str) -> str:
    if section not in _SECTIONS:
        raise ConfigError(f"{_unknown_section(section)} ({origin})", key=section)
    if f"{section}.{key}" not in RECORDS:
        raise ConfigError(f"{_unknown_key(section, key)} ({origin})", key=f"{section}.{key}")
    return f"{section}.{key}"


def _unknown_section(section: str) -> str:
    near = difflib.get_close_matches(section, _SECTIONS, n=1)
    return f"section [{section}] is unknown: " + (
        f"did you mean [{near[0]}]?" if near else "there are " + ", ".join(f"[{name}]" for name in _SECTIONS)
    )


def _unknown_key(section: str, key: str) -> str:
    keys = [record.key for record in RECORDS.values() if record.section == section]
    elsewhere = [record.name for record in RECORDS.values() if record.key == key]
    near = [f"{section}.{name}" for name in difflib.get_close_matches(key, keys, n=1)]
    hint = next(iter([*near, *elsewhere]), None)
    return f"{section}.{key} is unknown: " + (
        f"did you mean {hint}?" if hint else f"[{section}] has {', '.join(keys)}"
    )


# ---------------------------------------------------------------------------------------------- the values


def _value(record: Record, given: _Given, home: str) -> Any:
    try:
        value = _from_text(record, str(given.value)) if given.is_text else given.value
        value = _as_kind(record, value, given, home)
        return msgspec.convert(value, _TYPES[record.section][record.key])
    except msgspec.ValidationError as error:
        raise given.wrong(record.name, _in_our_words(record, value, str(error))) from error
    except ValueError as error:
        raise given.wrong(record.name, str(error)) from error


def _from_text(record: Record, text: str) -> Any:
    """What the words of a shell mean for this setting: TOML where it is that, else the text as it stands."""
    if record.kind in ("text", "path", "mode") and not text.startswith(('"', "'")):
        return text
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    if record.kind == "list" and isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _as_kind(record: Record, value: Any, given: _Given, home: str) -> Any:
    if record.kind in ("size", "rate") and isinstance(value, int) and value > units.MOST_BYTES:
        raise ValueError(f"{value} is more than {units.spell_size(units.MOST_BYTES)}")
    if not isinstance(value, str):
        return value
    match record.kind:
        case "size":
            return units.parse_size(value)
        case "rate":
            return units.parse_rate(value)
        case "duration":
            return units.parse_duration(value)
        case "mode":
            if not re.fullmatch(r"(?:0o?)?[0-7]{1,4}", value):
                raise ValueError(f'{value!r} is not a mode in octal, as "0660"')
            return int(value.removeprefix("0o"), 8)
        case "path":
            is_none = not value and not record.default  # where none is a choice
            return value if is_none else _absolute(value, given, home)
        case _:
            return value


def _absolute(path: str, given: _Given, home: str) -> str:
    if not path or "\0" in path:
        raise ValueError(f"{path!r} is not a path")
    if path == "~" or path.startswith("~/"):
        path = home + path[1:]
    if given.is_text:  # typed in a shell, which has a current directory
        path = os.path.abspath(path)
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is relative: write the whole path, or begin with ~/")
    return os.path.normpath(path)


def _in_our_words(record: Record, value: Any, message: str) -> str:
    """What msgspec found, said with the range or the choices of the setting."""
    wanted = {
        "size": 'bytes or text such as "64 MiB"',
        "rate": 'bytes per second or text such as "3 MB/s"',
        "duration": 'seconds or text such as "15 min"',
        "mode": 'a mode in octal, as "0660"',
        "path": "a path",
        "text": "text",
        "number": "a number",
        "switch": "true or false",
        "list": "a list of texts",
    }[record.kind]
    if record.choices:
        near = difflib.get_close_matches(str(value), record.choices, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"{value!r} is none of {', '.join(record.choices)}{hint}"
    if isinstance(value, bool) or not isinstance(value, int | float) or "got" in message:
        return f"{value!r} is not {wanted}"
    return f"{value!r} is out of range: {settings_text.spell_range(record)}"


def _check_together(config: Config, given: Mapping[str, _Given]) -> None:
    """What one setting alone does not show."""

    def refuse(name: str, message: str) -> None:
        raise given.get(name, _Given(None, False, "by default")).wrong(name, message)

    length = len(os.fsencode(config.rpc.socket))
    if length > SOCKET_PATH_MAX_BYTES:
        refuse(
            "rpc.socket", f"{config.rpc.socket} has {length} bytes, a socket's path {SOCKET_PATH_MAX_BYTES}"
        )
    checks = [("listen.addresses", address, _numeric_address) for address in config.listen.addresses]
    checks += [("tracker.trusted_proxies", proxy, _network) for proxy in config.tracker.trusted_proxies]
    for name, value, check in [*checks, ("tracker.bind", config.tracker.bind, split_bind)]:
        try:
            check(value)
        except ValueError as error:
            refuse(name, str(error))
    if not re.fullmatch(r"memory|(?:rediss?|unix)://\S+", config.tracker.store):
        # Not quoted: a password may be in it.
        scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", config.tracker.store)
        what = f"what begins with {scheme[0]}" if scheme else "this"
        refuse("tracker.store", f"{what} is neither memory nor a URL, as redis://host:6379/0")
    if config.tracker.min_interval > config.tracker.interval:
        name = "tracker.interval" if "tracker.min_interval" not in given else "tracker.min_interval"
        refuse(name, "tracker.min_interval is longer than tracker.interval")
    if config.tracker.access == "listed" and not config.tracker.allow_file:
        refuse("tracker.access", "'listed' needs the list: tracker.allow_file")
    if config.tracker.access == "open" and config.tracker.allow_file:
        refuse("tracker.allow_file", "a list keeps nobody out while tracker.access is 'open'")


def _numeric_address(text: str) -> object:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a numeric IPv4 or IPv6 address") from None


def _network(text: str) -> object:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not an address or a network, as 10.0.0.0/8: {error}") from None


# -------------------------------------------------------------------------------------------- the defaults


def _placed_defaults(path: str | None, environ: Mapping[str, str]) -> dict[str, Any]:
    """The paths that depend on who runs the daemon: what systemd gave, a user's own, or the system's."""
    main = _usual_file(environ) if path is None else path
    state = environ.get("STATE_DIRECTORY", "").split(":")[0]
    runtime = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if state:
        placed = {"daemon.state_dir": state, "storage.save_to": f"{state}/downloads"}
        return placed | {"rpc.socket": f"{runtime or state}/control.sock"}
    if os.path.realpath(main).startswith("/etc/"):
        return {}
    home = _home(environ)
    return {
        "daemon.state_dir": places.user_state_dir(environ, home),
        "rpc.socket": places.user_socket(environ, home),
        "storage.save_to": f"{home}/Downloads",
    }


def _home(environ: Mapping[str, str]) -> str:
    if named := environ.get("HOME", ""):
        return named.rstrip("/")
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        raise ConfigError(f"HOME is not set and user {os.getuid()} has no home") from None


def _get(config: Config, record: Record) -> Any:
    return getattr(getattr(config, record.section), record.key)
