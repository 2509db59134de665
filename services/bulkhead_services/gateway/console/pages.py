"""Pages from templates, and files that they need: everything from outside is text, never markup.

In: a template's name and values. Out: HTML, escaped, with control characters written out; headers that let a browser
run nothing but the console's own files.
"""

import gzip
import hashlib
import math
import re
import time
from collections import Counter
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from bulkhead.gateway_api.prompts import READERS as PROMPT_READERS
from bulkhead.gateway_api.query import EVERY_ROLE, OVERSEERS, SUBMITTERS, AllowedRoles
from bulkhead.gateway_api.ratings import PEOPLE
from bulkhead.text import amounts
from bulkhead.text.plain_text import cut_line, escape_controls
from bulkhead_services.gateway.console.blocks import render_block

HERE = Path(__file__).parent
MEDIA = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".woff2": "font/woff2"}
FILES = {path.name: path.read_bytes() for path in sorted((HERE / "static").rglob("*")) if path.suffix in MEDIA}
VERSION = hashlib.sha256(b"".join(FILES.values())).hexdigest()[:16]
"""Part of every file's path, so that a browser may keep a file for good."""
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
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
ROOM_GROUPS = (
    (
        "Now",
        (
            ("/", "Overview", "layout-dashboard"),
            ("/tasks", "Tasks", "list-checks"),
            ("/approvals", "Approvals", "shield-check"),
            ("/coordination", "Coordination", "network"),
        ),
    ),
    (
        "Money and models",
        (
            ("/spend", "Spend", "wallet"),
            ("/models", "Models and tools", "cpu"),
            ("/tools", "Tools and policies", "wrench"),
            ("/workflows", "Workflows", "git-branch"),
            ("/prompts", "Prompts", "bot"),
        ),
    ),
    ("Answers", (("/quality", "Quality", "gauge"), ("/labels", "Labels", "tags"))),
    (
        "Ask",
        (("/chat", "Chat", "message-square"), ("/new-task", "New task", "plus"), ("/documents", "Documents", "files")),
    ),
    (
        "Operate",
        (
            ("/dead-letters", "Dead letters", "mail-x"),
            ("/runbooks", "Runbooks", "book-open"),
            ("/identities", "Keys and identities", "key-round"),
            ("/docs", "API reference", "plug"),
        ),
    ),
)
"""What the menu lists: for each group address, name and icon of its rooms."""
ROOM_ROLES: dict[str, AllowedRoles] = dict.fromkeys(
    ("/coordination", "/spend", "/models", "/dead-letters", "/identities"), OVERSEERS
) | {"/prompts": PROMPT_READERS, "/chat": SUBMITTERS, "/new-task": SUBMITTERS, "/labels": PEOPLE}
"""Who may use a room; one that is not named here is everybody's."""
CODE = re.compile(r"`([^`<>]+)`")
WORD = re.compile(r"\w+")
MAX_MARKED = 40
THEME_COOKIE = "bulkhead_theme"


def _print_value(value: object) -> object:
    """A value as a template prints it: text without controls; markup that a template made is escaped already."""
    return escape_controls(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def format_moment(unix_ms: int) -> str:
    """Date and time (UTC); a dash for none."""
    return _to_datetime(unix_ms).strftime("%Y-%m-%d %H:%M:%S") if unix_ms else "–"


def _format_iso(unix_ms: int) -> str:
    return _to_datetime(unix_ms).isoformat()


def _to_datetime(unix_ms: int) -> datetime:
    """A time that somebody told: one after the last year that there is here stands at its end."""
    return datetime.fromtimestamp(min(unix_ms, LAST_UNIX_MS) / 1000, UTC)


def _file_path(name: str) -> str:
    return f"/static/{VERSION}/{name}"


def _render_icon(name: str) -> Markup:
    """A symbol of `icons.svg`, for eyes alone: words stand beside it."""
    return Markup('<svg class="icon" aria-hidden="true"><use href="{}#{}"/></svg>').format(
        _file_path("icons.svg"), name
    )


def _format_relative(unix_ms: int) -> str:
    """`12 s ago`, `in 4 min`; the date where it is more than a week away."""
    seconds = time.time() - unix_ms / 1000
    for unit, length_s, below_s in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 86_400), ("d", 86_400, 604_800)):
        if abs(seconds) < below_s:
            amount = f"{int(abs(seconds) // length_s)} {unit}"
            return f"{amount} ago" if seconds >= 0 else f"in {amount}"
    return _to_datetime(unix_ms).strftime("%Y-%m-%d")


def _share_of_bound(evidence: float, bound: float) -> float:
    """Share of the way of evidence to its bound, from 0 to 1: each factor counts alike."""
    return max(0.0, min(1.0, math.log(max(evidence, 1.0)) / math.log(bound)))


def _fold_repeats(reasons: str) -> str:
    """Reasons that a step each gave, with how often where one stands there more than once."""
    counts = Counter(reasons.split("; "))
    return "; ".join(f"{reason} ({count} times)" if count > 1 else reason for reason, count in counts.items())


def mark_code(sentence: str) -> Markup:
    """A sentence whose words between backticks are code."""
    return Markup(CODE.sub(r"<code>\1</code>", str(Markup.escape(_print_value(sentence)))))  # noqa: S704  escaped before


def _mark_words(text: str, question: str) -> Markup:
    """A text with the words of a question marked, wherever they begin a word; those of one or two letters are not."""
    words = [word for word in WORD.findall(question.lower()) if len(word) > 2][:MAX_MARKED]
    if not words:
        return Markup.escape(_print_value(text))
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, words))})", re.IGNORECASE)
    pieces = pattern.split(escape_controls(text))  # Every second piece is a word of the question.
    return Markup("").join(
        Markup("<mark>{}</mark>").format(piece) if at % 2 else piece for at, piece in enumerate(pieces)
    )


def _cut_middle(text: str, maximum: int) -> str:
    """A text of at most so many characters that keeps both ends: names that are numbered differ in their last."""
    line = cut_line(text, 200)
    return line if len(line) <= maximum else f"{line[: maximum // 2]}…{line[-(maximum - maximum // 2 - 1) :]}"


def rooms_of(role: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """The groups of rooms, each with those that a role may use; groups without one are left out."""
    groups = [
        (group, [room for room in rooms if role in ROOM_ROLES.get(room[0], EVERY_ROLE).names])
        for group, rooms in ROOM_GROUPS
    ]
    return [(group, rooms) for group, rooms in groups if rooms]


def _build_environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_print_value,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "cut": cut_line,
        "money": amounts.format_usd,
        "money_column": amounts.format_usd_column,
        "money_short": amounts.format_usd_short,
        "cost": amounts.format_cost,
        "seconds": amounts.format_duration,
    }
    environment.filters |= {
        "moment": format_moment,
        "iso": _format_iso,
        "relative": _format_relative,
        "tokens": amounts.format_tokens,
        "counted": amounts.format_count,
        "block": render_block,
        "evidence": _share_of_bound,
        "fold_repeats": _fold_repeats,
        "code": mark_code,
        "mark": _mark_words,
        "cut_middle": _cut_middle,
        "short_type": lambda name: name.removeprefix("mesh.").removesuffix(".v1"),
    }
    environment.globals["file"] = _file_path
    environment.globals["icon"] = _render_icon
    environment.globals["rooms_of"] = rooms_of
    return environment


ENVIRONMENT = _build_environment()


def theme_of(request: Request) -> str:
    """The colours that the person chose; `auto` follows the browser."""
    chosen = request.cookies.get(THEME_COOKIE, "auto")
    return chosen if chosen in THEMES else "auto"


def render_template(template: str, /, **values: Any) -> str:
    """A template as text."""
    return ENVIRONMENT.get_template(template).render(**values)


def render_page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """A template as an answer. `path` and `theme` are there for every template; `bare`: without the header."""
    values.setdefault("bare", False)
    html = render_template(template, path=request.url.path, theme=theme_of(request), **values)
    return HTMLResponse(html, status, SAFE | NOT_KEPT)


def serve_file(request: Request) -> Response:
    """GET /static/{version}/{name}"""
    name = request.path_params["name"]
    if name not in FILES:
        return Response("there is no such file\n", 404, SAFE | NOT_KEPT, "text/plain")
    fresh = request.path_params["version"] == VERSION
    caching = {"Cache-Control": "public, max-age=31536000, immutable"} if fresh else NOT_KEPT
    headers = SAFE | caching | {"Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers |= {"Content-Encoding": "gzip"}
        return Response(_compress_file(name), 200, headers, MEDIA[Path(name).suffix])
    return Response(FILES[name], 200, headers, MEDIA[Path(name).suffix])


@cache
def _compress_file(name: str) -> bytes:
    return gzip.compress(FILES[name])
