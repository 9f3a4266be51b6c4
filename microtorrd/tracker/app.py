"""The tracker's web application: Flask, with the same answers as the fast front, and the pages.

It serves everything that is not hot. `/announce` and `/scrape` are here too, so that any WSGI server can run
the tracker; the front of http.py answers them before Flask is asked, by the same function. Query strings are
taken raw: Flask's own reading of them is utf-8 and destroys binary ids.

The page for people is one file and needs nothing from elsewhere: its policy (CSP) allows its own style and
script, by their hashes, and requests to this tracker. All that is put into it is escaped, by the template and
by the script. Pages are not cached, and nothing but figures is in them.
"""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from flask import Flask, Response, render_template, request
from werkzeug.exceptions import InternalServerError, MethodNotAllowed, NotFound

from microtorrd import __version__, logs
from microtorrd.errors import StoreUnreachable
from microtorrd.tracker.answer import TEXT, Answer, Answerer, Origin, accepts_json
from microtorrd.tracker.pages import Pages
from microtorrd.tracker.source import forwarded_for

#: Who is asked before anything of these is told.
_PAGES = frozenset(("front", "swarms", "swarm", "metrics"))

_PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class _Application(Flask):
    """Flask whose mistakes go into our log. Not by their paths: these may hold a passkey."""

    def log_exception(self, exc_info: Any) -> None:
        """Tell what broke."""
        logs.get(room="tracker").error("page_failed", page=request.endpoint, exc_info=exc_info[1])


def create_app(answerer: Answerer, pages: Pages) -> Flask:
    """Return the application around these answers and pages."""
    app = _Application("microtorrd.tracker", static_folder=None)
    _add_pages(app, pages)

    @app.before_request
    def clean_path() -> Response | None:
        """Send `//announce` to `/announce`: that is what a tracker URL with a slash at its end leads to."""
        path: str = request.environ["PATH_INFO"]
        if "//" not in path:
            return None
        raw_path = re.sub("/+", "/", path).encode("latin-1")
        # Bytes of an id that were not escaped, before werkzeug takes them for text; escapes stay.
        query = quote(request.query_string, safe="%!$&'()*+,/:;=?@")
        location = quote(raw_path) + (f"?{query}" if query else "")
        return Response(status=301, headers={"Location": location}, content_type=TEXT)

    @app.get("/announce", provide_automatic_options=False)
    @app.get("/announce/<passkey>", provide_automatic_options=False)
    def announce(passkey: str | None = None) -> Response:
        if passkey is not None and not answerer.takes_passkeys:
            raise NotFound
        return _response(answerer.announce(request.query_string, _origin(), passkey))

    @app.get("/scrape", provide_automatic_options=False)
    @app.get("/scrape/<passkey>", provide_automatic_options=False)
    def scrape(passkey: str | None = None) -> Response:
        if passkey is not None and not answerer.takes_passkeys:
            raise NotFound
        return _response(answerer.scrape(request.query_string, _origin(), passkey))

    @app.get("/health", provide_automatic_options=False)
    def health() -> Response:
        return _response(answerer.health())

    for rule in app.url_map.iter_rules():
        # An announce changes a swarm: whoever wants a head only must not. Werkzeug adds HEAD by itself.
        if rule.methods is not None and rule.endpoint in ("announce", "scrape"):
            rule.methods.discard("HEAD")

    @app.errorhandler(InternalServerError)
    def failed(error: InternalServerError) -> Response:
        return _refusal(500, "internal error")

    @app.errorhandler(NotFound)
    def not_found(error: NotFound) -> Response:
        return _refusal(404, "404 page not found")

    @app.errorhandler(StoreUnreachable)
    def store_unreachable(error: StoreUnreachable) -> Response:
        return _refusal(503, str(error))

    @app.errorhandler(MethodNotAllowed)
    def method_not_allowed(error: MethodNotAllowed) -> Response:
        response = _refusal(405, "Method not allowed")
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ["GET"]))
        return response

    return app


def _add_pages(app: Flask, pages: Pages) -> None:
    @app.before_request
    def keep_strangers_out() -> Response | None:
        refusal = pages.refusal(_origin()) if request.endpoint in _PAGES else None
        return None if refusal is None else _page(refusal)

    @app.get("/", provide_automatic_options=False)
    def front() -> Response:
        text = render_template("swarms.html", front=pages.front(_origin()), version=__version__)
        html = text.encode("utf-8", "replace")
        headers = {"Content-Security-Policy": _policy(html)}
        return _page(Answer(200, "text/html; charset=utf-8", html), headers)

    @app.get("/api/swarms", provide_automatic_options=False)
    def swarms() -> Response:
        return _page(pages.swarms(request.query_string, _origin()))

    @app.get("/api/swarms/<swarm_id>", provide_automatic_options=False)
    def swarm(swarm_id: str) -> Response:
        return _page(pages.swarm(swarm_id, _origin()))

    @app.get("/metrics", provide_automatic_options=False)
    def metrics() -> Response:
        return _page(pages.metrics())


def _policy(html: bytes) -> str:
    """The Content-Security-Policy of a page: what it may do is what its own style and script do."""
    hashes = {
        tag: " ".join(f"'sha256-{b64encode(sha256(part).digest()).decode()}'" for part in _inside(html, tag))
        for tag in ("script", "style")
    }
    return (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _inside(html: bytes, tag: str) -> list[bytes]:
    """What stands between such tags; nothing that was put into the page can look like one."""
    return re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), html, re.DOTALL)


def _page(answer: Answer, headers: dict[str, str] | None = None) -> Response:
    response = _response(answer)
    response.headers.update({**_PAGE_HEADERS, **(headers or {})})
    return response


def _origin() -> Origin:
    return Origin(
        request.environ.get("REMOTE_ADDR", ""),
        accepts_json(request.headers.get("Accept", "")),
        forwarded_for(request.headers.get),
        request.headers.get("Host", ""),
    )


def _response(answer: Answer) -> Response:
    response = Response(answer.body, answer.status, content_type=answer.content_type or None)
    if not answer.content_type:
        del response.headers["Content-Type"]
    return response


def _refusal(status: int, text: str) -> Response:
    """A refusal in the words of the original's web server."""
    headers = {"X-Content-Type-Options": "nosniff"}
    return Response(text + "\n", status, headers, content_type=TEXT)
