"""The token that a service logs in with: a file that Kubernetes writes anew before the token in it ends.

In: a path. Out: the token that stands there now, and whether it is another than the one that was shown. It is not
verified here: the broker asks the identity service.
"""

import base64
import binascii
import json
import time
from pathlib import Path

from bulkhead.bus.port import BusUnavailable

MAX_TOKEN_BYTES = 3_500
"""The broker closes on a CONNECT line of more than 4 KiB; projected tokens have about 1 KiB."""


class TokenFile:
    """Read at each login."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shown = ""
        """The token of the last login."""

    def present_token(self) -> str:
        """The token for a login. Raises OSError, after which nats-py tries again."""
        try:
            self.shown = self.read()
        except BusUnavailable as error:
            raise OSError(str(error)) from error
        return self.shown

    def read(self) -> str:
        """Token that the file holds now. Raises BusUnavailable."""
        try:
            with self.path.open("rb") as file:
                token = file.read(MAX_TOKEN_BYTES + 1).strip().decode()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise BusUnavailable(f"the token file {self.path} cannot be read: {reason}; {MOUNT_HINT}") from error
        if not token or len(token) > MAX_TOKEN_BYTES:
            raise BusUnavailable(f"the token file {self.path} is empty or no token; {MOUNT_HINT}")
        return token

    def left_s(self) -> float:
        """Time that the shown token lasts; without end where it does not tell."""
        try:
            part = self.shown.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
            return float(claims["exp"]) - time.time()
        except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
            return float("inf")


MOUNT_HINT = "mount the projected service-account token there, or name its file in BULKHEAD_NATS_TOKEN_FILE"
