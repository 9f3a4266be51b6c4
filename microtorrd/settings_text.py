"""The settings in words: a value as one writes it, a range, and `conf/microtorrd.toml` as a whole.

`python -m microtorrd.settings_text > conf/microtorrd.toml` after a change in `settings.py`.
"""

from __future__ import annotations

import textwrap
from typing import Any

from microtorrd import settings
from microtorrd.proto import units
from microtorrd.settings import Record

#: Of the lines of conf/microtorrd.toml.
WIDTH = 100


def spell(record: Record, value: Any) -> str:
    """A value of this setting as one would write it in the file."""
    match record.kind:
        case "size" | "rate" if value:
            return f'"{units.spell_size(value)}{"/s" if record.kind == "rate" else ""}"'
        case "duration":
            return f'"{units.spell_duration(value)}"'
        case "mode":
            return f'"{value:04o}"'
        case "switch":
            return "true" if value else "false"
        case "list":
            return "[" + ", ".join(f'"{part}"' for part in value) + "]"
        case "text" | "path":
            return f'"{value}"'
        case _:
            return str(value)


def spell_range(record: Record) -> str:
    """What values this setting takes, in words; "" where all of its kind are right."""
    if record.choices:
        return "one of " + ", ".join(f'"{choice}"' for choice in record.choices)
    low, high = (None if end is None else spell(record, end).strip('"') for end in (record.ge, record.le))
    if low is None:
        return ""
    return f"{low} or more" if high is None else f"from {low} to {high}"


HEAD = """\
# microtorrd: every setting with its default. Remove the # before a setting to change it.
#
# Sizes and rates are bytes (per second), or text such as "64 MiB" or "3 MB/s"; times are seconds,
# or text such as "15 min". What does not apply on a reload needs a restart of the daemon.
#
# After this file come conf.d/*.toml beside it, then MICROTORRD_SECTION_KEY in the environment, then
# --set section.key=value; each outweighs those before it. The daemon only reads them, and refuses
# to start when anything in them is wrong: `microtorrd --check-config` says what."""


def documentation() -> str:
    """`conf/microtorrd.toml`: every setting with its sentence, its range and its default, commented out."""
    lines = [HEAD]
    section = ""
    for record in settings.records():
        if record.section != section:
            section = record.section
            lines += ["", f"[{section}]"]
        remarks = textwrap.wrap(record.sentence, width=WIDTH - 2, break_on_hyphens=False)
        if record.user_default:
            remarks.append(f"For the daemon of a user: {record.user_default}.")
        facts = [fact for fact in (spell_range(record), "applies on a reload" if record.live else "") if fact]
        if facts:
            remarks.append(f"({'; '.join(facts)})")
        lines += [
            "",
            *(f"# {remark}" for remark in remarks),
            f"#{record.key} = {spell(record, record.default)}",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(documentation(), end="")
