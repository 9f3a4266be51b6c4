"""The tracker's web application: Flask, with the same answers as the fast front.

It serves everything that is not hot. `/announce` and `/scrape` are here too, so that any WSGI server can run
the tracker; the front of http.py answers them before Flask is asked, by the same function. Query strings are
taken raw: Flask's own reading of them is utf-8 and destroys binary ids.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from flask import Flask, Response, request
from werkzeug.exceptions import MethodNotAllowed, NotFound

from microtorrd.errors import StoreUnreachable
from microtorrd.tracker.answer import TEXT, Answer, Answerer, Origin, accepts_json


def create_app(answerer: Answerer) -> Flask:
    """Return the application around these answers."""
    app = Flask("microtorrd.tracker", static_folder=None)

    @app.before_request
    def clean_path() -> Response | None:
        """Send `//announce` to `/announce`: that is what a tracker URL with a slash at its end leads to."""
        path: str = request.environ["PATH_INFO"]
        if "//" not in path:
            return None
        raw_path = re.sub("/+", "/", path).encode("latin-1")
        query = request.query_string.decode("latin-1")
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


def _origin() -> Origin:
    return Origin(
        request.environ.get("REMOTE_ADDR", ""),
        accepts_json(request.headers.get("Accept", "")),
        request.headers.get("X-Forwarded-For", ""),
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
