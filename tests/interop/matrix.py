"""The table of who can do what with us, from the reports of the tests that tried it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from bench.foreign import ALL

#: A cell's test names itself with this property: client, role, shape.
PROPERTY = "interop_cell"
#: … and what our daemons called the client, with this one.
SEEN_AS = "interop_seen_as"

SHAPES = ("file", "directory")
ROLES = {
    "downloads": "downloads from us",
    "seeds": "seeds to us",
    "mixed": "mixed swarm",
    "our-magnet": "follows our magnet",
    "their-magnet": "hands out metadata",
}


def table(reports: Iterable[pytest.TestReport]) -> list[str]:
    """The matrix as lines of text; none where no cell was tried."""
    cells: dict[tuple[str, str, str], str] = {}
    seen_as: dict[str, set[str]] = {}
    for report in reports:
        properties = dict(report.user_properties)
        if PROPERTY not in properties:
            continue
        client, role, shape = str(properties[PROPERTY]).split()
        seen_as.setdefault(client, set()).update(filter(None, str(properties.get(SEEN_AS, "")).split("; ")))
        key = (client, role, shape)
        if not report.passed:
            cells[key] = report.outcome.upper()
        elif report.when == "call":
            cells.setdefault(key, f"{report.duration:.1f}")
    if not cells:
        return []
    heads = ["client", *ROLES.values()]
    rows = []
    for kind in ALL:
        if any(key[0] == kind.name for key in cells):
            both = (
                " / ".join(cells.get((kind.name, role, shape), "-") for shape in SHAPES) for role in ROLES
            )
            rows.append([kind.name, *both])
    widths = [max(len(row[at]) for row in [heads, *rows]) for at in range(len(heads))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    rule = "-|-".join("-" * width for width in widths)
    lines = [
        f"Seconds from the first process to the last byte compared: {' / '.join(SHAPES)}.",
        "",
        " | ".join(head.ljust(width) for head, width in zip(heads, widths, strict=True)),
        rule,
        *lines,
        "",
    ]
    for kind in ALL:
        if kind.name in seen_as:
            names = ", ".join(sorted(seen_as[kind.name])) or "-"
            lines.append(f"{kind.name}: {kind.version()}; seen by microtorrd as {names}")
    return lines
