"""Pictures of the programs at work: a real run in a terminal (tmux), drawn as SVG (rich).

    python docs/screenshots/record.py demo.svg 'make demo'
    python docs/screenshots/record.py fetch.svg 'mtorrctl add ubuntu.iso.mtorrent --wait' 'mtorrctl list'

Each command is typed into a shell in the current directory, the next one when it has ended; the picture is
what the terminal shows then, and nothing is touched up. The fonts are the viewer's own, none is loaded.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROWS = 200  # more than any picture has; what stays empty is cut off
PROMPT = "$ "
PATIENCE_S = 300

THEME = TerminalTheme(
    (22, 27, 34),
    (201, 209, 217),
    [
        (72, 79, 88),
        (255, 123, 114),
        (63, 185, 80),
        (210, 153, 34),
        (88, 166, 255),
        (188, 140, 255),
        (57, 197, 207),
        (177, 186, 196),
    ],
)

#: As rich draws a terminal, but with the fonts that are there instead of one from the web.
FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 17px; font-family: ui-sans-serif, "DejaVu Sans", Arial, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> int:
    """Record and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("commands", nargs="+", metavar="COMMAND")
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--title", default="")
    options = parser.parse_args()
    screen = record(options.commands, options.columns)
    name = options.output.stem
    options.output.write_text(draw(screen, columns=options.columns, title=options.title, name=name))
    return 0


def record(commands: list[str], columns: int) -> str:
    """Type the commands into a shell of its own; what the terminal shows in the end, with its colours."""
    server = f"record-{os.getpid()}"
    environ = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TMUX")}
    # The shell says by itself that a command has ended: nothing but the command is typed.
    shell = f"env HISTFILE= PS1='{PROMPT}' PROMPT_COMMAND='tmux -L {server} wait-for -S ready' bash --norc"
    start = ["new-session", "-d", "-x", str(columns), "-y", str(ROWS), shell]
    try:
        tmux(server, "-f", os.devnull, *start, ";", "set-option", "-g", "status", "off", environ=environ)
        tmux(server, "wait-for", "ready")
        for command in commands:
            # The word comes just before the prompt is printed.
            while not tmux(server, "capture-pane", "-p").rstrip("\n").endswith(PROMPT.strip()):
                os.sched_yield()
            tmux(server, "send-keys", "-l", command)
            tmux(server, "send-keys", "Enter")
            tmux(server, "wait-for", "ready")
        shown = tmux(server, "capture-pane", "-e", "-p")
    finally:
        tmux(server, "kill-server")
    lines = [line.rstrip() for line in shown.splitlines()]
    while lines and lines[-1] in ("", PROMPT.strip()):
        lines.pop()
    return "\n".join(lines)


def tmux(server: str, *words: str, environ: dict[str, str] | None = None) -> str:
    """One command for a server of our own; what it says."""
    return subprocess.run(
        ["tmux", "-L", server, *words],
        env=environ,
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    ).stdout


def draw(screen: str, *, columns: int, title: str, name: str) -> str:
    """The terminal as SVG."""
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True)
    for line in Text.from_ansi(screen).split("\n"):
        if line.plain.startswith(PROMPT):
            line.stylize("bold")
        console.print(line, soft_wrap=True)
    return console.export_svg(title=title, theme=THEME, code_format=FORMAT, unique_id=name)


if __name__ == "__main__":
    sys.exit(main())
