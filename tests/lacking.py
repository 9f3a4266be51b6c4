"""What becomes of tests that need what is not here.

On a developer's machine they are skipped. In CI (`CI=true`) they fail: there it is the install that is
broken, and nobody sees what is no longer tested. What no install could mend, because this user or this kernel
does not allow it, is skipped there, too, with the reason among the last lines.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

IN_CI = os.environ.get("CI") == "true"


def lacking(what: str, *, forbidden: bool = False) -> NoReturn:
    """End this test: that is not here. `forbidden`: and cannot be."""
    if IN_CI and not forbidden:
        pytest.fail(f"{what}, and in CI it must be otherwise", pytrace=False)
    pytest.skip(what)
