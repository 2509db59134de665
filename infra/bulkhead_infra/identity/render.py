"""Rights and public keys become the `accounts` block of a nats-server configuration.

In: a Policy, the nkey public key of every identity, shards. Out: text; the same input gives the same text.
Layout: MESH owns the streams and exports each subject to the accounts that have a right to it; every other identity
is an account of its own that imports those subjects, with one user who may use just them.
"""

import json
from collections.abc import Iterable, Mapping

from bulkhead_contracts import subjects
from bulkhead_infra.identity.policy import BACKUP, PROVISIONER, Policy
from bulkhead_infra.identity.rights import API, MESH, Right, account_of, inbox_prefix, rights

RESPONSE_THRESHOLD = "15s"
"""Time for which the broker remembers a question over an account border; longer than a pull request may stand (5 s)."""


def _api(names: str) -> tuple[str, ...]:
    return tuple(API + name for name in names.split())


PROVISIONER_MAY = (
    *_api("INFO STREAM.CREATE.* STREAM.UPDATE.* STREAM.INFO.* STREAM.PURGE.*"),
    # No other stream: this one alone is made of the others.
    *_api(f"STREAM.DELETE.{subjects.JOURNAL_STREAM}"),
    *_api("CONSUMER.CREATE.*.* CONSUMER.INFO.*.* CONSUMER.NAMES.*"),
)
"""It works inside the account that owns the streams, where a reply subject may reach anything: it runs for a moment,
and its key is for nobody else."""
BACKUP_MAY = (
    *_api("STREAM.NAMES STREAM.INFO.* STREAM.SNAPSHOT.* STREAM.RESTORE.* DIRECT.GET.*"),
    *_api("CONSUMER.NAMES.* CONSUMER.INFO.*.* CONSUMER.PAUSE.*.*"),
    "$JS.SNAPSHOT.ACK.>",
    "$JS.SNAPSHOT.RESTORE.>",
)
"""It works there too: it can copy every stream, make one that is not there of a copy, and hold deliveries back for a
while. It changes no stream that is there."""
SERVE_REPLY_MAX_S = 10


def accounts(
    policy: Policy,
    nkeys: Mapping[str, str],
    shards: Mapping[str, int] | None = None,
    response_threshold: str = RESPONSE_THRESHOLD,
) -> str:
    """The `accounts { ... }` block. Raises KeyError when an identity has no key."""
    granted = rights(policy, shards or {})
    blocks = [_mesh(nkeys, granted, response_threshold)]
    for identity in policy.identities:
        if identity not in (PROVISIONER, BACKUP):
            blocks.append(_account(identity, nkeys[identity], granted, response_threshold))
    head = (
        "# Rendered from infra/bulkhead_infra/identity/policy.yaml and the catalog by bulkhead_infra.identity.render. "
        "Do not edit.\n"
    )
    return head + "accounts {\n" + "".join(blocks) + "}\n"


def _mesh(nkeys: Mapping[str, str], granted: Iterable[Right], threshold: str) -> str:
    users = [
        _user(nkeys[identity], may, (f"{inbox_prefix(identity)}.>",), serves=False)
        for identity, may in ((PROVISIONER, PROVISIONER_MAY), (BACKUP, BACKUP_MAY))
    ]
    lines = ["    jetstream: enabled", f"    users: [ {', '.join(users)} ]", *_exports(MESH, granted, threshold)]
    return _block(MESH, lines)


def _account(identity: str, nkey: str, granted: tuple[Right, ...], threshold: str) -> str:
    account = account_of(identity)
    own = [right for right in granted if right.identity == identity]
    publish = [right.local for right in own if right.kind == "send"]
    hear = {right.local for right in own if right.kind == "hear"}
    if any(subject.startswith("live.") for subject in hear):
        # A listener names all sources at once; what reaches the account is bounded by its imports.
        hear.add("live.>")
    subscribe = [f"{inbox_prefix(identity)}.>", *sorted(hear), *(r.local for r in own if r.kind == "serve")]
    user = _user(nkey, publish, subscribe, serves=any(right.kind == "serve" for right in own))
    imports = [_import(right) for right in own if right.home != account]
    lines = [f"    users: [ {user} ]", *_exports(account, granted, threshold), *_list("imports", imports)]
    return _block(account, lines)


def _user(nkey: str, publish: Iterable[str], subscribe: Iterable[str], *, serves: bool) -> str:
    publish_list = ",\n        ".join(map(json.dumps, publish))
    subscribe_list = ", ".join(map(json.dumps, subscribe))
    # A server answers the subject that came with the request, once, and may publish nowhere else.
    answers = f'\n      allow_responses: {{ max: 1, expires: "{SERVE_REPLY_MAX_S}s" }}' if serves else ""
    return (
        f"{{ nkey: {nkey}, permissions: {{\n"
        f"      publish: {{ allow: [\n        {publish_list} ] }}\n"
        f"      subscribe: {{ allow: [ {subscribe_list} ] }}{answers} }} }}"
    )


def _exports(account: str, granted: Iterable[Right], threshold: str) -> list[str]:
    """Exports of an account: one entry per subject, with the accounts that may import it."""
    importers: dict[tuple[str, str, str], list[str]] = {}
    for right in granted:
        importer = account_of(right.identity)
        if right.home == account and importer != account:
            importers.setdefault((right.kind, right.subject, right.answer), []).append(importer)
    lines = []
    for (kind, subject, answer), who in importers.items():
        to = f"accounts: [{', '.join(sorted(who))}]"
        if kind == "hear":
            lines.append(f"{{ stream: {json.dumps(subject)}, {to} }}")
            continue
        how = ", response_type: stream" if answer == "stream" else ""
        lines.append(f"{{ service: {json.dumps(subject)}{how}, response_threshold: {threshold}, {to} }}")
    return _list("exports", lines)


def _import(right: Right) -> str:
    kind = "stream" if right.kind == "hear" else "service"
    to = f", to: {json.dumps(right.local)}" if right.local != right.subject else ""
    return f"{{ {kind}: {{ account: {right.home}, subject: {json.dumps(right.subject)} }}{to} }}"


def _list(name: str, items: list[str]) -> list[str]:
    return [f"    {name}: [", *(f"      {item}" for item in items), "    ]"] if items else []


def _block(account: str, lines: Iterable[str]) -> str:
    return f"  {account}: {{\n" + "\n".join(lines) + "\n  }\n"
