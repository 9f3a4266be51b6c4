"""The documents say what the code does: modules, settings, commands, methods, notes, the log, links."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import click
import pytest

from microtorrd import config
from microtorrd.__main__ import parser as daemon_parser
from microtorrd.config import RECORDS
from microtorrd.errors import StorageError
from microtorrd.rpc.methods import METHODS
from microtorrd.rpc.subscribing import NOTE_KINDS, QUIET_KINDS
from mtorrctl import cli, exits, microtorr

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "packaging/*.md")
    for path in ROOT.glob(pattern)
)


def read(name: str) -> str:
    return (ROOT / name).read_text()


@cache
def script(path: str) -> ModuleType:
    """A program that is in no package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one of its level or above."""
    level = re.escape(heading.partition(" ")[0])
    found = re.search(rf"^{re.escape(heading)}$(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.M | re.S)
    assert found is not None, f"there is no {heading!r}"
    return found[1]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of all rows of the tables in a text, without their heads."""
    for line in re.findall(r"^\| (.*) \|$", text, re.M):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]
        if not set(line) <= set("-|"):
            yield cells


def code_in(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


# ---------------------------------------- what is generated


def test_what_the_code_knows_best_is_up_to_date() -> None:
    stale = [path.name for path, text in script("docs/generate.py").documents() if path.read_text() != text]
    assert stale == [], "run: python docs/generate.py"


@pytest.mark.parametrize("part", ["methods", "types", "errors", "settings"])
def test_every_generated_part_is_in_a_document(part: str) -> None:
    assert sum(f"<!-- begin {part} -->" in read(name) for name in DOCUMENTS) == 1


# ---------------------------------------- ARCHITECTURE


def test_every_module_is_on_the_map_and_every_module_of_the_map_exists() -> None:
    named = set()
    for heading, body in re.findall(
        r"^### (microtorrd/\S*?|mtorrctl/)(?::[^\n]*)?$(.*?)(?=^##)", MAP, re.M | re.S
    ):
        named |= {f"{heading}{name}" for cells in rows(body) for name in code_in(cells[0])}
    real = {
        path.relative_to(ROOT).as_posix()
        for package in ("microtorrd", "mtorrctl")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py" or path.read_text().strip()
    }
    assert real - named == set(), "say in docs/ARCHITECTURE.md what they are for"
    assert named - real == set(), "docs/ARCHITECTURE.md names modules that are not there"


MAP = read("docs/ARCHITECTURE.md")


def test_modules_and_functions_that_the_map_speaks_of_exist() -> None:
    for path in re.findall(r"`((?:core|disk|net|proto|rpc|tracker)/\w+\.py)`", MAP):
        assert (ROOT / "microtorrd" / path).exists(), path
    for path in re.findall(r"`(tests/\w+\.py)`", MAP):
        assert (ROOT / path).exists(), path


def test_every_error_is_in_the_table_of_faults() -> None:
    table = section(MAP, "## Errors, by whose fault")
    tree = ast.parse(read("microtorrd/errors.py"))
    bases = {
        node.name: [base.id for base in node.bases if isinstance(base, ast.Name)]
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    direct = {name for name, parents in bases.items() if parents == ["MicrotorrError"]}
    assert direct - set(code_in(table)) == set()


# ---------------------------------------- commands, options


def commands_of(program: str) -> dict[str, click.Command]:
    if program == "MicroTorr":
        return dict(microtorr.program.commands)
    context = click.Context(cli.main)
    found = {name: cli.main.get_command(context, name) for name in cli.COMMANDS}
    return {name: command for name, command in found.items() if command is not None}


def options_of(command: click.Command) -> set[str]:
    return {
        name
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }


@pytest.mark.parametrize("program", ["mtorrctl", "MicroTorr"])
def test_the_manual_has_every_command_with_every_option_and_no_other(program: str) -> None:
    text = read(f"docs/{program}.1.md")
    documented = {}
    for name, body in re.findall(r"^#### (\w+)$(.*?)(?=^#{1,4} |^<!-- end)", text, re.M | re.S):
        terms = re.findall(r"^- `([^`]+)`$", body, re.M)
        documented[name] = {
            word for term in terms for word in re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", term)
        }
    assert documented == {name: options_of(command) for name, command in commands_of(program).items()}


@pytest.mark.parametrize("program", ["mtorrctl", "MicroTorr"])
def test_the_options_of_the_program_itself_are_in_its_manual(program: str) -> None:
    group = cli.main if program == "mtorrctl" else microtorr.program
    text = section(read(f"docs/{program}.1.md"), "## Options")
    assert options_of(group) | {"-h", "--help"} == set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", text))


def test_the_synopsis_of_the_original_commands_names_all_of_their_options() -> None:
    text = section(read("docs/MicroTorr.1.md"), "## Synopsis")
    for name, command in commands_of("MicroTorr").items():
        line = re.search(rf"^MicroTorr {name}(.*(?:\n .*)*)", text, re.M)
        assert line is not None, name
        for option in (one for one in command.params if isinstance(one, click.Option)):
            assert any(f"[{spelling}" in line[1] for spelling in option.opts), (name, option.opts)


def test_the_manual_of_the_daemon_has_its_options() -> None:
    real = {name for action in daemon_parser()._actions for name in action.option_strings}
    text = section(read("docs/microtorrd.8.md"), "## Options")
    terms = re.findall(r"^- `(.+)`$", text, re.M)
    assert {word for term in terms for word in re.findall(r"(?<![\w-])--?[a-z][\w-]*", term)} == real


def test_the_exit_codes_of_the_client_are_in_its_manual() -> None:
    table = section(read("docs/mtorrctl.1.md"), "## Exit codes")
    documented = {int(cells[0]) for cells in rows(table) if cells[0].isdigit()}
    assert documented == {value for value in vars(exits).values() if isinstance(value, int)}


IS_COMMAND = re.compile(r"(?:\$ |sudo )*(?P<command>(?:mtorrctl|MicroTorr) .*)")


def typed_commands() -> Iterator[tuple[str, str]]:
    """Each command of ours in a block of code, with its document."""
    for name in DOCUMENTS:
        for block in re.findall(r"^```\w*\n(.*?)^```$", read(name), re.M | re.S):
            for line in block.splitlines():
                for part in re.split(r" && | \|\|? |; |(?<=\S)  +", line):
                    found = IS_COMMAND.fullmatch(part.strip())
                    if found is not None:
                        yield name, found["command"]


@pytest.mark.parametrize(("document", "command"), sorted(set(typed_commands())))
def test_a_command_in_a_document_is_one_that_can_be_typed(document: str, command: str) -> None:
    words = shlex.split(re.sub(r"\s*(?:[12]?>|<|#|&$).*", "", command))
    if any(word.startswith("[") or word in ("|", "COMMAND") for word in words):
        return  # a synopsis
    commands = commands_of(words[0])
    name = next((word for word in words[1:] if not word.startswith("-")), "")
    if not name:
        assert set(words[1:]) <= {"-h", "--help", "-V", "--version"}, f"{document}: {command}"
        return
    assert name in commands, f"{document}: {command}"
    options = {
        word.partition("=")[0] for word in words[words.index(name) :] if re.match(r"--?[A-Za-z]", word)
    }
    assert options <= options_of(commands[name]) | {"-h", "--help"}, f"{document}: {command}"


def test_the_commands_of_the_makefile_that_documents_name_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), re.M))
    named = {
        target for name in DOCUMENTS for target in re.findall(r"(?:^|`|\$ )make ([a-z-]+)", read(name), re.M)
    }
    assert {"demo", "test"} <= named
    assert named - targets == set()


# ---------------------------------------- settings, methods, the log


def test_every_setting_is_in_its_manual() -> None:
    text = read("docs/microtorrd.toml.5.md")
    documented = set()
    for name, body in re.findall(r"^### \[(\w+)\]$(.*?)(?=^##|^<!-- end)", text, re.M | re.S):
        documented |= {f"{name}.{key}" for key in re.findall(r"^- `(\w+) = ", body, re.M)}
    assert documented == set(RECORDS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_settings_that_a_document_names_exist(document: str) -> None:
    sections = "|".join(sorted({record.section for record in RECORDS.values()} - {"daemon"}))
    named = set(re.findall(rf"`((?:{sections})\.[a-z_]+)(?: = [^`]*)?`", read(document)))
    modules = {f"{path.parent.name}.{path.stem}" for path in (ROOT / "microtorrd").rglob("*.py")}
    assert {name for name in named if not name.endswith(".py")} - set(RECORDS) - set(
        METHODS
    ) - modules == set()


def configurations() -> Iterator[tuple[str, str]]:
    """Each block of code that is a configuration, with its document."""
    sections = {f"[{record.section}]" for record in RECORDS.values()}
    for name in DOCUMENTS:
        for block in re.findall(r"^```\w*\n(.*?)^```$", read(name), re.M | re.S):
            if not sections.isdisjoint(block.splitlines()):
                yield name, block


@pytest.mark.parametrize(("document", "block"), sorted(configurations()))
def test_a_configuration_in_a_document_is_right(document: str, block: str, tmp_path: Path) -> None:
    file = tmp_path / "microtorrd.toml"
    file.write_text(block)
    assert config.load(str(file), (), {"HOME": "/home/ada"})


def test_every_kind_of_note_is_documented() -> None:
    table = section(read("docs/JSON-RPC.md"), "## Notes")
    kinds = {kind: " ".join(cells) for cells in rows(table) for kind in code_in(cells[0])}
    assert set(kinds) == set(NOTE_KINDS)
    assert {kind for kind, row in kinds.items() if "*quiet*" in row} == QUIET_KINDS


def test_every_cause_of_a_failure_is_documented() -> None:
    table = section(read("docs/OPERATING.md"), "### A torrent failed")
    documented = {name for cells in rows(table) for name in code_in(cells[0])}
    text = StorageError.__doc__ or ""
    assert documented == set(code_in(text.partition("is one of")[2]))
    assert set(StorageError.CAUSES.values()) <= documented


def log_events() -> Iterator[tuple[str, str]]:
    """Level and name of all that is logged above debug."""
    for path in (ROOT / "microtorrd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("info", "warning", "error")
                and ast.unparse(node.func.value) in ("_log", "self._log", "log")
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                yield node.func.attr, str(node.args[0].value)


def test_every_event_of_the_log_is_documented_with_its_level() -> None:
    table = section(read("docs/OPERATING.md"), "## The log")
    documented = {name: cells[1] for cells in rows(table) for name in code_in(cells[0])}
    # Two are said by calls that name no constant.
    spoken = {name: level for level, name in log_events()} | {"rpc_call": "info", "tracker_failed": "warning"}
    assert set(spoken) == set(documented)
    assert [name for name, level in spoken.items() if level not in documented[name]] == []


# ---------------------------------------- links, pictures, pages


def anchors(text: str) -> set[str]:
    """What GitHub makes of headings."""
    headings = re.findall(r"^#{1,6} (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    text = re.sub(r"^```.*?^```$", "", read(document), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.exists(), f"{document}: {target}"
        if anchor:
            assert anchor in anchors(file.read_text()), f"{document}: {target}"


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached, todo = set(), ["README.md"]
    while todo:
        document = todo.pop()
        if document in reached:
            continue
        reached.add(document)
        for target in re.findall(r"\]\(([^)#\s]+\.md)", read(document)):
            path = (ROOT / document).parent / target
            todo.append(path.resolve().relative_to(ROOT).as_posix())
    assert set(DOCUMENTS) - reached == set()


@pytest.mark.parametrize("picture", sorted(path.name for path in (DOCS / "screenshots").glob("*.svg")))
def test_pictures_are_whole_and_load_nothing(picture: str) -> None:
    text = read(f"docs/screenshots/{picture}")
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert re.findall(r"(?:href|src)=|url\((?!#)|@import|<script", text) == []


#: Of man(7), roff(7) and tbl(1), all that our pages need.
REQUESTS = ("TH", "SH", "SS", "PP", "TP", "IP", "RS", "RE", "nf", "fi", "TS", "TE")


def test_manual_pages_are_made(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "packaging/man.py", tmp_path], capture_output=True, text=True, check=True
    )
    pages = {path.name: path.read_text() for path in tmp_path.rglob("*.*") if path.is_file()}
    assert set(pages) == {"microtorrd.8", "mtorrctl.1", "MicroTorr.1", "microtorrd.toml.5"}
    assert len(made.stdout.splitlines()) == len(pages)
    for name, text in pages.items():
        stem, _, number = name.rpartition(".")
        assert re.search(rf'^\.TH "{re.escape(stem.upper())}" {number} ', text, re.M)
        assert re.search(r"^\.SH NAME\n\S+ \\- \S", text, re.M)
        # Nothing of Markdown is left, and no line is a request by accident.
        requests = {line.split(" ")[0] for line in text.splitlines() if line.startswith(".")}
        assert requests <= {f".{word}" for word in REQUESTS}
        assert "](" not in text
        assert "`" not in re.sub(r"^\.nf$.*?^\.fi$", "", text, flags=re.M | re.S)


def test_what_the_converter_does_not_know_it_refuses() -> None:
    man = script("packaging/man.py")
    with pytest.raises(ValueError, match="blockquote"):
        man.roff("# a(1): b\n\n> quoted\n", "1")


def test_text_that_roff_would_take_for_its_own_stays_text() -> None:
    man = script("packaging/man.py")
    text = man.roff("# a(1): b\n\n## C\n\n.dot and 'quote' and a\\\\b\n\n```\n.nf\n```\n", "1")
    assert "\\&.dot and" in text
    assert "a\\eb" in text
    assert "\n\\&.nf\n" in text


def test_the_installer_puts_what_is_around_the_programs(tmp_path: Path) -> None:
    environ = {"DESTDIR": str(tmp_path), "PREFIX": "/opt/elsewhere", "PATH": "/usr/bin:/bin"}
    command = ["sh", str(ROOT / "packaging/install.sh"), "--without-programs"]
    first = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    told = first.stdout.split()
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        name.lstrip("/") for name in told
    }
    unit = (tmp_path / "etc/systemd/system/microtorrd.service").read_text()
    assert "ExecStart=/opt/elsewhere/bin/microtorrd\n" in unit
    assert unit.replace("/opt/elsewhere/bin/", "/usr/bin/") == read("systemd/microtorrd.service")
    # The daemon reads it as a user of its own.
    assert (tmp_path / "etc/microtorrd").stat().st_mode & 0o055 == 0o055

    configuration = tmp_path / "etc/microtorrd/microtorrd.toml"
    configuration.write_text("# mine\n")
    again = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert "microtorrd.toml" not in again.stdout
    assert configuration.read_text() == "# mine\n"


def test_the_installer_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    command = ["sh", str(ROOT / "packaging/install.sh"), "--everything"]
    result = subprocess.run(
        command, env={"DESTDIR": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "packaging/install.sh" in result.stderr
    assert list(tmp_path.iterdir()) == []
