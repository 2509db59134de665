"""`python -m bulkhead_infra.kubernetes COMMAND`: keys and Secrets of a mesh in Kubernetes.

keys DIR      make keys, certificate and passwords in a folder of your own, once; a second time changes nothing
secrets DIR   print them as Secrets, for `kubectl -n NAMESPACE apply -f -`
Exit codes: 0; 1 with what is wrong and what to do; 2 for wrong arguments.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from bulkhead_infra.identity.keys import KeyFileError
from bulkhead_infra.identity.policy import IdentityPolicyError
from bulkhead_infra.kubernetes import key_folder


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if options.command == "keys":
            redis = key_folder.ensure_key_folder(options.folder, options.redis, options.identities)
            print(json.dumps({"keys": str(options.folder), "redis": redis, "owners": key_folder.SECRET_OWNERS}))
        else:
            secrets = key_folder.render_secrets(options.folder, certificate=not options.cert_manager)
            print(yaml.safe_dump_all(secrets, sort_keys=False), end="")
        return 0
    except (KeyFileError, IdentityPolicyError) as error:
        print(f"{options.command}: {error}", file=sys.stderr)
    except OSError as error:
        print(f"{options.command}: {error.filename}: {error.strerror}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bulkhead_infra.kubernetes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    keys = commands.add_parser("keys", help="Make keys, certificate and passwords.")
    keys.add_argument("folder", metavar="DIR", type=Path, help="A folder of your own: whoever reads it is the mesh.")
    keys.add_argument(
        "--redis",
        default="",
        choices=tuple(key_folder.REDIS_ADDRESSES),
        help="The chart's Redis: with sentinels (`redis.sentinel: true`, the default) or a single one.",
    )
    keys.add_argument(
        "--identities",
        metavar="FILE",
        type=Path,
        help="Publishers, subscribers and workers of your own; writes DIR/identities.values.yaml for `helm -f`.",
    )
    secrets = commands.add_parser("secrets", help="Print the Secrets.")
    secrets.add_argument("folder", metavar="DIR", type=Path, help="The folder of `keys`.")
    secrets.add_argument("--cert-manager", action="store_true", help="Leave out the certificate that it makes.")
    return parser


if __name__ == "__main__":
    sys.exit(main())
