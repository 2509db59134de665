"""Use of prompts by version and by release: calls, tokens, cost, and the accepted answers that they led to. Pure.

In: replies of the model gateway and verdicts, in any order and any number of times. Out: figures, and versions that use
much more for an accepted answer than the one before. A call counts with the accepted attempts of its own step; one that
planned with those of every step of its task.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.result import Usage
from bulkhead_contracts.types import Body
from bulkhead_contracts.verdict import VerdictReached

MIN_ACCEPTED = 30
"""Nothing is said of a version with fewer accepted answers."""
MUCH_MORE = 1.5
PLANNING = "planner."
SHIPPED = "(shipped prompts)"
HINT = "`bulkhead prompts diff` shows what was changed; `bulkhead prompts rollback` lets the release before stand again"
_NAME = re.compile(r"([a-z_.]+)@(r?)([1-9][0-9]{0,8})")


@dataclass(slots=True)
class PromptFigures:
    """Calls with a version. accepted: attempts at steps that were accepted."""

    calls: int = 0
    usage: Usage = Usage()
    accepted: int = 0

    @property
    def tokens(self) -> int:
        """Input and output."""
        return self.usage.input_tokens + self.usage.output_tokens

    @property
    def tokens_per_accepted(self) -> int | None:
        """Tokens for one accepted answer; None without one."""
        return round(self.tokens / self.accepted) if self.accepted else None

    def as_json(self) -> dict[str, Any]:
        """Figures; null where there is nothing to divide by."""
        cost = self.usage.cost_usd_micros
        return {
            "calls": self.calls,
            "tokens": self.tokens,
            "cost_usd_micros": cost,
            "estimated_usd_micros": self.usage.estimated_usd_micros,
            "accepted": self.accepted,
            "tokens_per_accepted": self.tokens_per_accepted,
            "per_accepted_usd_micros": math.ceil(cost / self.accepted) if self.accepted else None,
        }


class PromptCall(NamedTuple):
    """One call, by the version of its prompt and the release of its task."""

    step_id: str
    prompt: str
    release: str
    usage: Usage


@dataclass(slots=True)
class TaskPrompts:
    """Calls of one task by their ids, and the attempts at its steps that were accepted."""

    calls: dict[str, PromptCall] = field(default_factory=dict)
    accepted: set[tuple[str, int, int]] = field(default_factory=set)

    def fold_body(self, body: Body) -> None:
        """Fold one message; the first of its kind counts."""
        if isinstance(body, ModelCallReplied) and "@" in body.prompt_id:
            self.calls.setdefault(body.call_id, PromptCall(body.step_id, body.prompt_id, body.release, body.usage))
        elif isinstance(body, VerdictReached) and body.accepted:
            self.accepted.add((body.step_id, body.plan_version, body.attempt))

    def add_to(self, by_version: dict[str, PromptFigures], by_release: dict[str, PromptFigures] | None = None) -> None:
        """Add the task to figures by version and by release."""
        for version in dict.fromkeys(call.prompt for call in self.calls.values()):
            calls = [call for call in self.calls.values() if call.prompt == version]
            steps = {call.step_id for call in calls}
            is_planning = version.startswith(PLANNING)
            accepted = sum(is_planning or step in steps for step, *_ in self.accepted)
            _add_calls(by_version.setdefault(version, PromptFigures()), calls, accepted)
        if by_release is None:
            return
        for release in dict.fromkeys(call.release for call in self.calls.values()):
            calls = [call for call in self.calls.values() if call.release == release]
            _add_calls(by_release.setdefault(release or SHIPPED, PromptFigures()), calls, len(self.accepted))


class HungryVersion(NamedTuple):
    """A version that uses much more for an accepted answer than the one before it."""

    prompt: str
    before: str
    what: str


def find_hungry_versions(by_version: Mapping[str, PromptFigures]) -> list[HungryVersion]:
    """Versions whose tokens per accepted answer are half above those of the version before, where each has enough."""
    numbered: dict[str, list[tuple[bool, int, str]]] = {}
    for name, figures in by_version.items():
        if figures.accepted >= MIN_ACCEPTED and (match := _NAME.fullmatch(name)):
            # The shipped ones come before the tenant's own.
            numbered.setdefault(match[1], []).append((bool(match[2]), int(match[3]), name))
    findings = []
    for rows in numbered.values():
        names = [name for *_, name in sorted(rows)]
        for before, name in pairwise(names):
            used, used_before = by_version[name].tokens_per_accepted, by_version[before].tokens_per_accepted
            if used and used_before and used >= MUCH_MORE * used_before:
                sentence = (
                    f"{name} uses {used:,} tokens for an accepted answer, {before} {used_before:,}: "
                    f"{used / used_before - 1:+.0%} ({by_version[name].accepted} and {by_version[before].accepted} "
                    "accepted answers)"
                )
                findings.append(HungryVersion(name, before, sentence))
    return findings


def report_prompts(tasks: Iterable[TaskPrompts]) -> dict[str, Any]:
    """Figures of tasks: `prompts` and `releases`, each by name; `uses_more`: versions to look at."""
    by_version: dict[str, PromptFigures] = {}
    by_release: dict[str, PromptFigures] = {}
    for task in tasks:
        task.add_to(by_version, by_release)
    return {
        "prompts": [{"prompt": name, **by_version[name].as_json()} for name in sorted(by_version)],
        "releases": [{"release": name, **by_release[name].as_json()} for name in sorted(by_release)],
        "uses_more": [finding._asdict() for finding in find_hungry_versions(by_version)],
    }


def _add_calls(figures: PromptFigures, calls: list[PromptCall], accepted: int) -> None:
    figures.calls += len(calls)
    figures.accepted += accepted
    for call in calls:
        figures.usage = figures.usage + call.usage
