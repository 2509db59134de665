"""`bulkhead render`: what somebody else's broker, Prometheus or Grafana must include.

In: a data directory. Out: text, and of `write_accounts` the keys behind it.
"""

import os
import re
import sys
from pathlib import Path

from bulkhead_cli.output import CommandError, Exit, one_line, print_json
from bulkhead_cli.screen import err
from bulkhead_cli.target import read_json


async def write_accounts(data: Path, to: Path | None, config: Path | None, *, as_json: bool) -> None:
    """The accounts block; the same keys give the same text. Raises CommandError."""
    from bulkhead_infra.identity import keys, policy, render
    from bulkhead_infra.identity.config_folder import load_identities
    from bulkhead_infra.local.rundir import config_folder_of

    try:
        rules = load_identities(config_folder_of(data, config, os.environ))
        keys.ensure_keys(data / "identity", rules)
        shards = read_json(data / "mesh.json").get("shards") or {}
        text = render.render_accounts(rules, keys.public_nkeys(data / "identity", rules), shards)
        if to is not None:
            keys.replace_file(to, text)
    except (keys.KeyFileError, policy.IdentityPolicyError) as error:
        raise CommandError(Exit.FAILED, str(error)) from error
    except OSError as error:
        raise CommandError(
            Exit.FAILED, f"{error.filename or to} cannot be written: {error.strerror}", "choose another place"
        ) from error
    if as_json:
        print_json(
            {"identities": len(rules.identities), "file": str(to) if to else None, "accounts": None if to else text}
        )
    elif to is None:
        sys.stdout.write(text)
    else:
        err.print(f"{to}: {len(rules.identities)} identities; include it in the server's configuration", markup=False)


async def write_monitoring(data: Path, folder: Path, runbooks: str, *, as_json: bool) -> None:
    """The files for Prometheus, Grafana and a collector. Raises CommandError."""
    from bulkhead_infra import observability

    if re.search(r"[\s\"'#{}]", runbooks):
        hint = "write it as https://wiki.example/bulkhead"
        raise CommandError(Exit.USAGE, f"--runbooks {one_line(runbooks)[:80]!r} is no address of a page", hint)
    written = observability.monitoring_files(data, runbooks or observability.RUNBOOKS)
    try:
        for name, text in written.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    except OSError as error:
        problem = f"{error.filename or folder} cannot be written: {error.strerror}"
        raise CommandError(Exit.FAILED, problem, "choose another folder") from error
    if as_json:
        print_json({"folder": str(folder), "files": sorted(written)})
    else:
        err.print(f"{folder}: {', '.join(sorted(written))}", markup=False)
