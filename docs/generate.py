"""Writes the parts of the manual that the code knows best: methods, settings, commands and their options.

    python docs/generate.py            after a change in one of them
    python docs/generate.py --check    does the manual say what the code does? (exit 1 when not)

Each such part stands between two comments in its document; what is around them is written by hand.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from microtorrd import settings_text
from microtorrd.config import RECORDS
from microtorrd.proto.jsonrpc import ERROR_CODES
from microtorrd.rpc import results
from microtorrd.rpc.methods import METHODS
from microtorrd.rpc.openrpc import describe
from microtorrd.settings import Config, Record
from mtorrctl import cli, microtorr

DOCS = Path(__file__).parent

#: Of a line of text; lines of tables and commands are as long as they are.
WIDTH = 118

#: Of integers that are bounded only so that they fit somewhere, the bound is no news.
BOUND_WORTH_TELLING = 1 << 40


def main() -> int:
    """Write or check; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if something is stale")
    check = parser.parse_args().check
    stale = [path for path, text in documents() if path.read_text() != text]
    for path, text in documents():
        if path in stale and not check:
            path.write_text(text)
    for path in stale:
        print(f"{path.name}: {'stale' if check else 'written'}")
    return 1 if check and stale else 0


def documents() -> Iterator[tuple[Path, str]]:
    """Each document that has such parts, and how it should read."""
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text()
        named = set(re.findall(r"^<!-- begin ([\w ]+) -->$", text, re.MULTILINE))
        for name in sorted(named):
            text = replaced(text, name, PARTS[name]())
        if named:
            yield path, text


def replaced(text: str, name: str, part: str) -> str:
    """The document with this part between its comments."""
    begin, end = f"<!-- begin {name} -->\n", f"\n<!-- end {name} -->"
    before, found, rest = text.partition(begin)
    assert found, f"the document has no {begin.strip()}"
    _, found, after = rest.partition(end)
    assert found, f"the document has no {end.strip()}"
    return f"{before}{begin}\n{part.strip()}\n{end}{after}"


# ------------------------------------------------------------------------------------------ control socket


def methods() -> str:
    """Every method: parameters, result, errors."""
    lines: list[str] = []
    for method in describe(METHODS.values())["methods"]:
        changes = "changes something" if method["tags"][0]["name"] == "changes" else "only reads"
        lines += [f"### {method['name']}", "", f"{method['summary']} *({changes})*", ""]
        if method["params"]:
            lines += ["| parameter | type | default | |", "|---|---|---|---|"]
            for parameter in method["params"]:
                schema = parameter["schema"]
                default = "required" if parameter["required"] else f"`{as_json(schema.get('default'))}`"
                row = [f"`{parameter['name']}`", kind_of(schema), default, sentence(parameter["summary"])]
                lines.append(table_row(row))
            lines.append("")
        names = [error["$ref"].rpartition("/")[2] for error in method["errors"]]
        own = ", ".join(f"`{name}`" for name in names if name not in ("invalid_params", "internal_error"))
        result = kind_of(method["result"]["schema"])
        lines += [f"Answers: {result}." + (f" Errors: {own}." if own else ""), ""]
    return "\n".join(lines)


def types() -> str:
    """Every kind of object that a method answers."""
    lines: list[str] = []
    schemas = describe(METHODS.values())["components"]["schemas"]
    for name, schema in schemas.items():
        keys = getattr(results, name).__annotations__
        lines += [f"### {name}", "", schema["description"]]
        inherited: set[str] = set()
        for parent, other in schemas.items():  # in 3.11 a TypedDict does not say what it extends
            if parent != name and name.startswith(parent) and other["properties"].keys() <= keys.keys():
                inherited = set(other["properties"])
                lines.append(f"All keys of [{parent}](#{parent.lower()}), and:")
        lines += ["", "| key | type | |", "|---|---|---|"]
        for key in keys:
            if key not in inherited:
                part = schema["properties"][key]
                lines.append(table_row([f"`{key}`", kind_of(part), part.get("description", "")]))
        lines.append("")
    return "\n".join(lines)


def errors() -> str:
    """Every code that an error can carry."""
    rows = [table_row([str(error.code), f"`{error.name}`", error.meaning]) for error in ERROR_CODES]
    return "\n".join(["| code | name | meaning |", "|---|---|---|", *rows])


def kind_of(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(kind_of(part) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{as_json(value)}`" for value in schema["enum"])
    kind: str = schema.get("type", "anything")
    if kind == "array":
        inner = schema.get("items", {})
        return "list" if not inner else f"list of {kind_of(inner)}"
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"object of {kind_of(inner)}" if isinstance(inner, dict) and inner else "object"
    if kind == "string" and schema.get("contentEncoding"):
        return f"string ({schema['contentEncoding']})"
    if kind == "string" and schema.get("pattern", "").startswith("^/"):
        return "absolute path"
    return kind + bounds_of(schema)


def bounds_of(schema: dict[str, Any]) -> str:
    """The range of a number."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if high is not None and high < BOUND_WORTH_TELLING:
        return f" from {low} to {high}"
    return "" if low is None else f" from {low}"


def as_json(value: object) -> str:
    """A default or choice as JSON has it."""
    raw: bytes = msgspec.json.encode(value)
    return raw.decode()


# ------------------------------------------------------------------------------------------------ settings


def all_settings() -> str:
    """Every setting, by section."""
    lines: list[str] = []
    section = ""
    for record in RECORDS.values():
        if record.section != section:
            section = record.section
            about = type(getattr(Config(), section)).__doc__ or ""
            lines += [f"### [{section}]", "", about.strip(), ""]
        lines += [
            f"- `{record.key} = {settings_text.spell(record, record.default)}`",
            *wrapped(told(record), "  "),
            "",
        ]
    return "\n".join(lines)


def told(record: Record) -> str:
    """What is to be known of one setting."""
    words = [record.sentence]
    facts = [settings_text.spell_range(record)] if settings_text.spell_range(record) else []
    if record.live:
        facts.append("applies on a reload")
    if record.user_default:
        words.append(f"For the daemon of a user: {record.user_default}.")
    if facts:
        words.append(f"({'; '.join(facts)})")
    return " ".join(words)


# ------------------------------------------------------------------------------------------------ commands


def mtorrctl_commands() -> str:
    """Every command of mtorrctl, by family."""
    lines: list[str] = []
    context = click.Context(cli.main)
    for family, members in cli.FAMILIES.items():
        lines += [f"### {family}", ""]
        for name in members:
            command = cli.main.get_command(context, name)
            assert command is not None, "each name of the table is a command"
            lines += command_text("mtorrctl", name, command)
    return "\n".join(lines)


def microtorr_commands() -> str:
    """Every command of MicroTorr."""
    lines: list[str] = []
    for name, command in microtorr.program.commands.items():
        lines += command_text("MicroTorr", name, command)
    return "\n".join(lines)


def command_text(program: str, name: str, command: click.Command) -> list[str]:
    """One command: how it is called, what it does, its options."""
    words = [program, name, *(argument_of(one) for one in command.params if isinstance(one, click.Argument))]
    options = [one for one in command.params if isinstance(one, click.Option)]
    if options:
        words.append("[OPTIONS]")
    lines = [f"#### {name}", "", "```", " ".join(words), "```", ""]
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        first, _, rest = paragraph.partition("\n")
        if first == "\b":
            lines += verbatim(rest)
        else:
            lines += [*wrapped(paragraph), ""]
    for option in options:
        lines += [f"- `{spelled(option)}`", *wrapped(option_text(option), "  ")]
    return [*lines, ""] if options else lines


def verbatim(text: str) -> list[str]:
    """A paragraph whose lines stay: its heading, if it has one, and a block."""
    head, _, rest = text.partition("\n")
    if head.endswith(":") and rest:
        body = [line.removeprefix("  ") for line in rest.splitlines()]
        return [head, "", "```", *body, "```", ""]
    return ["```", *text.splitlines(), "```", ""]


def argument_of(argument: click.Argument) -> str:
    """An argument as a usage line has it."""
    if isinstance(argument.type, click.Choice):
        return "|".join(argument.type.choices)
    word = argument.metavar or (argument.name or "").upper()
    return word if argument.required else f"[{word}]"


def spelled(option: click.Option) -> str:
    """All spellings of an option, and what it takes."""
    words = ", ".join(option.opts)
    if option.secondary_opts:
        words += f" / {', '.join(option.secondary_opts)}"
    if not option.is_flag and not option.count:
        words += f" {option.metavar or option.type.name.upper()}"
    return words


def option_text(option: click.Option) -> str:
    """What an option does, with its default where `--help` shows it."""
    text = option.help or ""
    return f"{text} [default: {option.default}]" if option.show_default else text


# -------------------------------------------------------------------------------------------------- common


def wrapped(text: str, indent: str = "") -> list[str]:
    """A paragraph in lines."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def table_row(cells: list[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells).rstrip() + " |"


def sentence(text: str) -> str:
    """With its full stop."""
    return text if not text or text.endswith(".") else f"{text}."


PARTS: dict[str, Callable[[], str]] = {
    "methods": methods,
    "types": types,
    "errors": errors,
    "settings": all_settings,
    "mtorrctl commands": mtorrctl_commands,
    "MicroTorr commands": microtorr_commands,
}


if __name__ == "__main__":
    sys.exit(main())
