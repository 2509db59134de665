"""What is looked at: whether a result says that something is not over yet, and whether it changes by itself.

In: results as canonical texts, one agent's calls in order. Out: what makes looking again honest. A word like `pending`
says so only where it is said *of* something: as a value, or as what something is; in the middle of a page it is a word.
A thing changes by itself when two looks at it differ and its agent did nothing in between but look.
"""

import re
from collections import OrderedDict
from functools import lru_cache

MAX_LOOKS = 256
"""Calls of one lineage whose results are remembered."""
MAX_VALUES = 64
MAX_READING_CHARS = 200
"""A longer result is a page: that another one follows it is no sign of a gauge."""
MAX_STATE_CHARS = 40
"""A word or two for how things stand."""
MAX_QUIET_CHARS = 500

_WORDS = (r"(?:pending|running|in[ _-]?progress|queued|processing|waiting|started|building|starting|deploying|"
          r"provisioning|scheduled|initiali[sz]ing|not[ _-](?:yet|ready|finished|done|complete))")
_QUIET = re.compile(rf"\b{_WORDS}\b|\b(?:done|ready|finished|completed?)\"?:\s?false", re.IGNORECASE)
_IS = re.compile(
    rf'^\W*{_WORDS}\b|:"{_WORDS}\b|\b(?:done|ready|finished|completed?)"?:\s?false'
    r"|\b(?:is|are|still|currently|now|state|status|phase|stage)\b[\s:='\"-]{0,4}(?:still |currently |now )?"
    rf"{_WORDS}\b",
    re.IGNORECASE,
)
_SHORT_WORDS = 5
_PASSING = re.compile(
    r"time[ds]?[ -]?out|\b5\d\d\b|\b429\b|unavailable|rate[ _-]?limit|too many|throttl|overload|busy|locked|reset|"
    r"temporar|try again|retry|later|in use|conflict|unreachable|gateway|connection|not (?:yet|ready)|internal|network|"
    r"\bdns\b|\beof\b|broken pipe|abort|interrupt|quota|exhausted|capacity|maintenance|\bdown\b|offline|warming",
    re.IGNORECASE,
)
_LASTING = re.compile(
    r"declined|denied|forbidden|not allowed|permission|unauthori[sz]ed|invalid|syntax|unsupported|out of stock|"
    r"no such (?:column|table|option|command)|command not found|\b40[0135]\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_READING = re.compile(r'(?:\{"\w+":)?[-+]?\d+(?:[.,]\d+)?(?:\s?[^\s\d}]{0,4}|\})')
_WATCHES = re.compile(
    r"(?:^|[^a-z])(?:health|tail|gauges?|monitor|watch|metrics?|sensors?|probe|ping|inbox|mailbox|queue|depth|temperature)"
    r"(?:$|[^a-z])",
    re.IGNORECASE,
)

_CHECKS = re.compile(
    r"(?:^|[^a-z])(?:tests?|suites?|smoke|checks?|lint|verify|validate|build|compile|review|scan|ci|pytest)(?:$|[^a-z])",
    re.IGNORECASE,
)
_CHECKING = re.compile(
    r'"(?:command|cmd|target|task|script|goal|job)":"(?:(?:make|npm(?: run)?|yarn|cargo|go|poetry run) )?'
    r"(?:pytest|test|check|lint|build)\b"
)

NO, VARIES, RETURNS = 0, 1, 2
"""Of a look: nothing is known; what it shows has changed by itself; it did so after it had stayed, or it came back."""


def unfinished(answer: str) -> bool:
    """Whether a result says of something that it is pending, running or the like."""
    head = answer[:MAX_QUIET_CHARS]
    if _QUIET.search(head) is None:
        return False
    return _IS.search(head) is not None or (len(head) < 80 and head.count(" ") < _SHORT_WORDS)


def passing(answer: str) -> bool:
    """Whether an error is of the kind that passes by itself."""
    return _PASSING.search(answer[:MAX_QUIET_CHARS]) is not None


def lasting(answer: str) -> bool:
    """Whether an error is of the kind that no pause repairs."""
    return _LASTING.search(answer[:MAX_QUIET_CHARS]) is not None and not passing(answer)


def watches(action: str, answer: str) -> bool:
    """Whether a call is by its name a look at what moves, or shows nothing but one figure."""
    return _is_watch(action) or (len(answer) < MAX_STATE_CHARS and _READING.fullmatch(answer) is not None)


@lru_cache(maxsize=1_024)
def _is_watch(action: str) -> bool:
    return _WATCHES.search(action) is not None


def checks(action: str, arguments: str) -> bool:
    """Whether a call is by its name, or by the command that it runs, a check of what others have made."""
    return _CHECKS.search(action) is not None or _CHECKING.search(arguments[:80]) is not None


class _Look:
    """What is known of one call."""

    __slots__ = ("at", "grade", "last", "result", "stayed", "values")

    def __init__(self, at: int, answer: str, result: int) -> None:
        self.at, self.last, self.result, self.stayed, self.grade = at, answer, result, False, NO
        self.values: set[int] = {result}


class Looks:
    """The calls of one lineage, each with what it showed."""

    __slots__ = ("_acts", "_looks")

    def __init__(self) -> None:
        self._looks: OrderedDict[int, _Look] = OrderedDict()
        self._acts: dict[str, tuple[int, int, int]] = {}
        """Per agent: how many acts, the last one that may have changed something, and the call of the last one."""

    def take(self, agent: str, call: int, answer: str, result: int) -> int:
        """How much what a call shows is known to change by itself, this time included."""
        count, acted, last = self._acts.pop(agent, (0, 0, 0))
        count += 1
        found = self._looks.get(call)
        if found is None:
            found = self._looks[call] = _Look(count, answer[: MAX_READING_CHARS + 1], result)
            if len(self._looks) > MAX_LOOKS:
                self._looks.popitem(last=False)
        else:
            alone = last == call or acted <= found.at
            if result == found.result:
                found.stayed = True
            else:
                found.grade = _grade(found, answer, result, alone)
                found.last, found.result, found.stayed = answer[: MAX_READING_CHARS + 1], result, False
                if len(found.values) < MAX_VALUES:
                    found.values.add(result)
            found.at = count
            self._looks.move_to_end(call)
        self._acts[agent] = (count, acted if len(found.values) > 1 else count, call)
        if len(self._acts) > MAX_VALUES:
            self._acts.pop(next(iter(self._acts)))
        return found.grade


def _grade(found: _Look, answer: str, result: int, alone: bool) -> int:
    """What a change tells, after what was known."""
    if not alone:
        return NO
    if len(answer) > MAX_READING_CHARS:
        # A page: only that it stayed, and then went on to what nobody had seen, tells that something adds to it.
        return RETURNS if found.stayed and result not in found.values else found.grade if found.grade == RETURNS else NO
    same_form = _form(answer) == _form(found.last)
    if same_form and (found.stayed or result in found.values):
        return RETURNS
    if found.stayed and len(answer) <= MAX_STATE_CHARS:
        return RETURNS
    if same_form:
        return max(found.grade, VARIES)
    # It says something else now: what was a count is at its end.
    return NO if found.grade == VARIES else found.grade


def _form(text: str) -> str:
    return _NUMBER.sub("#", text)
