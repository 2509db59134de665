"""API keys of the gateway's callers: one per role for who runs the mesh.

In: two files' paths. Out: `credentials` holds the keys and is its owner's alone; `api_keys` holds their digests with
tenant, person and role, and is all that the gateway gets. Made once and never overwritten.
"""

import hashlib
import json
import secrets
from pathlib import Path

from .keys import replace

ROLES = ("submitter", "approver", "operator", "auditor")
KEY_PREFIX = "bk_"


def ensure(credentials: Path, api_keys: Path, tenant: str) -> None:
    """At the first start: one key per role."""
    if api_keys.exists():
        return
    made = {role: new_key() for role in ROLES}
    rows = [row(key, tenant, f"local-{role}", role) for role, key in made.items()]
    # The credentials first: a crash in between must not leave digests of keys that nobody has.
    replace(credentials, json.dumps(made, indent=1))
    replace(api_keys, json.dumps({"keys": rows}, indent=1))


def new_key() -> str:
    """A key that nobody has yet."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def row(key: str, tenant: str, person: str, role: str) -> dict[str, str]:
    """What the gateway knows of a key."""
    return {"sha256": hashlib.sha256(key.encode()).hexdigest(), "tenant": tenant, "person": person, "role": role}
