"""The map of the house, enforced: who may import whom, and what stands in one place only.

Every source file is read with `ast`; imports inside functions and under TYPE_CHECKING count like any other.
A module that is on no line of the map fails too: whoever adds one says where it belongs.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[1]

#: Room: the rooms it may import besides itself. A module belongs to the room of the longest name that fits.
#: Downwards only: each line names nothing but lines above it.
MAP: dict[str, set[str]] = {
    "microtorrd.errors": set(),
    "microtorrd.rate": set(),
    "microtorrd.times": set(),
    "microtorrd.libraries": set(),
    "microtorrd.cycles": set(),
    "microtorrd.log_lines": {"microtorrd.libraries"},
    "microtorrd.logs": {"microtorrd.log_lines"},
    "microtorrd.greenlets": {"microtorrd.errors", "microtorrd.logs"},
    # What bytes and words mean.
    "microtorrd.proto": {"microtorrd.errors"},
    "microtorrd.proto.places": set(),
    "microtorrd.proto.units": set(),
    "microtorrd.terms": {"microtorrd.proto"},
    "microtorrd.settings": set(),
    "microtorrd.settings_text": {"microtorrd.settings", "microtorrd.proto.units"},
    "microtorrd.config": {
        "microtorrd.errors",
        "microtorrd.settings",
        "microtorrd.settings_text",
        "microtorrd.proto.units",
        "microtorrd.proto.places",
    },
    "microtorrd.invocation": {"microtorrd.config"},
    # Decide, keep bytes, decide: no gevent up to here.
    "microtorrd.core": {"microtorrd.errors", "microtorrd.rate", "microtorrd.proto"},
    "microtorrd.disk": {"microtorrd.errors", "microtorrd.proto"},
    "microtorrd.tracker": {"microtorrd.errors", "microtorrd.rate", "microtorrd.logs", "microtorrd.proto"},
    # From here on it may wait.
    "microtorrd.disk.pool": {"microtorrd.errors", "microtorrd.disk"},
    "microtorrd.notes": {"microtorrd.errors"},
    "microtorrd.net": {
        "microtorrd.errors",
        "microtorrd.libraries",
        "microtorrd.rate",
        "microtorrd.logs",
        "microtorrd.greenlets",
        "microtorrd.proto",
        "microtorrd.core",
        "microtorrd.disk",
        "microtorrd.disk.pool",
    },
    "microtorrd.tracker.app": {
        "microtorrd.errors",
        "microtorrd.logs",
        "microtorrd.greenlets",
        "microtorrd.proto",
        "microtorrd.tracker",
    },
    "microtorrd.rpc": {
        "microtorrd.errors",
        "microtorrd.logs",
        "microtorrd.greenlets",
        "microtorrd.proto",
        "microtorrd.terms",
    },
    # All torrents. These modules are one room: they know each other and everything below but the edges.
    "session": {
        "microtorrd.errors",
        "microtorrd.cycles",
        "microtorrd.libraries",
        "microtorrd.times",
        "microtorrd.rate",
        "microtorrd.logs",
        "microtorrd.greenlets",
        "microtorrd.config",
        "microtorrd.proto",
        "microtorrd.terms",
        "microtorrd.core",
        "microtorrd.disk",
        "microtorrd.disk.pool",
        "microtorrd.net",
        "microtorrd.notes",
    },
    # The process.
    "daemon": {
        "microtorrd.errors",
        "microtorrd.cycles",
        "microtorrd.libraries",
        "microtorrd.logs",
        "microtorrd.greenlets",
        "microtorrd.config",
        "microtorrd.proto",
        "microtorrd.rpc",
        "microtorrd.tracker",
        "microtorrd.tracker.app",
        "microtorrd.notes",
        "microtorrd.invocation",
        "session",
    },
    "microtorrd.__main__": {
        "microtorrd.errors",
        "microtorrd.libraries",
        "microtorrd.config",
        "microtorrd.invocation",
        "microtorrd.tracker",
        "daemon",
    },
    # The client is light: what the bytes mean, and hashing.
    "mtorrctl": {
        "microtorrd.errors",
        "microtorrd.proto",
        "microtorrd.proto.places",
        "microtorrd.proto.units",
        "microtorrd.disk.digest",
    },
}

#: Rooms of several modules that have no package of their own.
TOGETHER = {
    "session": (
        "archive",
        "changes",
        "checks",
        "choosing",
        "content",
        "facilities",
        "gist",
        "giving",
        "host",
        "intake",
        "loading",
        "ledger",
        "life",
        "on_record",
        "relocation",
        "resolver",
        "roster",
        "rest",
        "rows",
        "session",
        "standing",
        "torrent",
        "webseeds",
        "whereabouts",
        "whole",
    ),
    "daemon": ("daemon", "lock", "service_manager"),
}

#: What brings in a loop, a socket or a web framework. Only the rooms that may wait import these.
WAITING = {
    "gevent",
    "greenlet",
    "socket",
    "ssl",
    "select",
    "selectors",
    "asyncio",
    "flask",
    "requests",
    "urllib3",
    "redis",
}
MAY_WAIT = (
    "microtorrd.libraries",
    "microtorrd.greenlets",
    "microtorrd.disk.pool",
    "microtorrd.notes",
    "microtorrd.net",
    "microtorrd.tracker.app",
    "microtorrd.rpc",
    "session",
    "daemon",
    "microtorrd.__main__",
)

#: What proto and core do without besides: files, clocks, threads. Chance is handed in as random.Random.
OUTER_WORLD = {
    "os",
    "io",
    "pathlib",
    "shutil",
    "tempfile",
    "time",
    "datetime",
    "threading",
    "subprocess",
    "sqlite3",
}

#: Where an error without a known cause is caught: the crew, and the dispatchers of the control socket and the
#: tracker, whose clients get an answer whatever happens. Disk threads carry errors to who asked for the work.
CATCHES_ALL = {
    "microtorrd/greenlets.py",
    "microtorrd/rpc/dispatch.py",
    "microtorrd/tracker/answer.py",
    "microtorrd/tracker/udp_answer.py",
    "microtorrd/disk/pool.py",
}

#: Where the standard library is patched. Benchmarks are programs of their own: they may.
PATCHES = {"microtorrd/__main__.py", "tests/conftest.py"}


Node = TypeVar("Node", bound=ast.AST)


@dataclass(frozen=True)
class Source:
    """One file."""

    path: str  # from the root of the project
    tree: ast.Module

    @property
    def module(self) -> str:
        """Its name in an import."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def room(self) -> str:
        """The line of the map that it belongs to."""
        return room_of(self.module)

    def nodes(self, kind: type[Node]) -> Iterator[Node]:
        """All nodes of that kind."""
        return (node for node in ast.walk(self.tree) if isinstance(node, kind))


def parse(*folders: str) -> Iterator[Source]:
    """All files in these folders, one at a time: trees are large."""
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield Source(str(file.relative_to(ROOT)), ast.parse(file.read_text()))


@cache
def packages() -> tuple[Source, ...]:
    return tuple(parse("microtorrd", "mtorrctl"))


@cache
def modules() -> frozenset[str]:
    return frozenset(source.module for source in packages())


def room_of(module: str) -> str:
    """The room a module belongs to; "" for the bare package, which holds the version; "?" for none."""
    if module == "microtorrd":
        return ""
    for room, names in TOGETHER.items():
        if module in (f"microtorrd.{name}" for name in names):
            return room
    if module.startswith("microtorrd.tracker.") and module in waiting_tracker():
        return "microtorrd.tracker.app"
    fitting = [room for room in MAP if module == room or module.startswith(f"{room}.")]
    return max(fitting, key=len) if fitting else "?"


@cache
def waiting_tracker() -> frozenset[str]:
    """The modules of the tracker that speak to sockets; the store, the service and their like never wait."""
    pure = {
        "store",
        "service",
        "answer",
        "settings",
        "source",
        "head",
        "swarm",
        "admission",
        "lists",
        "passkeys",
        "connection_ids",
        "udp_answer",
        "counters",
        "metrics",
    }
    return frozenset(
        f"microtorrd.tracker.{file.stem}"
        for file in (ROOT / "microtorrd/tracker").glob("*.py")
        if file.stem not in pure and file.stem != "__init__"
    )


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Each module that a file imports, with the line: ours by their whole names, others by the first part."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source.path}:{node.lineno}: imports are written out"
            assert node.module is not None
            names = [
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in modules() else node.module
                for alias in node.names
            ]
        else:
            continue
        for name in names:
            yield (
                node.lineno,
                name if name.split(".")[0] in ("microtorrd", "mtorrctl") else name.split(".")[0],
            )


def ours(module: str) -> bool:
    return module.partition(".")[0] in ("microtorrd", "mtorrctl")


def test_every_module_is_on_the_map() -> None:
    lost = [source.path for source in packages() if source.room == "?"]
    assert lost == [], "say in tests/test_layers.py which room they belong to"


def test_imports_point_downwards() -> None:
    wrong = []
    for source in packages():
        allowed = MAP.get(source.room, set())
        wrong += [
            f"{source.path}:{line}: {source.room} may not import {name}"
            for line, name in imports(source)
            if ours(name)
            and name not in allowed
            and room_of(name) not in ({"", source.room} | allowed if source.room else set())
        ]
    assert wrong == []


def test_the_map_itself_points_downwards() -> None:
    seen: set[str] = {"microtorrd.disk.digest"}  # a module of a room: named for the client alone
    for room, allowed in MAP.items():
        assert allowed <= seen, f"{room} stands above what it may import"
        seen.add(room)


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    graph = {
        source.module: {name for _, name in imports(source) if ours(name)} - for_types_alone(source)
        for source in packages()
        if not source.path.endswith("__init__.py")
    }
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " imports ".join([*way[way.index(module) :], module])
        if module not in done:
            for name in graph.get(module, ()):
                visit(name, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def for_types_alone(source: Source) -> set[str]:
    """What a file imports only under TYPE_CHECKING."""
    blocks = [node for node in source.nodes(ast.If) if ast.unparse(node.test) == "TYPE_CHECKING"]
    return {name for node in blocks for _, name in imports(Source(source.path, ast.Module(node.body, [])))}


def test_only_rooms_that_may_wait_know_loops_and_sockets() -> None:
    wrong = [
        f"{source.path}:{line}: {name}"
        for source in packages()
        if source.room not in MAY_WAIT and source.room != "mtorrctl"
        for line, name in imports(source)
        if name in WAITING
    ]
    assert wrong == []


def test_proto_and_core_know_nothing_of_the_outer_world() -> None:
    wrong = []
    for source in packages():
        if not source.room.startswith(("microtorrd.proto", "microtorrd.core")):
            continue
        wrong += [f"{source.path}:{line}: {name}" for line, name in imports(source) if name in OUTER_WORLD]
        wrong += [
            f"{source.path}:{node.lineno}: random.{node.attr}"
            for node in source.nodes(ast.Attribute)
            if ast.unparse(node.value) == "random" and node.attr != "Random"
        ]
        wrong += [
            f"{source.path}:{node.lineno}: {ast.unparse(node)}"
            for node in source.nodes(ast.ImportFrom)
            if node.module == "random" and [alias.name for alias in node.names] != ["Random"]
        ]
        wrong += [
            f"{source.path}:{node.lineno}: {ast.unparse(node)}"
            for node in source.nodes(ast.Call)
            if ast.unparse(node.func) in ("open", "print", "input", "random.Random", "Random")
        ]
    assert wrong == []


def test_only_the_crew_and_the_dispatchers_keep_an_error_of_unknown_cause() -> None:
    caught = []
    for source in packages():
        if source.path in CATCHES_ALL:
            continue
        for handler in source.nodes(ast.ExceptHandler):
            passed_on = ast.unparse(handler.body[-1]) == "raise"  # it cleans up and lets go
            if not passed_on and catches_all(handler.type):
                caught.append(f"{source.path}:{handler.lineno}")
        for call in source.nodes(ast.Call):
            if ast.unparse(call.func).endswith("suppress") and any(catches_all(arg) for arg in call.args):
                caught.append(f"{source.path}:{call.lineno}")
    assert caught == []


def catches_all(caught: ast.expr | None) -> bool:
    """Whether `except caught` takes every error there is."""
    names = ["BaseException"] if caught is None else [ast.unparse(node) for node in ast.walk(caught)]
    return "Exception" in names or "BaseException" in names


def test_no_handler_looks_away() -> None:
    silent = [
        f"{source.path}:{handler.lineno}"
        for source in packages()
        for handler in source.nodes(ast.ExceptHandler)
        if all(isinstance(line, ast.Pass) for line in handler.body)
    ]
    assert silent == []


def test_only_the_program_and_the_tests_patch_and_do_so_first() -> None:
    patching = {
        source.path: (source, call.lineno)
        for source in parse("microtorrd", "mtorrctl", "tests", "bench")
        for call in source.nodes(ast.Call)
        if ast.unparse(call.func).endswith("patch_all")
    }
    assert {path for path in patching if not path.startswith("bench/")} == PATCHES
    for source, line in patching.values():
        before = [
            ast.unparse(node)
            for kind in (ast.Import, ast.ImportFrom)
            for node in source.nodes(kind)
            if node.lineno < line
        ]
        allowed = {"from __future__ import annotations", "from gevent import monkey"}
        # With these two the program sees to interrupts before anything takes time.
        allowed |= {"import signal", "import sys", "from gevent import events, monkey"}
        assert set(before) <= allowed, source.path


def test_the_daemon_never_sleeps_without_its_loop() -> None:
    wrong = [
        f"{source.path}:{call.lineno}"
        for source in packages()
        for call in source.nodes(ast.Call)
        if source.room != "mtorrctl" and ast.unparse(call.func) == "time.sleep"
    ]
    assert wrong == []


def test_who_gives_others_a_turn_breathes() -> None:
    """`sleep(0)` is no turn for sockets and timers; `greenlets.breathe` is one for everybody."""
    wrong = [
        f"{source.path}:{call.lineno}"
        for source in packages()
        for call in source.nodes(ast.Call)
        if ast.unparse(call.func).endswith("sleep")
        and all(ast.unparse(arg) in ("0", "0.0") for arg in call.args)
    ]
    assert wrong == []


def test_every_file_says_what_it_is_for() -> None:
    silent = [source.path for source in packages() if source.tree.body and not ast.get_docstring(source.tree)]
    assert silent == []


def test_the_client_stays_light() -> None:
    """What an import of the whole client brings in, found by doing it."""
    names = [source.module for source in packages() if source.room == "mtorrctl"]
    program = f"import sys\nfor name in {names!r}: __import__(name)\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT
    )
    heavy = {"gevent", "flask", "requests", "structlog", "rich", "sqlite3", "asyncio"}
    assert heavy & {name.partition(".")[0] for name in result.stdout.split()} == set()
