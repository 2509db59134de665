"""`bulkhead render`: what somebody else's broker must include. In: a data directory. Out: text, and keys behind it."""

import sys
from pathlib import Path

from bulkhead_cli.output import Exit, Stop, err, print_json
from bulkhead_cli.target import read_json


async def accounts(data: Path, to: Path | None, *, as_json: bool) -> None:
    """The accounts block; the same keys give the same text. Raises Stop."""
    from bulkhead_infra.identity import keys, policy, render

    try:
        rules = policy.load()
        keys.ensure(data / "identity", rules)
        shards = read_json(data / "mesh.json").get("shards") or {}
        text = render.accounts(rules, keys.public_nkeys(data / "identity", rules), shards)
        if to is not None:
            keys.replace(to, text)
    except (keys.KeyFileError, policy.PolicyError) as error:
        raise Stop(Exit.FAILED, str(error)) from error
    except OSError as error:
        raise Stop(
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
