"""Messages that the watcher's fold cannot take: which are left out, by which rule, and how that is told. Pure.

In: the errors that ended a watch, with the message that it was folding or the trip that it was telling. Out: what the
next one leaves out; a trip for each message. The rule: a message whose folding raised is folded again, by a fold that
was begun anew; when it raises there, too, the message is at fault and is left out. A finding that cannot be published
is left out in the same way. Every replica comes to the same by itself. At most MAX_LEFT_OUT messages are left out: a
fold that takes next to nothing is no watch, and says so instead.
"""

from bulkhead.bus.port import StoredMessage
from bulkhead.health.findings import HealthFinding, finding_of
from bulkhead.runtime.decider.history import at_its_source
from bulkhead.runtime.halts.operator import EVERYBODY, HALTS
from bulkhead_services.budget.watch.time_slices import FoldTooLong

MAX_LEFT_OUT = 64
TOKENS = 7
"""Count of tokens in a message's subject."""
Identity = tuple[str, int]
"""Identity of a message, wherever the journal has it: its subject, and its sequence in its inbox."""


def message_identity(stored: StoredMessage) -> Identity:
    """See Identity."""
    return stored.subject, at_its_source(stored).sequence


class LeftOutMessages:
    """Messages that this replica's folds leave out. broken: why its watch does not stand now; "" when it does."""

    def __init__(self) -> None:
        self.folding: StoredMessage | None = None
        """Set by the fold while it takes a message."""
        self.telling = ""
        """The id of the trip that is being told."""
        self.broken = ""
        self._raised: set[Identity] = set()
        self._left_out: dict[Identity, str] = {}

    def blame_message(self, error: BaseException) -> bool:
        """A fold has ended by this error; whether a message is left out from now on because of it."""
        stored, self.folding = self.folding, None
        trip_id, self.telling = self.telling, ""
        error_name = _describe_error(error)
        self.broken = f"its fold ended by {error_name}"
        if stored is None and not trip_id:
            return False  # What raised was no message: the fold is begun anew, and that is all that can be done.
        culprit = message_identity(stored) if stored is not None else (trip_id, 0)
        if culprit not in self._raised or len(self._left_out) >= MAX_LEFT_OUT:
            self._raised.add(culprit)
            return False
        self._left_out[culprit] = error_name
        return True

    def clear_blame(self) -> None:
        """A fold has come to the end of the journal: what it took is not to blame for anything before."""
        self.broken = ""
        self._raised.clear()

    def trip_for(self, stored: StoredMessage) -> HealthFinding | None:
        """Finding of a message that is left out; None for one that is folded. Ids derive from the message."""
        if not self._left_out or (name := message_identity(stored)) not in self._left_out:
            return None
        parts = stored.subject.split(".")
        is_complete = len(parts) == TOKENS
        tenant, task = (parts[4], parts[5]) if is_complete else (EVERYBODY, HALTS)
        who = f"{parts[1]} to {parts[2]}" if is_complete else "no sender of the mesh"
        kind, message_id = (_header_value(stored, key) for key in ("ce-type", "ce-id"))
        complaint = (
            f"the watch of coordination health could not take message {message_id or stored.sequence} ({kind}, {who})"
        )
        lost = "a loop, a stall or a deadlock of this task that it shows may not be found"
        description = f"{complaint}: {self._left_out[name]}. It is left out; {lost}"
        lineage, evidence, key = f"{tenant}/{task}", (message_id,) if message_id else (), "/".join(map(str, name))
        return finding_of(
            "watch.left_out", "warn", tenant, lineage, (), description, evidence, stored.time_unix_ms, key, {}
        )

    def is_trip_left_out(self, trip: str) -> bool:
        """True when this trip is left out: telling it ended the watch twice."""
        return (trip, 0) in self._left_out

    @property
    def degraded(self) -> str:
        """Why the watch is not whole, and what to do; "" when it is."""
        if self.broken:
            return (
                f"the watcher finds nothing now: {self.broken}. Admissions go on, and it is begun anew by itself; "
                "report what budget's log says under watch_broke, and start the version that mends it"
            )
        if self._left_out:
            return (
                f"the watcher leaves out {len(self._left_out)} message(s) that its fold cannot take, or trips that "
                "it cannot tell; report what budget's log says under left_out, and start the version that mends "
                "it"
            )
        return ""


def _describe_error(error: BaseException) -> str:
    """Kind of an error, and its place: its words may be those of a tenant's message, and belong into no fact."""
    if isinstance(error, FoldTooLong):
        return f"{type(error).__name__} in {error.where}"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" in {trace.tb_frame.f_code.co_qualname}" if trace is not None else ""
    return f"{type(error).__name__}{where}"


def _header_value(stored: StoredMessage, name: str) -> str:
    return next((value for key, value in stored.headers.items() if key.lower() == name), "")
