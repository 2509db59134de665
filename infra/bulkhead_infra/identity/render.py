"""Rights and public keys become the `accounts` block of a nats-server configuration.

In: an IdentityPolicy, the nkey public key of every identity, shards. Out: text; the same input gives the same
text. With `logins` the services have no users there: the identity service lets them in, by
`render_permissions`, made of the same rights. Layout: MESH owns the streams and exports each subject to the
accounts that have a right to it; every other identity is an account of its own that imports those subjects,
with one user who may use just them.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bulkhead_contracts import subjects
from bulkhead_infra.identity.policy import BACKUP, IDENTITY, PROVISIONER, IdentityPolicy
from bulkhead_infra.identity.rights import API, MESH, Right, account_of, derive_rights, inbox_prefix

RESPONSE_THRESHOLD = "15s"
"""Time for which the broker remembers a question over an account border; longer than a pull request may stand (5 s)."""


def _api_subjects(names: str) -> tuple[str, ...]:
    return tuple(API + name for name in names.split())


PROVISIONER_MAY = (
    *_api_subjects("INFO STREAM.CREATE.* STREAM.UPDATE.* STREAM.INFO.* STREAM.PURGE.* STREAM.MSG.DELETE.*"),
    # No other stream: this one alone is made of the others.
    *_api_subjects(f"STREAM.DELETE.{subjects.JOURNAL_STREAM}"),
    *_api_subjects("CONSUMER.CREATE.*.* CONSUMER.INFO.*.* CONSUMER.NAMES.*"),
    # Subscribers of a restored mesh go on where they were.
    *_api_subjects(f"CONSUMER.RESET.{subjects.EVENTS_STREAM}.*"),
)
"""It works inside the account that owns the streams, where a reply subject may reach anything: it runs for a moment,
and its key is for nobody else."""
BACKUP_MAY = (
    *_api_subjects("STREAM.NAMES STREAM.INFO.* STREAM.SNAPSHOT.* STREAM.RESTORE.* DIRECT.GET.*"),
    *_api_subjects("CONSUMER.NAMES.* CONSUMER.INFO.*.* CONSUMER.PAUSE.*.*"),
    "$JS.SNAPSHOT.ACK.>",
    "$JS.SNAPSHOT.RESTORE.>",
)
"""It works there too: it can copy every stream, make one that is not there of a copy, and hold deliveries back for a
while. It changes no stream that is there."""
SERVE_REPLY_MAX_S = 10
LOGIN_TIMEOUT_S = 4
"""So long the broker waits for a client's word, and for the identity service's about it."""


@dataclass(frozen=True, slots=True)
class LoginKeys:
    """Public keys of the identity service: what it signs users with, and what the broker encrypts its questions for."""

    issuer: str
    xkey: str


@dataclass(frozen=True, slots=True)
class UserPermissions:
    """The permissions of one identity's user, in its own account. serves: answers requests, each once."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    serves: bool = False


def render_accounts(
    policy: IdentityPolicy,
    nkeys: Mapping[str, str],
    shards: Mapping[str, int] | None = None,
    response_threshold: str = RESPONSE_THRESHOLD,
    logins: LoginKeys | None = None,
) -> str:
    """The `accounts { ... }` block, and that of the `authorization` where the identity service lets services in.
    nkeys: of `policy.with_nkey`. Raises KeyError when one is missing."""
    granted = derive_rights(policy, shards or {})
    blocks = [_render_mesh_account(nkeys, granted, response_threshold)]
    for identity in policy.identities:
        if identity not in (PROVISIONER, BACKUP):
            nkey = nkeys[identity] if identity in policy.with_nkey else ""
            blocks.append(_render_account(identity, nkey, granted, response_threshold))
    head = (
        "# Rendered from infra/bulkhead_infra/identity/policy.yaml and the catalog by bulkhead_infra.identity.render. "
        "Do not edit.\n"
    )
    if (logins is None) != (not policy.with_token):
        raise ValueError("`logins` belong to a policy that is loaded for Kubernetes, and to no other")
    callout = "" if logins is None else _render_callout(logins, [nkeys[identity] for identity in policy.with_nkey])
    return head + "accounts {\n" + "".join(blocks) + "}\n" + callout


def render_permissions(policy: IdentityPolicy, shards: Mapping[str, int] | None = None) -> str:
    """The file that the identity service reads: account, service account and permissions of each that it lets in."""
    granted = derive_rights(policy, shards or {})
    rows = {}
    for name in policy.with_token:
        allowed = permissions_of(name, granted)
        rows[name] = {
            "account": account_of(name),
            "service_account": name.replace("_", "-"),
            "publish": allowed.publish,
            "subscribe": allowed.subscribe,
            "replies": {"max": 1, "expires_s": SERVE_REPLY_MAX_S} if allowed.serves else None,
        }
    return json.dumps({"services": rows}, indent=1) + "\n"


def permissions_of(identity: str, granted: Iterable[Right]) -> UserPermissions:
    """The permissions of an identity that works in an account of its own."""
    own_rights = [right for right in granted if right.identity == identity]
    hear = {right.local_subject for right in own_rights if right.kind == "hear"}
    if any(subject.startswith("live.") for subject in hear):
        # A listener names all sources at once; what reaches the account is bounded by its imports.
        hear.add("live.>")
    serve = [right.local_subject for right in own_rights if right.kind == "serve"]
    subscribe = (f"{inbox_prefix(identity)}.>", *sorted(hear), *serve)
    return UserPermissions(
        tuple(right.local_subject for right in own_rights if right.kind == "send"), subscribe, bool(serve)
    )


def _render_callout(logins: LoginKeys, users: Iterable[str]) -> str:
    """Block by which whoever is none of these users is asked about. A user that is not named here would be, too."""
    return f"""\
authorization {{
  timeout: {LOGIN_TIMEOUT_S}
  auth_callout {{
    issuer: {logins.issuer}
    account: {account_of(IDENTITY)}
    auth_users: [ {", ".join(users)} ]
    xkey: {logins.xkey}
  }}
}}
"""


def _render_mesh_account(nkeys: Mapping[str, str], granted: Iterable[Right], threshold: str) -> str:
    users = [
        _render_user(nkeys[identity], UserPermissions(may, (f"{inbox_prefix(identity)}.>",)))
        for identity, may in ((PROVISIONER, PROVISIONER_MAY), (BACKUP, BACKUP_MAY))
    ]
    lines = ["    jetstream: enabled", f"    users: [ {', '.join(users)} ]", *_render_exports(MESH, granted, threshold)]
    return _render_block(MESH, lines)


def _render_account(identity: str, nkey: str, granted: tuple[Right, ...], threshold: str) -> str:
    account = account_of(identity)
    users = [f"    users: [ {_render_user(nkey, permissions_of(identity, granted))} ]"] if nkey else []
    imports = [_render_import(right) for right in granted if right.identity == identity and right.home != account]
    return _render_block(
        account, [*users, *_render_exports(account, granted, threshold), *_render_list("imports", imports)]
    )


def _render_user(nkey: str, may: UserPermissions) -> str:
    publish_list = ",\n        ".join(map(json.dumps, may.publish))
    subscribe_list = ", ".join(map(json.dumps, may.subscribe))
    # A server answers the subject that came with the request, once, and may publish nowhere else.
    answers = f'\n      allow_responses: {{ max: 1, expires: "{SERVE_REPLY_MAX_S}s" }}' if may.serves else ""
    return (
        f"{{ nkey: {nkey}, permissions: {{\n"
        f"      publish: {{ allow: [\n        {publish_list} ] }}\n"
        f"      subscribe: {{ allow: [ {subscribe_list} ] }}{answers} }} }}"
    )


def _render_exports(account: str, granted: Iterable[Right], threshold: str) -> list[str]:
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
    return _render_list("exports", lines)


def _render_import(right: Right) -> str:
    kind = "stream" if right.kind == "hear" else "service"
    to = f", to: {json.dumps(right.local_subject)}" if right.local_subject != right.subject else ""
    return f"{{ {kind}: {{ account: {right.home}, subject: {json.dumps(right.subject)} }}{to} }}"


def _render_list(name: str, items: list[str]) -> list[str]:
    return [f"    {name}: [", *(f"      {item}" for item in items), "    ]"] if items else []


def _render_block(account: str, lines: Iterable[str]) -> str:
    return f"  {account}: {{\n" + "\n".join(lines) + "\n  }\n"
