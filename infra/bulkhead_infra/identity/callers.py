"""API keys of the gateway's callers: one per role for who runs the mesh, and more for other people.

    python -m bulkhead_infra.identity.callers DIR TENANT PERSON ROLE [--agent]   # DIR: of `bulkhead up`; prints the key

In: two files' paths. Out: `credentials` holds the keys and is its owner's alone; `api_keys` holds their digests with
tenant, person and role, and is all that the gateway gets. Made once; what stands there is kept. The key of an agent is
marked: what comes under it are a model's words.
"""

import argparse
import hashlib
import json
import re
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bulkhead_contracts.task import CALLER_ROLES
from bulkhead_infra.identity.keys import KeyFileError, replace_file

ROLES: tuple[str, ...] = CALLER_ROLES
WORKER = "worker"
"""Of a program that takes delegated steps at doors; no person has it."""
AGENT_ROLES = ("submitter", "auditor")
KEY_PREFIX = "bk_"
API_KEYS_FILE = "api_keys.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")


def ensure_caller_keys(credentials: Path, api_keys: Path, tenant: str) -> None:
    """At the first start: one key per role; and after a restore, which brings digests alone: fresh ones beside them."""
    if credentials.exists() and api_keys.exists():
        return
    before = _read_rows(api_keys) if api_keys.exists() else []
    if before is None:
        return
    new_keys = {role: new_key() for role in ROLES}
    rows = [*before, *(key_row(key, tenant, f"local-{role}", role) for role, key in new_keys.items())]
    new_keys["agent"] = new_key()
    rows.append(key_row(new_keys["agent"], tenant, "local-agent", "submitter", agent=True))
    # The credentials first: a crash in between must not leave digests of keys that nobody has.
    replace_file(credentials, json.dumps(new_keys, indent=1))
    replace_file(api_keys, json.dumps({"keys": rows}, indent=1))


def _read_rows(api_keys: Path) -> list[object] | None:
    """The rows of the file; None when it cannot be read: the gateway refuses it and says why."""
    try:
        content = json.loads(api_keys.read_text())
    except (OSError, ValueError):
        return None
    rows = content.get("keys") if isinstance(content, dict) else None
    return rows if isinstance(rows, list) else None


def new_key() -> str:
    return KEY_PREFIX + secrets.token_urlsafe(32)


def key_row(key: str, tenant: str, person: str, role: str, *, agent: bool = False) -> dict[str, str | bool | int]:
    row: dict[str, str | bool | int] = {"sha256": hashlib.sha256(key.encode()).hexdigest(), "tenant": tenant}
    row |= {"person": person, "role": role} | ({"agent": True} if agent else {})
    return row | {"made_unix_ms": time.time_ns() // 1_000_000}


def add_caller(tenant: str, person: str, role: str, folders: Sequence[Path], *, agent: bool = False) -> dict[str, str]:
    """A key for one more person, its digest beside the others in each folder; the gateway reads the file again at the
    next request. Returns the key with whose it is. Raises KeyFileError."""
    if role not in (*ROLES, WORKER):
        raise KeyFileError(f"no role {role}; there are {', '.join((*ROLES, WORKER))}")
    if agent and role not in AGENT_ROLES:
        raise KeyFileError(f"an agent is no {role}: people alone decide; give it {' or '.join(AGENT_ROLES)}")
    if wrong := [name for name in (tenant, person) if not NAME.fullmatch(name)]:
        raise KeyFileError(f"{wrong[0]!r} is no name: letters, digits, and after the first one also . _ @ -")
    path, key = folders[0] / API_KEYS_FILE, new_key()
    if (rows := _read_rows(path)) is None:
        raise KeyFileError(f"{path} holds no API keys: name the directory of a mesh that was started once")
    text = json.dumps({"keys": [*rows, key_row(key, tenant, person, role, agent=agent)]}, indent=1)
    for folder in folders:
        replace_file(folder / API_KEYS_FILE, text)
    return {"api_key": key, "tenant": tenant, "person": person, "role": role}


def main(arguments: Sequence[str] | None = None) -> int:
    """Add a caller to a mesh on this machine. Exit codes: 0; 2 for a wrong name, role or directory."""
    parser = argparse.ArgumentParser(prog="python -m bulkhead_infra.identity.callers", description="Make an API key.")
    parser.add_argument("data", metavar="DIR", type=Path, help="Directory of the mesh, as `bulkhead up` made it.")
    parser.add_argument("tenant", metavar="TENANT", help="Of the tenants file.")
    parser.add_argument("person", metavar="PERSON", help="Under whose name it counts.")
    parser.add_argument("role", metavar="ROLE", help=", ".join((*ROLES, WORKER)))
    parser.add_argument("--agent", action="store_true", help="An agent holds it: its words are a model's.")
    options = parser.parse_args(arguments)
    try:
        added = add_caller(options.tenant, options.person, options.role, [options.data], agent=options.agent)
        print(json.dumps(added))
    except (KeyFileError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
