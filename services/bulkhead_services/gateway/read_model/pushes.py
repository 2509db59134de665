"""Push notifications of one task, pure: who is told, how far each is, and what a message makes due.

In: the task's messages, in stream order, with the views around them. Out: `due_at`, by the place of the message that
makes it so: whoever handles that message again finds the same. A receiver is sent the next post when the one before has
ended, so posts are in order, and one that is away has one post under way, whatever becomes of the task.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts import bounds
from bulkhead_contracts.approval import ApprovalEnded, ApprovalRequested
from bulkhead_contracts.push import PushConfigDeleted, PushConfigSet, PushEnded
from bulkhead_contracts.result import Result
from bulkhead_services.gateway.read_model.task_view import ENDED, TaskView


@dataclass(frozen=True, slots=True)
class PushConfig:
    """A config that stands, as its message says. setting: place of the message that set it."""

    setting: int
    body: PushConfigSet
    set_unix_ms: int


@dataclass(frozen=True, slots=True)
class TaskUpdate:
    """State of the task after the message at `sequence`."""

    sequence: int
    status: str
    asks: bool
    reason: str
    at_unix_ms: int
    result: Result | None = None


@dataclass(frozen=True, slots=True)
class PushPost:
    """Ask for this post."""

    config: PushConfig
    update: TaskUpdate


@dataclass(frozen=True, slots=True)
class PushStop:
    """End of the posts for settings up to this one."""

    config_id: str
    setting: int


class TaskPushes:
    """See the module. configs: by id. given_up: why nothing more is posted for one. changes: settings and deletions so
    far. dropped: posts that waited behind one that was given up, by the place of the message that told so."""

    def __init__(self) -> None:
        self.configs: dict[str, PushConfig] = {}
        self.given_up: dict[str, str] = {}
        self.dropped: dict[int, int] = {}
        self.changes = self.settings = 0
        self._due: dict[int, list[PushPost | PushStop]] = {}
        self._waiting: dict[str, deque[TaskUpdate]] = {}
        self._asking: set[str] = set()
        self._told = ("", False, "")

    def due_at(self, sequence: int) -> Sequence[PushPost | PushStop]:
        """Posts and stops that the message at this place makes due."""
        return self._due.get(sequence, ())

    def first_waiting(self) -> Sequence[PushPost]:
        """Posts that all others wait for, one of each config."""
        waiting = ((config, self._waiting.get(name)) for name, config in self.configs.items())
        return [PushPost(config, updates[0]) for config, updates in waiting if updates]

    def count_waiting(self, config_id: str) -> int:
        """Posts that are not ended yet."""
        return len(self._waiting.get(config_id, ()))

    def apply_message(self, message: ReceivedMessage, before: TaskView, after: TaskView) -> None:
        """One more message."""
        match message.body:
            case ApprovalRequested(approval_id=name):
                self._asking.add(name)
            case ApprovalEnded(approval_id=name):
                self._asking.discard(name)
            case PushConfigSet() as body:
                self._set_config(message, body, after)
                return
            case PushConfigDeleted(config_id=name):
                self.changes += 1
                self._drop_config(message.sequence, name)
                return
            case PushEnded() as ended:
                self._end_post(message, ended)
                return
        state = self._task_state(after)
        if state == self._told or before.status in ENDED:
            return
        self._told = state
        update = self._make_update(message, after)
        for config in self.configs.values():
            if config.body.config_id not in self.given_up:
                self._append_update(message.sequence, config, update)

    def _set_config(self, message: ReceivedMessage, body: PushConfigSet, view: TaskView) -> None:
        name = body.config_id
        full = name not in self.configs and len(self.configs) >= bounds.MAX_PUSH_CONFIGS
        if full or self.settings >= bounds.MAX_PUSH_SETTINGS:
            return
        self.changes, self.settings = self.changes + 1, self.settings + 1
        self._drop_config(message.sequence, name)
        config = self.configs[name] = PushConfig(message.sequence, body, message.time_unix_ms)
        # How it stands now is told at once: it may have ended just before, and then nothing else would come.
        self._append_update(message.sequence, config, self._make_update(message, view))

    def _drop_config(self, sequence: int, name: str) -> None:
        config = self.configs.pop(name, None)
        self.given_up.pop(name, None)
        self._waiting.pop(name, None)
        if config is not None:
            self._due.setdefault(sequence, []).append(PushStop(name, config.setting))

    def _end_post(self, message: ReceivedMessage, ended: PushEnded) -> None:
        config, waiting = self.configs.get(ended.config_id), self._waiting.get(ended.config_id)
        if config is None or config.setting != ended.setting or not waiting or waiting[0].sequence != ended.update:
            return  # Of another setting, or told twice.
        waiting.popleft()
        if ended.outcome == "given_up":
            self.given_up[ended.config_id] = ended.reason
            self.dropped[message.sequence] = len(waiting)
            waiting.clear()
        elif waiting:
            self._due.setdefault(message.sequence, []).append(PushPost(config, waiting[0]))

    def _append_update(self, sequence: int, config: PushConfig, update: TaskUpdate) -> None:
        waiting = self._waiting.setdefault(config.body.config_id, deque())
        if len(waiting) >= bounds.MAX_PUSH_WAITING:
            waiting.pop()  # The first is under way; of the others the newest counts most.
        waiting.append(update)
        if len(waiting) == 1:
            self._due.setdefault(sequence, []).append(PushPost(config, update))

    def _task_state(self, view: TaskView) -> tuple[str, bool, str]:
        asks = view.status == "paused" and bool(self._asking)
        reason = view.pause.reason if view.pause is not None else ""
        if view.failure is not None:
            failure = view.failure
            reason = f"{failure.code}: {failure.message}" + (f" ({failure.hint})" if failure.hint else "")
        return view.status, asks, reason[: bounds.MAX_REASON_CHARS]

    def _make_update(self, message: ReceivedMessage, view: TaskView) -> TaskUpdate:
        status, asks, reason = self._task_state(view)
        return TaskUpdate(message.sequence, status, asks, reason, message.time_unix_ms, view.result)
