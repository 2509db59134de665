"""The key of one taking of one step: what its holder calls every door with, and nothing else is open to.

In: names, and a key that all replicas derive alike. Out: a text that nobody else can make, and back. Nothing is stored.
"""

import hashlib
import hmac
from dataclasses import dataclass

from bulkhead_contracts.subjects import SubjectError, check_token

PREFIX = "bks_"
_SEPARATOR = "~"
_MAX_NUMBER_DIGITS = 4


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """A program outside, as its own key names it."""

    tenant: str
    name: str


@dataclass(frozen=True, slots=True)
class StepKey:
    """Which taking (`number`, from 1) of which hand-over (`call_id`) by which identity."""

    tenant: str
    identity: str
    task: str
    call_id: str
    number: int


class StepKeys:
    """Makes and reads keys. secret: of doors alone."""

    def __init__(self, secret: bytes) -> None:
        self._secret = hashlib.blake2b(secret, digest_size=32, person=b"bulkhead-steps").digest()

    def format_key(self, key: StepKey) -> str:
        """The key as text: letters, digits and `_-~`."""
        joined = _SEPARATOR.join((key.tenant, key.identity, key.task, key.call_id, str(key.number)))
        return f"{PREFIX}{joined}{_SEPARATOR}{self._seal_text(joined)}"

    def parse_key(self, text: str) -> StepKey | None:
        """The key that a text is; None where doors did not make it."""
        joined, _, seal = text.removeprefix(PREFIX).rpartition(_SEPARATOR)
        if not hmac.compare_digest(self._seal_text(joined).encode(), seal.encode("utf-8", "replace")):
            return None
        *names, number = joined.split(_SEPARATOR)
        try:
            tenant, identity, task, call_id = map(check_token, names)
        except (SubjectError, ValueError):
            return None
        if not (number.isascii() and number.isdigit() and len(number) <= _MAX_NUMBER_DIGITS):
            return None
        return StepKey(tenant, identity, task, call_id, int(number))

    def _seal_text(self, text: str) -> str:
        return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16, key=self._secret).hexdigest()
