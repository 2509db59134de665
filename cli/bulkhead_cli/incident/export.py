"""`bulkhead incident export`: the parts put into one file, with a manifest.

In: what was gathered. Out: one JSON file of mode 0600, bounded, in which no key of the mesh stands.
"""

import hashlib
import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bulkhead.runtime.context import unix_ms
from bulkhead.telemetry.redaction import REDACTED, without_keys
from bulkhead.text.amounts import format_count
from bulkhead_cli.incident import collect
from bulkhead_cli.incident.collect import IncidentPart
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.screen import err, out
from bulkhead_cli.target import GatewayTarget, read_json

FORMAT = "bulkhead-incident/1"
MAX_BYTES = 8 * 1024 * 1024
REDACTED_NOTE = (
    "no objective, document, prompt, answer, argument, result, reason or error text; no person, key or password. "
    "`bulkhead why TASK` has the words, for who may read them"
)


async def write_incident_file(
    data: Path, remote: GatewayTarget | None, since_s: int, task: str, to: Path, *, as_json: bool
) -> Exit:
    """Write the file. Raises CommandError."""
    made_unix_ms = unix_ms()
    since = made_unix_ms - since_s * 1000
    if remote is None and not read_json(data / "mesh.json"):
        hint = "name its directory with --data, or a gateway with --url and --api-key"
        raise CommandError(Exit.UNREACHABLE, f"no mesh runs in {data}", hint)
    parts = collect.parts_of_gateway(remote, since, task) if remote else collect.parts_of_directory(data, since, task)
    collected = await collect.gather_parts(parts)
    if remote is not None and all(part.error for name, part in collected.items() if name != "versions"):
        raise CommandError(
            Exit.UNREACHABLE, f"{remote.url} tells nothing: {collected['halts'].error}", "check --url and --api-key"
        )
    text = render_incident_file(
        collected, made_unix_ms, since_s, task, secrets_of(data) if remote is None else (remote.api_key,)
    )
    _write_private_file(to, text)
    manifest: dict[str, Any] = json.loads(text)["manifest"]
    if as_json:
        print_json({"file": str(to), "bytes": len(text.encode()), **manifest})
        return Exit.OK
    for name, row in manifest["parts"].items():
        left_out_note = f", {row['left_out']} left out" if row["left_out"] else ""
        summary = f"not told: {row['error']}" if row["error"] else f"{format_count(row['rows'], 'row')}{left_out_note}"
        out.print(f"{name}: {summary}", markup=False)
    err.print(f"{to}: {len(text.encode()):,} bytes, without content and keys", markup=False)
    return Exit.OK


def render_incident_file(
    found: dict[str, IncidentPart], made_unix_ms: int, since_s: int, task: str, secrets: tuple[str, ...]
) -> str:
    """The text of the file. secrets: what must not stand in it, wherever it came from."""
    parts = {name: [_without_secrets(row, secrets) for row in part.rows] for name, part in found.items()}
    manifest = {
        "format": FORMAT,
        "made": datetime.fromtimestamp(made_unix_ms / 1000, UTC).isoformat(timespec="seconds"),
        "since_s": since_s,
        "task": task,
        "redacted": REDACTED_NOTE,
        "parts": {name: asdict(part) | {"rows": len(part.rows)} for name, part in found.items()},
    }
    # The largest part is halved until all fits.
    while len(json.dumps(parts)) > MAX_BYTES and (largest := max(parts, key=lambda name: len(json.dumps(parts[name])))):
        removed_rows = len(parts[largest]) - len(parts[largest]) // 2
        parts[largest] = parts[largest][: len(parts[largest]) // 2]
        manifest["parts"][largest]["rows"] -= removed_rows  # type: ignore[index]
        manifest["parts"][largest]["left_out"] += removed_rows  # type: ignore[index]
    body = json.dumps(parts, sort_keys=True)
    manifest["sha256"] = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps({"manifest": manifest, **parts}, indent=1, ensure_ascii=True) + "\n"


def _write_private_file(to: Path, text: str) -> None:
    try:
        with open(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
    except OSError as error:
        raise CommandError(
            Exit.FAILED, f"{to} cannot be written: {error.strerror}", "choose another place with -o"
        ) from error


def _without_secrets(row: Any, secrets: tuple[str, ...]) -> Any:
    text = without_keys(json.dumps(row, default=str))
    for secret in secrets:
        text = text.replace(json.dumps(secret)[1:-1], REDACTED)
    return json.loads(text)


def secrets_of(data: Path) -> tuple[str, ...]:
    """API keys, bus keys and passwords in a data directory."""
    secrets = [str(key) for key in read_json(data / "credentials.json").values()]
    for path in (*(data / "identity").rglob("*.nkey"), *(data / "identity").rglob("*.sign")):
        secrets.append(path.read_text().strip())
    return tuple(sorted({secret for secret in secrets if len(secret) >= 8}, key=len, reverse=True))
