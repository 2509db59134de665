"""Login at a registry, as `docker login` has left it: Basic, or a Bearer token fetched from the registry's own realm.

In: a 401 answer and ~/.docker/config.json (or DOCKER_CONFIG). Out: the Authorization header for the next try.
"""

import base64
import json
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from bulkhead_infra.promotion.errors import RegistryUnreachable

SCHEMES = ("basic", "bearer")


def credentials(host: str) -> str:
    """user:password in base64, "" where nobody has logged in. Raises RegistryUnreachable."""
    folder = os.environ.get("DOCKER_CONFIG") or str(Path.home() / ".docker")
    file = Path(folder) / "config.json"
    try:
        auths = json.loads(file.read_text()).get("auths", {}) if file.is_file() else {}
        return str(auths.get(host, {}).get("auth", ""))
    except (OSError, ValueError, AttributeError) as error:
        raise RegistryUnreachable(
            "login_unreadable", f"{file} could not be read", str(error), f"Call `docker login {host}` again"
        ) from error


def authorization(host: str, answer: httpx.Response, client: httpx.Client) -> str:
    """The header that a 401 asks for. Raises RegistryUnreachable."""
    scheme, _, rest = answer.headers.get("www-authenticate", "").partition(" ")
    known = credentials(host)
    if scheme.lower() == "basic" and known:
        return f"Basic {known}"
    if scheme.lower() == "bearer":
        asked = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        return f"Bearer {_token(host, asked, known, client)}"
    why = "nobody has logged in" if scheme.lower() in SCHEMES else f"it asks for {scheme or 'nothing known'}"
    raise RegistryUnreachable("login_needed", f"{host} wants a login", why, f"Call `docker login {host}`")


def _token(host: str, asked: dict[str, str], known: str, client: httpx.Client) -> str:
    realm = asked.get("realm", "")
    # A password goes over TLS alone, or stays on this machine.
    if urlsplit(realm).scheme != "https" and urlsplit(realm).hostname not in ("localhost", "127.0.0.1"):
        raise RegistryUnreachable(
            "login_unsafe",
            f"{host} sends logins to {realm or 'nowhere'}",
            "the address has no TLS",
            "Ask whoever runs the registry for a realm with https",
        )
    headers = {"authorization": f"Basic {known}"} if known else {}
    wanted = {key: text for key, text in asked.items() if key in ("service", "scope")}
    answer = client.get(realm, params=wanted, headers=headers)
    try:
        body = answer.json() if answer.status_code == 200 else {}
    except ValueError:
        body = {}
    token = body.get("token") or body.get("access_token")
    if not token:
        who = _user(known) or "nobody"
        raise RegistryUnreachable(
            "login_refused",
            f"{realm} gave no token for {asked.get('scope', host)}",
            f"status {answer.status_code} for user {who}",
            f"Call `docker login {host}` as a user who may do that",
        )
    return str(token)


def _user(known: str) -> str:
    try:
        return base64.b64decode(known).decode().partition(":")[0]
    except ValueError:
        return ""
