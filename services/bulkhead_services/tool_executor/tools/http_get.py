"""`http_get(url)`: text from hosts that the operator allowed.

Every hop is checked anew: scheme, host and port against the allow-list, and the very address that is connected
to, so that neither a redirect nor a name that resolves differently the second time leads elsewhere.
"""

import re
from urllib.parse import urljoin, urlsplit

from bulkhead.tools.api import Arguments, Call, Done, Failed, Response, Unanswered
from bulkhead_contracts import bounds
from bulkhead_services.tool_executor.addresses import first_non_public

_TEXT = ("text/", "application/json", "application/xml", "application/xhtml+xml", "application/ld+json")
_ODD = re.compile(r"[\s\\\x00-\x1f\x7f]")
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_PORTS = {"http": 80, "https": 443}


async def run(arguments: Arguments, call: Call) -> Done | Failed:
    """The body as text, cut at the tool's output bound."""
    url = arguments["url"]
    for _ in range(bounds.MAX_REDIRECTS + 1):
        address = await _allowed_address(url, call)
        if isinstance(address, Failed):
            return address
        response = await call.world.get(url, address, call.max_output_bytes)
        if isinstance(response, Unanswered):
            message = f"no answer from {urlsplit(url).hostname}: {response.reason}"
            return Failed(response.code, message, "try again later", transient=True)
        if not (300 <= response.status < 400 and response.location):
            return _read_text(url, response)
        try:
            url = urljoin(url, response.location)
        except ValueError:
            return Failed("bad_url", f"{urlsplit(url).hostname} redirects to what is no URL", "use the final URL")
    return Failed("too_many_redirects", f"more than {bounds.MAX_REDIRECTS} redirects", "use the final URL")


async def _allowed_address(url: str, call: Call) -> str | Failed:
    hint = "use a URL on a host that the operator allowed (BULKHEAD_HTTP_ALLOW_HOSTS)"
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".").lower()
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return Failed("bad_url", "this is not a URL", hint)
    if parts.scheme not in _PORTS or not host or parts.username is not None or _ODD.search(url):
        return Failed("bad_url", "only http and https URLs without credentials are fetched", hint)
    allowed = {entry.lower() for entry in call.http_allow_hosts}
    by_default = host in allowed and port == _PORTS[parts.scheme]
    if not by_default and f"{host}:{port}" not in allowed:
        return Failed("host_not_allowed", f"{host}:{port} is not on the allow-list", hint)
    addresses = await call.world.resolve(host, port)
    if not addresses:
        return Failed("unreachable", f"{host} has no address", "check the host's name", transient=True)
    private = {entry.lower() for entry in call.http_allow_private_hosts}
    if host not in private and f"{host}:{port}" not in private:
        non_public = first_non_public(addresses)
        if non_public:
            message = f"{host} resolves to {non_public}, which is not public"
            return Failed("private_address", message, "an operator must allow it by BULKHEAD_HTTP_ALLOW_PRIVATE_HOSTS")
    return addresses[0]


def _read_text(url: str, response: Response) -> Done | Failed:
    host = urlsplit(url).hostname
    if response.status >= 300:
        message = f"{host} answered {response.status}"
        return Failed(
            "http_status", message, "check the URL, or try again later", transient=response.status in _TRANSIENT
        )
    if response.media_type and not response.media_type.startswith(_TEXT):
        return Failed("not_text", f"{host} sent {response.media_type[:60]}", "only text is fetched")
    try:
        text = response.body.decode(response.charset or "utf-8", "replace")
    except (LookupError, UnicodeError):  # An unknown charset, or a codec without `replace`, as idna.
        text = response.body.decode("utf-8", "replace")
    if "\x00" in text:
        return Failed("not_text", f"{host} sent binary content", "only text is fetched")
    if not text.strip():
        return Failed("empty_body", f"{host} sent no text", "check the URL")
    return Done(text, response.truncated)
