"""A pinned model that changes silently: another name, or another fingerprint, than its provider told before.

In: what providers said of the models that answered. Out: one finding per change. A provider whose machines differ tells
several fingerprints by turns: what was told before is no change. What came first is learnt, and so is what was said
before the newest that is known, for inboxes are read one after the other.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.events import Identified
from bulkhead.health.findings import Finding, finding_of

FAMILY = "model"
"""Of its detectors: `model.name`, `model.fingerprint`."""
MAX_MODELS = 4_096
"""Of all tenants; beyond it the ones that were learnt first are forgotten."""
MAX_WORDS = 16
"""Names and fingerprints of one model, each, that are remembered."""
KINDS = ("name", "fingerprint")

Key = tuple[str, str, str, str]
"""Tenant, provider, model, and which of KINDS."""
Word = tuple[str, str, int]
"""What was told, the message that told it first, and when."""
Row = Sequence[object]
"""A key, and its words, as they are kept."""


class Models:
    """What providers told of each tenant's models."""

    def __init__(self) -> None:
        self._known = BoundedDict[Key, tuple[Word, ...]](MAX_MODELS)

    def take(self, event: Identified) -> list[Finding]:
        """A finding for a name or a fingerprint that was never told before."""
        told = zip(KINDS, (event.told, event.fingerprint), strict=True)
        return [found for kind, word in told if word and (found := self._take(event, kind, word)) is not None]

    def _take(self, event: Identified, kind: str, word: str) -> Finding | None:
        key = (event.tenant, event.provider, event.model, kind)
        known = self._known.get(key, ())
        if any(word == one for one, _, _ in known):
            return None
        newest = max(known, key=lambda one: one[2], default=None)
        self._known[key] = (*known, (word, event.id, event.time_unix_ms))[-MAX_WORDS:]
        if newest is None or event.time_unix_ms < newest[2]:
            return None
        before, said, _ = newest
        name = f"{event.provider}/{event.model}"
        what = f"{name} answers as another model than before: its {kind} was {before!r} and is {word!r}"
        facts = {"provider": event.provider, "model": event.model, "told": kind, "before": before, "after": word}
        said_by, at = (said, event.id), event.time_unix_ms
        scope = (event.tenant, event.lineage)
        finding = finding_of(f"{FAMILY}.{kind}", "warn", *scope, (name,), what, said_by, at, word, facts)
        # Not of the evidence: a replica that began to read later knows another first message.
        return replace(finding, id=hashlib.sha256("\0".join((*key, word)).encode()).hexdigest()[:32])

    def rows(self) -> tuple[Row, ...]:
        """What is known, to be kept."""
        return tuple((*key, [list(word) for word in words]) for key, words in self._known.items())

    def recall(self, rows: Sequence[Row]) -> None:
        """Know again what was kept. Raises ValueError or TypeError for what is no row."""
        for tenant, provider, model, kind, words in rows:
            read = tuple((str(word), str(name), int(at)) for word, name, at in words)  # type: ignore[attr-defined]
            self._known[str(tenant), str(provider), str(model), str(kind)] = read
