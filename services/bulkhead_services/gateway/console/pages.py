"""Pages from templates, and files that they need: everything from outside is text, never markup.

In: a template's name and values. Out: HTML, escaped, with control characters written out; headers that let a browser
run nothing but the console's own files.
"""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from bulkhead import amounts
from bulkhead.plain_text import cut, harmless

HERE = Path(__file__).parent
MEDIA = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {path.name: path.read_bytes() for path in sorted((HERE / "static").rglob("*")) if path.suffix in MEDIA}
VERSION = hashlib.sha256(b"".join(FILES.values())).hexdigest()[:16]
"""Part of every file's path, so that a browser may keep a file for good."""
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
SAFE = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # With `no-referrer` a form's Origin would be null.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
LAST_UNIX_MS = 253_402_300_799_000
NOT_KEPT = {"Cache-Control": "no-store"}
THEMES = ("auto", "light", "dark")
THEME_COOKIE = "bulkhead_theme"


def _text(value: object) -> object:
    """A value as a template prints it: text without controls; markup that a template made is escaped already."""
    return harmless(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _moment(unix_ms: int) -> str:
    return _time(unix_ms).strftime("%Y-%m-%d %H:%M:%S") if unix_ms else "–"


def _iso(unix_ms: int) -> str:
    return _time(unix_ms).isoformat()


def _time(unix_ms: int) -> datetime:
    """A time that somebody told: one after the last year that there is here stands at its end."""
    return datetime.fromtimestamp(min(unix_ms, LAST_UNIX_MS) / 1000, UTC)


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_text,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"cut": cut, "money": amounts.money, "cost": amounts.cost, "seconds": amounts.seconds}
    made.filters |= {"moment": _moment, "iso": _iso, "tokens": amounts.tokens, "counted": amounts.counted}
    made.globals["file"] = lambda name: f"/static/{VERSION}/{name}"
    return made


ENVIRONMENT = _environment()


def spread(text: str) -> str:
    """JSON over lines, for eyes; as it stands where it is none."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return json.dumps(found, indent=2, ensure_ascii=False)


def theme_of(request: Request) -> str:
    """The colours that the person chose; `auto` follows the browser."""
    chosen = request.cookies.get(THEME_COOKIE, "auto")
    return chosen if chosen in THEMES else "auto"


def render(template: str, /, **values: Any) -> str:
    """A template as text."""
    return ENVIRONMENT.get_template(template).render(**values)


def page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """A template as an answer. `path` and `theme` are there for every template; `bare`: without the header."""
    values.setdefault("bare", False)
    said = render(template, path=request.url.path, theme=theme_of(request), **values)
    return HTMLResponse(said, status, SAFE | NOT_KEPT)


def file(request: Request) -> Response:
    """GET /static/{version}/{name}"""
    name = request.path_params["name"]
    if name not in FILES:
        return Response("there is no such file\n", 404, SAFE | NOT_KEPT, "text/plain")
    fresh = request.path_params["version"] == VERSION
    kept = {"Cache-Control": "public, max-age=31536000, immutable"} if fresh else NOT_KEPT
    return Response(FILES[name], 200, SAFE | kept, MEDIA[Path(name).suffix])
