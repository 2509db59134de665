"""Push notifications of one task, pure: who is told, how far each is, and what a message makes due.

In: the task's messages, in stream order, with the views around them. Out: `due`, by the place of the message that makes
it so: whoever handles that message again finds the same. A receiver is sent the next post when the one before has
ended, so posts are in order, and one that is away has one post under way, whatever becomes of the task.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from bulkhead.runtime.edge.protocol import Received
from bulkhead_contracts import bounds
from bulkhead_contracts.approval import ApprovalEnded, ApprovalRequested
from bulkhead_contracts.push import PushConfigDeleted, PushConfigSet, PushEnded
from bulkhead_contracts.result import Result
from bulkhead_services.gateway.read_model.task_view import ENDED, View


@dataclass(frozen=True, slots=True)
class Config:
    """A config that stands, as its message says. setting: place of the message that set it."""

    setting: int
    body: PushConfigSet
    set_unix_ms: int


@dataclass(frozen=True, slots=True)
class Update:
    """How the task stood after the message at `sequence`."""

    sequence: int
    status: str
    asks: bool
    reason: str
    at_unix_ms: int
    result: Result | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """Ask for this post."""

    config: Config
    update: Update


@dataclass(frozen=True, slots=True)
class Stop:
    """Nothing more is posted for settings up to this one."""

    config_id: str
    setting: int


class Pushes:
    """See the module. configs: by id. given_up: why nothing more is posted for one. changes: settings and deletions so
    far. dropped: posts that waited behind one that was given up, by the place of the message that told so."""

    def __init__(self) -> None:
        self.configs: dict[str, Config] = {}
        self.given_up: dict[str, str] = {}
        self.dropped: dict[int, int] = {}
        self.changes = self.settings = 0
        self._due: dict[int, list[Post | Stop]] = {}
        self._waiting: dict[str, deque[Update]] = {}
        self._asking: set[str] = set()
        self._told = ("", False, "")

    def due(self, sequence: int) -> Sequence[Post | Stop]:
        """What the message at this place makes due."""
        return self._due.get(sequence, ())

    def first(self) -> Sequence[Post]:
        """Of each config the post that all its others wait for."""
        waiting = ((config, self._waiting.get(name)) for name, config in self.configs.items())
        return [Post(config, updates[0]) for config, updates in waiting if updates]

    def waiting(self, config_id: str) -> int:
        """Posts that are not ended yet."""
        return len(self._waiting.get(config_id, ()))

    def take(self, message: Received, before: View, after: View) -> None:
        """One more message."""
        match message.body:
            case ApprovalRequested(approval_id=name):
                self._asking.add(name)
            case ApprovalEnded(approval_id=name):
                self._asking.discard(name)
            case PushConfigSet() as body:
                self._set(message, body, after)
                return
            case PushConfigDeleted(config_id=name):
                self.changes += 1
                self._drop(message.sequence, name)
                return
            case PushEnded() as ended:
                self._ended(message, ended)
                return
        stands = self._stands(after)
        if stands == self._told or before.status in ENDED:
            return
        self._told = stands
        update = self._update(message, after)
        for config in self.configs.values():
            if config.body.config_id not in self.given_up:
                self._append(message.sequence, config, update)

    def _set(self, message: Received, body: PushConfigSet, view: View) -> None:
        name = body.config_id
        full = name not in self.configs and len(self.configs) >= bounds.MAX_PUSH_CONFIGS
        if full or self.settings >= bounds.MAX_PUSH_SETTINGS:
            return
        self.changes, self.settings = self.changes + 1, self.settings + 1
        self._drop(message.sequence, name)
        config = self.configs[name] = Config(message.sequence, body, message.time_unix_ms)
        # How it stands now is told at once: it may have ended just before, and then nothing else would come.
        self._append(message.sequence, config, self._update(message, view))

    def _drop(self, sequence: int, name: str) -> None:
        config = self.configs.pop(name, None)
        self.given_up.pop(name, None)
        self._waiting.pop(name, None)
        if config is not None:
            self._due.setdefault(sequence, []).append(Stop(name, config.setting))

    def _ended(self, message: Received, ended: PushEnded) -> None:
        config, waiting = self.configs.get(ended.config_id), self._waiting.get(ended.config_id)
        if config is None or config.setting != ended.setting or not waiting or waiting[0].sequence != ended.update:
            return  # Of another setting, or told twice.
        waiting.popleft()
        if ended.outcome == "given_up":
            self.given_up[ended.config_id] = ended.reason
            self.dropped[message.sequence] = len(waiting)
            waiting.clear()
        elif waiting:
            self._due.setdefault(message.sequence, []).append(Post(config, waiting[0]))

    def _append(self, sequence: int, config: Config, update: Update) -> None:
        waiting = self._waiting.setdefault(config.body.config_id, deque())
        if len(waiting) >= bounds.MAX_PUSH_WAITING:
            waiting.pop()  # The first is under way; of the others the newest counts most.
        waiting.append(update)
        if len(waiting) == 1:
            self._due.setdefault(sequence, []).append(Post(config, update))

    def _stands(self, view: View) -> tuple[str, bool, str]:
        asks = view.status == "paused" and bool(self._asking)
        reason = view.pause.reason if view.pause is not None else ""
        if view.failure is not None:
            failure = view.failure
            reason = f"{failure.code}: {failure.message}" + (f" ({failure.hint})" if failure.hint else "")
        return view.status, asks, reason[: bounds.MAX_REASON_CHARS]

    def _update(self, message: Received, view: View) -> Update:
        status, asks, reason = self._stands(view)
        return Update(message.sequence, status, asks, reason, message.time_unix_ms, view.result)
