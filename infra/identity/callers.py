"""API keys of the gateway's callers: one per role for who runs the mesh.

In: two files' paths. Out: `credentials` holds the keys and is its owner's alone; `api_keys` holds their digests with
tenant, person and role, and is all that the gateway gets. Made once; what stands there is kept.
"""

import hashlib
import json
import secrets
from pathlib import Path

from .keys import replace

ROLES = ("submitter", "approver", "operator", "auditor")
KEY_PREFIX = "bk_"


def ensure(credentials: Path, api_keys: Path, tenant: str) -> None:
    """At the first start: one key per role; and after a restore, which brings digests alone: fresh ones beside them."""
    if credentials.exists() and api_keys.exists():
        return
    before = _rows(api_keys) if api_keys.exists() else []
    if before is None:
        return
    made = {role: new_key() for role in ROLES}
    rows = [*before, *(row(key, tenant, f"local-{role}", role) for role, key in made.items())]
    # The credentials first: a crash in between must not leave digests of keys that nobody has.
    replace(credentials, json.dumps(made, indent=1))
    replace(api_keys, json.dumps({"keys": rows}, indent=1))


def _rows(api_keys: Path) -> list[object] | None:
    """What stands there; None of a file that cannot be read: the gateway refuses it and says why."""
    try:
        found = json.loads(api_keys.read_text())
    except (OSError, ValueError):
        return None
    rows = found.get("keys") if isinstance(found, dict) else None
    return rows if isinstance(rows, list) else None


def new_key() -> str:
    """A key that nobody has yet."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def row(key: str, tenant: str, person: str, role: str) -> dict[str, str]:
    """What the gateway knows of a key."""
    return {"sha256": hashlib.sha256(key.encode()).hexdigest(), "tenant": tenant, "person": person, "role": role}
