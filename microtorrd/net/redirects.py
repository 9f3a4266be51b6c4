"""Where a redirect of a web server leads, and whether we follow."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from microtorrd.core.tiers import place_of
from microtorrd.errors import TrackerError


def next_hop(url: str, location: str) -> str:
    """The URL that a redirect from `url` leads to; raises TrackerError where we do not follow."""
    target = urljoin(url, location.strip())
    scheme = urlsplit(target).scheme
    if scheme not in ("http", "https") or place_of(target) is None:
        raise TrackerError("it redirects to something that is not an HTTP address")
    if scheme == "http" and urlsplit(url).scheme == "https":
        raise TrackerError("it redirects from https to http")
    return target
