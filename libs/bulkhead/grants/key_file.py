"""The file of public keys, read again when it changes: keys are rotated while services run.

In: `public.json`, {key id: public key}. A service's first key bears its name, the next ones `service#2`, `service#3`.
Out: the keys, when others stand there than before.
"""

import json
import time
from pathlib import Path

from bulkhead.telemetry.log import Log

log = Log("grants")
LOOK_EVERY_S = 1.0


def service_of(kid: str) -> str:
    """The service whose key this is."""
    return kid.partition("#")[0]


def kid_of(public_keys: dict[str, str], service: str, public: str) -> str:
    """The id of a service's key; "" when it is none of them."""
    return next((kid for kid, key in public_keys.items() if key == public and service_of(kid) == service), "")


class PublicKeyFile:
    """Looks at the file once a second at most, and only while it is asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._file_stamp()
        self._looked_s = time.monotonic()

    def changed_keys(self) -> dict[str, str] | None:
        """The keys, once after each change. A file that cannot be read changes nothing."""
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_EVERY_S:
            return None
        self._looked_s = now_s
        stamp = self._file_stamp()
        if stamp is None or stamp == self._seen:
            return None
        try:
            keys = json.loads(self._path.read_text())
            keys = {str(kid): str(key) for kid, key in keys.items()}
        except (OSError, ValueError, AttributeError) as error:
            log.warning("public_keys_unreadable", path=str(self._path), reason=str(error))
            return None
        self._seen = stamp
        log.info("public_keys_read", keys=len(keys))
        return keys

    def _file_stamp(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
