"""All levers by name, in the order of the table."""

from __future__ import annotations

from bench.levers import disk, many, tracking, wire
from bench.levers.swaps import Lever

LEVERS: dict[str, Lever] = {
    lever.name: lever for lever in (*wire.LEVERS, *disk.LEVERS, *many.LEVERS, *tracking.LEVERS)
}
