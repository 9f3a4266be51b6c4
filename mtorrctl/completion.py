"""The scripts by which shells complete our words: click's own, and names with spaces in bash, too."""

from __future__ import annotations

import click

#: click's script gives bash a word as it is; bash inserts it unquoted, and a name with a space becomes two.
_AS_IT_IS = "COMPREPLY+=($value)"
_QUOTED = """[[ ${COMP_WORDS[COMP_CWORD]} == [\\"\\']* ]] || printf -v value %q "$value"
            COMPREPLY+=("$value")"""


def script(command: click.Command, name: str, variable: str, shell: str) -> str:
    """What the shell is to read; `variable` is how it asks the program."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, "click knows these three"
    maker = kind(command, {}, name, variable)
    # Not `source()`: for bash that runs a bash to look at its version.
    text: str = maker.source_template % maker.source_vars()
    return text.strip().replace(_AS_IT_IS, _QUOTED)
