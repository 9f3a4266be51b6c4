"""The real `mtorrctl` in processes of its own.

`start` executes the installed program. `run` has it forked from a process that has imported everything
already: the same `main` with its own arguments, streams, environment and directory, but dozens of runs a
second, where starting Python takes a tenth of one.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).with_name("mtorrctl")

#: Reads a run a line, forks for each, answers with its exit code and outputs.
_FORKER = """
import base64, gc, importlib, json, os, sys, tempfile
from mtorrctl.__main__ import main
from mtorrctl.cli import COMMANDS, Commands
for name in COMMANDS:
    Commands().get_command(None, name)
gc.freeze()
for line in sys.stdin:
    run = json.loads(line)
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(base64.b64decode(run["stdin"]))
        given.seek(0)
        child = os.fork()
        if child == 0:
            for number, file in enumerate((given, out, err)):
                os.dup2(file.fileno(), number)
            os.environ.clear()
            os.environ.update(run["environ"])
            os.chdir(run["directory"])
            sys.argv = ["mtorrctl", *(os.fsdecode(base64.b64decode(word)) for word in run["arguments"])]
            sys.stdin = os.fdopen(0, "r")
            code = 99
            try:
                code = main()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        outcome = [os.waitstatus_to_exitcode(status), out.read().decode(), err.read().decode()]
    print(json.dumps(outcome), flush=True)
"""


@dataclass(frozen=True)
class Ran:
    """How it ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output as one JSON value."""
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        """Its output as a JSON value a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Forker:
    """The process that is forked from."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _FORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(
        self, arguments: Sequence[bytes], stdin: bytes, environ: Mapping[str, str], directory: Path
    ) -> Ran:
        """One run to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {
            "arguments": [base64.b64encode(word).decode() for word in arguments],
            "stdin": base64.b64encode(stdin).decode(),
            "environ": dict(environ),
            "directory": str(directory),
        }
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return Ran(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=10)


class Shell:
    """A place to run the program from: a directory, a home, a daemon's socket."""

    def __init__(self, forker: Forker, directory: Path, socket: str | None) -> None:
        self.directory = directory
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
        }
        if socket is not None:
            self.environ["MTORRCTL_SOCKET"] = socket
        self._forker = forker

    def run(
        self, *arguments: str | bytes | Path, stdin: bytes = b"", environ: Mapping[str, str] | None = None
    ) -> Ran:
        """Run it to its end. A traceback is never right, so it is looked for here."""
        words = [os.fsencode(word) for word in arguments]
        ran = self._forker.run(words, stdin, {**self.environ, **(environ or {})}, self.directory)
        assert "Traceback" not in ran.err, ran.err
        return ran

    def start(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Execute it beside the test."""
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [PROGRAM, *arguments], cwd=self.directory, env=self.environ, **{**streams, **options}
        )
