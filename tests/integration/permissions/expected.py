"""What each identity may do, read from policy.yaml and the catalog's rows without the code that renders accounts.

In: an identity and a subject as its client writes it. Out: allowed or not. Everything unnamed is not.
"""

from collections.abc import Callable
from typing import Any

import yaml

from bulkhead_contracts import catalog
from tests.paths import ROOT

POLICY: dict[str, Any] = yaml.safe_load((ROOT / "infra" / "bulkhead_infra" / "identity" / "policy.yaml").read_text())
CALLOUT = "identity"
"""Has a place at the broker only where services log in with tokens."""
SERVICES = tuple(name for name in POLICY["services"] if name != CALLOUT)
PUBLISHERS = tuple(POLICY["publishers"])
SUBSCRIBERS = tuple(POLICY["subscribers"])
WORKERS = tuple(POLICY["workers"])
IDENTITIES = (*SERVICES, "operator", *PUBLISHERS, *SUBSCRIBERS, *WORKERS)
MESH = {edge for row in catalog.ROWS if row.plane == "mesh" for edge in row.edges}
ASKS = {
    (sender, to)
    for row in catalog.ROWS
    if row.plane == "rpc" and row.body.__name__.endswith("Requested")
    for sender, to in row.edges
}
RECEIVERS = {to for _, to in MESH}
STREAMS = (
    *(f"INBOX_{to.upper()}" for to in sorted(RECEIVERS)),
    *(f"TIMERS_{name.upper()}" for name in ("planner", "worker", "checker")),
    *(f"RECORDS_{name.upper()}" for name in ("model_gateway", "rag", "tool_executor")),
    "BLOBS",
    "JOURNAL",
    "KV_CONTROL",
    "DEAD_LETTERS",
    "EVENTS",
)

ASKERS = {
    "model_gateway": ("planner", "worker", "checker", "doors"),
    "rag": ("worker", "doors", "gateway"),
    "tool_executor": ("worker", "doors"),
}
"""Who asks whom for something that is done once."""
COUNTED = ("INBOX_", "RECORDS_", "BLOBS", "DEAD_LETTERS")


def uses(identity: str) -> set[str]:
    """The `uses` of an identity."""
    if identity == "operator":
        return set(POLICY["operator"]["uses"])
    return set(POLICY["services"].get(identity, {}).get("uses", ()))


def own(identity: str) -> str:
    """Its inbox stream."""
    return f"INBOX_{identity.upper()}"


def readable(identity: str) -> set[str]:
    """Streams that it may read messages of."""
    has = uses(identity)
    found = {f"INBOX_{name.upper()}" for name in POLICY["services"].get(identity, {}).get("reads", ())}
    table = {
        "inbox_history": {own(identity)},
        "records": {f"RECORDS_{identity.upper()}"},
        "blobs_read": {"BLOBS"},
        "blobs_write": {"BLOBS"},
        "control_read": {"KV_CONTROL"},
        "dead_letters_read": {"DEAD_LETTERS"},
        "journal_read": {"JOURNAL"},
        "inboxes_read": {one for one in STREAMS if one.startswith("INBOX_")},
    }
    return found.union(*(table.get(use, set()) for use in has))


def may_publish(identity: str, subject: str) -> bool:
    """Whether a publish or request on this subject must be let through."""
    tokens = subject.split(".")
    judge: Callable[[str, list[str]], bool] | None = _PLANES.get(tokens[0])
    return judge(identity, tokens) if judge else False


def _mesh(identity: str, tokens: list[str]) -> bool:
    sender, to = tokens[1], tokens[2]
    if identity == "operator":
        return "redrive" in uses(identity) and to in RECEIVERS and (to != "gateway" or has_stream(sender))
    if identity in PUBLISHERS:
        tenant = POLICY["publishers"][identity]["tenant"]
        return sender == identity and (catalog.PUBLISHER, to) in MESH and tokens[4] == tenant and tokens[6:] == ["-"]
    return sender == identity and (sender, to) in MESH


def has_stream(sender: str) -> bool:
    """Whether what this sender says to the gateway is stored: it has no stream for anybody else's words."""
    return sender in PUBLISHERS or (sender, "gateway") in MESH


def _rpc(identity: str, tokens: list[str]) -> bool:
    if identity in WORKERS:
        asks = (catalog.OUTSIDE_WORKER, tokens[2]) in ASKS
        return tokens[1] == identity and asks and tokens[4] == POLICY["workers"][identity]["tenant"]
    return tokens[1] == identity and (tokens[1], tokens[2]) in ASKS


def _api(identity: str, tokens: list[str]) -> bool:
    if tokens[:2] != ["JSMESH", "API"]:
        return False
    operation, rest = ".".join(tokens[2:4]), tokens[4:]
    if identity in SUBSCRIBERS:
        pulls = operation == "CONSUMER.MSG" and rest == ["NEXT", "EVENTS", identity]
        return pulls or (operation in ("CONSUMER.INFO", "CONSUMER.RESET") and rest == ["EVENTS", identity])
    if operation == "DIRECT.GET":
        return (len(rest) == 1 and rest[0] in readable(identity)) or _reads_outcome(identity, rest)
    if operation == "CONSUMER.MSG":
        return tokens[4] == "NEXT" and "inbox" in uses(identity) and tokens[5:] == [own(identity), f"{identity}-0"]
    if operation == "CONSUMER.INFO":
        mine = "inbox" in uses(identity) and rest == [own(identity), f"{identity}-0"]
        counts = "counts" in uses(identity) and len(rest) == 2 and rest[0].startswith(("INBOX_", "EVENTS"))
        return mine or counts or ("stream_info" in uses(identity) and len(rest) == 2)
    if operation == "STREAM.INFO" and rest == ["KV_CONTROL"] and "control_read" in uses(identity):
        return True
    if operation == "STREAM.INFO" and "counts" in uses(identity) and rest[0].startswith(COUNTED):
        return len(rest) == 1
    return operation == "STREAM.INFO" and "stream_info" in uses(identity) and len(rest) == 1


def _reads_outcome(identity: str, rest: list[str]) -> bool:
    """What it has told itself who asked it for something."""
    told = [to for to in ASKERS.get(identity, ()) if rest[:4] == [f"INBOX_{to.upper()}", "mesh", identity, to]]
    return bool(told) and len(rest) > 4


def _dollar_js(identity: str, tokens: list[str]) -> bool:
    if identity in SUBSCRIBERS:
        return tokens[1:4] == ["ACK", "EVENTS", identity]
    return tokens[1] == "ACK" and "inbox" in uses(identity) and tokens[2:4] == [own(identity), f"{identity}-0"]


_PLANES: dict[str, Callable[[str, list[str]], bool]] = {
    "mesh": _mesh,
    "rpc": _rpc,
    "JSMESH": _api,
    "$JS": _dollar_js,
    "blob": lambda who, t: t[1] == who and "blobs_write" in uses(who),
    "record": lambda who, t: t[1] == who and "records" in uses(who),
    "timer": lambda who, t: t[1] == who and t[2] == "set" and "timers" in uses(who),
    "dead": lambda who, t: t[1] == who and "dead_letters_write" in uses(who),
    "events": lambda who, t: "events_write" in uses(who),
    "live": lambda who, t: t[1] == who and "live_write" in uses(who),
    "$KV": lambda who, t: t[1] == "CONTROL" and "control_write" in uses(who),
}


def may_subscribe(identity: str, subject: str) -> bool:
    """Whether a subscription must be let through."""
    tokens = subject.split(".")
    if tokens[0] == f"_INBOX_{identity}":
        return True
    hears = POLICY["services"].get(identity, {}).get("hears", ())
    if tokens[0] == "live":
        return bool(hears) if tokens[1] in (">", "*") else tokens[1] in hears or bool(hears)
    if subject == "control.live.>":
        return "control_read" in uses(identity)
    if subject == "$SYS.REQ.USER.AUTH":
        return "logins" in uses(identity)
    if tokens[0] == "rpc":
        return tokens[1] != ">" and tokens[2] == identity and any(to == identity for _, to in ASKS)
    return False


def publish_subjects() -> list[str]:
    """Every mesh edge, every rpc edge, every sibling facility, every API subject: of everybody, as seen by anybody."""
    names = (*SERVICES, CALLOUT, "operator", "journal", *PUBLISHERS, "pub_other", *SUBSCRIBERS, "sub_other")
    names = (*names, *WORKERS, "wrk_other")
    found = [f"mesh.{a}.{b}.3.{tenant}.t1.-" for a in names for b in names for tenant in ("demo", "acme")]
    found += [f"mesh.{a}.{b}.3.demo.t1.k" for a in names for b in names]
    found += [f"rpc.{a}.{b}.3.demo.t1" for a in names for b in names]
    found += [f"rpc.{a}.doors.3.acme.t1" for a in WORKERS]
    for name in names:
        found += [f"blob.{name}.demo.{'0' * 64}", f"record.{name}.demo.t1.k", f"dead.{name}.3.demo.t1"]
        found += [f"timer.{name}.set.3.demo.t1.k", f"timer.{name}.fired.3.demo.t1", f"live.{name}.demo.t1"]
        found += [f"_INBOX_{name}.x"]
    found += [f"events.{tenant}.task.ended.t1" for tenant in ("demo", "acme")]
    found += ["$KV.CONTROL.task.t1", "$KV.OTHER.x", "control.live.task.t1", "_R_.abcdef.ghijkl", "anything"]
    for prefix in ("$JS.API", "JSMESH.API"):
        found += [f"{prefix}.{one}" for one in _account_api()]
        for stream in STREAMS:
            found += [f"{prefix}.{one}" for one in _stream_api(stream)]
    for stream in STREAMS:
        durable = _durable(stream)
        found += [f"$JS.ACK.{stream}.{durable}.1.1.1.1.0", f"$JS.ACK.{stream}.other.1.1.1.1.0"]
        found += [f"$JS.FC.{stream}.x.y", f"$JS.EVENT.ADVISORY.STREAM.DELETED.{stream}"]
    return [
        *found,
        "$SYS.REQ.USER.AUTH",
        "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.ACCOUNT.MESH.JSZ",
        "$SYS.ACCOUNT.MESH.CONNECT",
    ]


def _account_api() -> tuple[str, ...]:
    return (
        "INFO",
        "STREAM.NAMES",
        "STREAM.LIST",
        "META.LEADER.STEPDOWN",
        "SERVER.REMOVE",
        "ACCOUNT.PURGE.MESH",
        "STREAM.TEMPLATE.CREATE.x",
        "STREAM.CREATE.NEW",
        "STREAM.RESTORE.NEW",
    )


def _durable(stream: str) -> str:
    """One that it has, if it is one that has any."""
    return SUBSCRIBERS[0] if stream == "EVENTS" else f"{stream.partition('_')[2].lower()}-0"


def _stream_api(stream: str) -> list[str]:
    durable = _durable(stream)
    actions = (
        "STREAM.CREATE",
        "STREAM.UPDATE",
        "STREAM.DELETE",
        "STREAM.PURGE",
        "STREAM.INFO",
        "STREAM.MSG.GET",
        "STREAM.MSG.DELETE",
        "STREAM.SNAPSHOT",
        "STREAM.RESTORE",
        "STREAM.LEADER.STEPDOWN",
        "STREAM.PEER.REMOVE",
        "DIRECT.GET",
        "CONSUMER.CREATE",
        "CONSUMER.NAMES",
        "CONSUMER.LIST",
    )
    found = [f"{action}.{stream}" for action in actions]
    for consumer in (durable, "other"):
        for action in ("CREATE", "DURABLE.CREATE", "DELETE", "INFO", "PAUSE", "UNPIN", "RESET", "LEADER.STEPDOWN"):
            found.append(f"CONSUMER.{action}.{stream}.{consumer}")
        found.append(f"CONSUMER.MSG.NEXT.{stream}.{consumer}")
    found += [f"DIRECT.GET.{stream}.mesh.planner.worker.3.demo.t1.-", f"CONSUMER.CREATE.{stream}.other.mesh.>"]
    if stream.startswith("INBOX_"):
        owners = {stream.partition("_")[2].lower(), "worker"}
        found += [f"DIRECT.GET.{stream}.mesh.{a}.{b}.3.demo.t1.k" for a in (*ASKERS, "budget", "*") for b in owners]
    found.append(f"DIRECT.GET.{stream}.mesh.>")
    return [*found, f"DIRECT.GET.{stream}.events.demo.>", f"CONSUMER.CREATE.{stream}.{durable}.events.demo.>"]


def subscribe_subjects() -> list[str]:
    """What somebody might want to overhear."""
    names = (*SERVICES, CALLOUT, "operator", "provisioner", *PUBLISHERS, *SUBSCRIBERS, *WORKERS)
    found = [
        ">",
        "$SYS.REQ.USER.AUTH",
        "*",
        "*.*",
        "mesh.>",
        "mesh.*.worker.>",
        "$JS.>",
        "$JS.API.>",
        "JSMESH.>",
        "$SYS.>",
        "_R_.>",
        "_INBOX.>",
    ]
    found += [
        "$KV.>",
        "blob.>",
        "record.>",
        "dead.>",
        "timer.>",
        "events.>",
        "control.live.>",
        "control.>",
        "live.>",
        "rpc.>",
    ]
    found += [f"_INBOX_{name}.>" for name in names] + [f"_INBOX_{name}.a.*" for name in names]
    found += [f"live.{name}.>" for name in SERVICES] + [f"rpc.*.{name}.>" for name in SERVICES]
    return [*found, *(f"rpc.{name}.budget.>" for name in SERVICES)]
