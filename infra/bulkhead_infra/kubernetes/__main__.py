"""`python -m bulkhead_infra.kubernetes COMMAND`: keys and Secrets of a mesh in Kubernetes, and rules for its manifests.

keys DIR      make keys, certificate and passwords in a folder of your own, once; a second time changes nothing
secrets DIR   print them as Secrets, for `kubectl apply -f -`
check FILE    hold manifests, as `kubectl kustomize` prints them (`-` for standard input), against our rules
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
from bulkhead_infra.kubernetes import key_folder, objects, overlays, rules


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    try:
        match asked.command:
            case "keys":
                overlay = key_folder.ensure(asked.folder, asked.overlay)
                print(json.dumps({"keys": str(asked.folder), "overlay": overlay, "owners": overlays.SECRET_OWNERS}))
                return 0
            case "secrets":
                found = key_folder.secrets(asked.folder, certificate=not asked.cert_manager)
                print(objects.documents(*found), end="")
                return 0
            case _:
                return _check(asked.file, promoted=not asked.unpromoted, as_json=asked.json)
    except (KeyFileError, IdentityPolicyError, yaml.YAMLError) as error:
        print(f"{asked.command}: {error}", file=sys.stderr)
    except OSError as error:
        print(f"{asked.command}: {error.filename}: {error.strerror}", file=sys.stderr)
    return 1


def _check(file: str, *, promoted: bool, as_json: bool) -> int:
    text = sys.stdin.read() if file == "-" else Path(file).read_text()
    found = rules.broken([one for one in yaml.safe_load_all(text) if one], promoted=promoted)
    if as_json:
        print(json.dumps([{"rule": one.rule, "object": one.object, "problem": one.problem} for one in found]))
    else:
        print("\n".join(map(str, found)) or "no rule is broken")
    return 1 if found else 0


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
        "--overlay", default="", choices=("", *overlays.OVERLAYS), metavar="NAME", help="For dev, staging, production."
    )
    secrets = commands.add_parser("secrets", help="Print the Secrets.")
    secrets.add_argument("folder", metavar="DIR", type=Path, help="The folder of `keys`.")
    secrets.add_argument("--cert-manager", action="store_true", help="Leave out the certificate that it makes.")
    check = commands.add_parser("check", help="Hold manifests against the rules.")
    check.add_argument("file", metavar="FILE", help="As `kubectl kustomize` prints them; `-` reads standard input.")
    check.add_argument("--unpromoted", action="store_true", help="Let tags and placeholders pass, as in dev.")
    check.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
