"""A pinned model that changes silently: another name, or another fingerprint, than its provider told before.

In: what providers said of the models that answered. Out: one finding per change. A provider whose machines differ tells
several fingerprints by turns: what was told before is no change. What came first is learnt, and so is what was said
before the newest that is known, for inboxes are read one after the other.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.events import ModelIdentified
from bulkhead.health.findings import HealthFinding, finding_of

FAMILY = "model"
"""Of its detectors: `model.name`, `model.fingerprint`."""
MAX_MODELS = 4_096
"""Of all tenants; beyond it the ones that were learnt first are forgotten."""
MAX_IDENTITIES = 16
"""Names and fingerprints of one model, each, that are remembered."""
KINDS = ("name", "fingerprint")

IdentityKey = tuple[str, str, str, str]
"""Tenant, provider, model, and which of KINDS."""
ToldIdentity = tuple[str, str, int]
"""What was told, the message that told it first, and when."""
IdentityRow = Sequence[object]
"""A key, and its identities, as they are kept."""


class ModelIdentities:
    """Names and fingerprints of each tenant's models."""

    def __init__(self) -> None:
        self._known = BoundedDict[IdentityKey, tuple[ToldIdentity, ...]](MAX_MODELS)

    def fold_event(self, event: ModelIdentified) -> list[HealthFinding]:
        """A finding for a name or a fingerprint that was never told before."""
        identities = zip(KINDS, (event.told, event.fingerprint), strict=True)
        return [
            finding
            for kind, identity in identities
            if identity and (finding := self._fold_identity(event, kind, identity)) is not None
        ]

    def _fold_identity(self, event: ModelIdentified, kind: str, identity: str) -> HealthFinding | None:
        key = (event.tenant, event.provider, event.model, kind)
        earlier_identities = self._known.get(key, ())
        if any(identity == earlier for earlier, _, _ in earlier_identities):
            return None
        newest = max(earlier_identities, key=lambda one: one[2], default=None)
        self._known[key] = (*earlier_identities, (identity, event.id, event.time_unix_ms))[-MAX_IDENTITIES:]
        if newest is None or event.time_unix_ms < newest[2]:
            return None
        before, earlier_id, _ = newest
        name = f"{event.provider}/{event.model}"
        description = f"{name} answers as another model than before: its {kind} was {before!r} and is {identity!r}"
        facts = {"provider": event.provider, "model": event.model, "told": kind, "before": before, "after": identity}
        said_by, changed_unix_ms = (earlier_id, event.id), event.time_unix_ms
        scope = (event.tenant, event.lineage)
        finding = finding_of(
            f"{FAMILY}.{kind}", "warn", *scope, (name,), description, said_by, changed_unix_ms, identity, facts
        )
        # Not of the evidence: a replica that began to read later knows another first message.
        return replace(finding, id=hashlib.sha256("\0".join((*key, identity)).encode()).hexdigest()[:32])

    def dump_rows(self) -> tuple[IdentityRow, ...]:
        """Rows of all that is known."""
        return tuple((*key, [list(entry) for entry in identities]) for key, identities in self._known.items())

    def restore_rows(self, rows: Sequence[IdentityRow]) -> None:
        """Know again what was kept. Raises ValueError or TypeError for what is no row."""
        for tenant, provider, model, kind, identities in rows:
            entries = tuple((str(identity), str(name), int(unix_ms)) for identity, name, unix_ms in identities)  # type: ignore[attr-defined]
            self._known[str(tenant), str(provider), str(model), str(kind)] = entries
