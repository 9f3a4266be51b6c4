"""One look at many files of many torrents below one root, as cheap as it can be.

The root is opened and known once for all of them. What is out of order is not told from what is not there:
who finds something other than expected looks again with a `FileSet`, which says what is wrong. The same rule
as there holds: nothing is reached through a symbolic link.
"""

from __future__ import annotations

import os
from stat import S_ISREG

from microtorrd.disk.tree import Parts, Walker, open_root

FileStat = tuple[int, int]  # size in bytes, mtime in ns


class Glance:
    """A root that is open. Use it in a `with`, in a disk thread. Raises OSError where it cannot be opened."""

    def __init__(self, root: str) -> None:
        self._root = open_root(root)
        self._walker = Walker(self._root)
        self.device = os.fstat(self._root).st_dev

    def __enter__(self) -> Glance:
        return self

    def __exit__(self, *_: object) -> None:
        self._walker.__exit__()
        os.close(self._root)

    def stat(self, path: Parts) -> FileStat | None:
        """Size and mtime of a regular file; None where none could be looked at."""
        try:
            within = self._root if len(path) == 1 else self._walker.enter(path[:-1])
            found = os.stat(path[-1], dir_fd=within, follow_symlinks=False)
        except OSError:
            return None
        return (found.st_size, found.st_mtime_ns) if S_ISREG(found.st_mode) else None

    def holds(self, name: str) -> bool:
        """Whether the root has an entry of this name, or may have one."""
        try:
            os.stat(name, dir_fd=self._root, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True
