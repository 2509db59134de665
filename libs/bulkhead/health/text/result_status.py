"""What is looked at: whether a result says that something is not over yet, and whether it changes by itself.

In: results as canonical texts, one agent's calls in order. Out: what makes looking again honest. A word like `pending`
says so only where it is said *of* something: as a value, or as what something is; in the middle of a page it is a word.
A thing changes by itself when two looks at it differ and its agent did nothing in between but look.
"""

import re
from collections import OrderedDict
from functools import lru_cache

from bulkhead.health.events import Json
from bulkhead.health.text.ignore_case import AnyCase

MAX_LOOKS = 256
"""Calls of one lineage whose results are remembered."""
MAX_VALUES = 64
MAX_READING_CHARS = 200
"""A longer result is a page: that another one follows it is no sign of a gauge."""
MAX_STATE_CHARS = 40
"""A word or two for how things stand."""
MAX_QUIET_CHARS = 500

_WORDS = (
    r"(?:pending|running|in[ _-]?progress|queued|processing|waiting|started|building|starting|deploying|"
    r"provisioning|scheduled|initiali[sz]ing|not[ _-](?:yet|ready|finished|done|complete))"
)
_STATES = (
    rf"(?:{_WORDS}|in[ _-](?:review|transit|flight|queue)|await\w*|on[ _-]hold|"
    r"under[ _-](?:review|way|construction|investigation|consideration)|"
    r"(?:sync|index|render|upload|download|train|validat|roll|convert|creat|updat|prepar|load|import|export|copy|"
    r"transcod|migrat|drain|settl|shipp|verify|review|clear|boot|restart|warm|scann|comput|analy[sz]|generat)ing|"
    r"läuft|wartend|ausstehend|pendiente|en (?:curso|attente|cours))"
)
"""Said of something as its state, these are words for what is not over, too."""
_FALSE = (
    r"\b(?:done|ready|finished|completed?|acquired|granted|approved|signed|settled|synced|delivered|available|"
    r"confirmed|answered|online|converged)\"?:\s?false"
)
_LATER = (
    r"please (?:wait|stand by)|one moment|containercreating|podinitializing|terminating|notready\b|"
    r"\b(?:no|none|nothing|not)\b.{0,40}\b(?:at the moment|right now|so far|as yet|new output)\b|"
    r"(?:try|check|look) (?:again|back) later|may wait\b|\bprogressing\b|"
    r"\b(?:pass|passed|ok|success)\b[^.]{0,40}\bpending\b|\bpending\b[^.]{0,40}\b(?:pass|passed|ok|success)\b"
)
_QUIET = AnyCase(rf"\b{_STATES}\b|{_FALSE}|{_LATER}")
_SHORTLY = AnyCase(rf"\b{_WORDS}\b|{_FALSE}")
_IS = AnyCase(
    rf'^\W*{_WORDS}\b|^\W*{_STATES}\W*$|:"{_STATES}\b|{_FALSE}'
    r"|\b(?:is|are|still|currently|now|state|status|phase|stage)\b[\s:='\"-]{0,4}(?:still |currently |now )?"
    rf"{_STATES}\b|\bstarting up\b|{_LATER}"
)
_SHORT_WORDS = 5
_BY_COMMAND = 2
_NONE = r"(?!\"?\s?[:=]\s?(?:{0}null|false|\"\"|\[\]|none))"
_FAILS = AnyCase(
    r":\s?false\b|\bfail(?:ed|s|ure)?\b"
    + _NONE.format(r"\d|")
    + r"|\b(?:panic|crash\w*|denied|declined|insufficient|expired|forbidden|unauthori[sz]ed|invalid|error|exception|"
    r"traceback|unavailable|refused|aborted|unable|cannot|not (?:valid|found|allowed|possible|responding)|unhealthy|"
    r"unreachable|broken|fault|"
    r"core dumped|killed|timed out|mismatch|missing|wrong|rejected|"
    r"fehlgeschlagen|abgelehnt|verweigert|ungültig|rechazad[oa]|denegad[oa])\b" + _NONE.format(r"0\b|")
)
_PASSING = AnyCase(
    r"time[ds]?[ -]?out|\b5\d\d\b|\b429\b|unavailable|rate[ _-]?limit|too many|throttl|overload|busy|locked|reset|"
    r"temporar|try again|retry|later|in use|conflict|unreachable|gateway|connection|not (?:yet|ready)|internal|network|"
    r"\bdns\b|\beof\b|broken pipe|abort|interrupt|quota|exhausted|capacity|maintenance|\bdown\b|offline|warming"
)
_LASTING = AnyCase(
    r"declined|denied|forbidden|not allowed|permission|unauthori[sz]ed|invalid|syntax|unsupported|out of stock|"
    r"no such (?:column|table|option|command)|command not found|\b40[0135]\b"
)
_NO_SUCH = AnyCase(r"(?:unknown|no such) (?:column|table)|(?:column|table|relation) \S{1,80} does(?:n't| not) exist")
"""What has no such name has none in a while either, whatever the name is (`network_1`, `busy`)."""
_ENDED = r"(?:fail|error|reject|declin|cancel|denied|abort|crash|exited|expired|terminated|killed|dead\b|revoked)"
_OVER = AnyCase(
    rf'"(?:state|status|phase|outcome|result|conclusion|decision|verdict)":"{_ENDED}'
    r"|\b(?:is|was|been|already|has|job|process|task|run|build|state|status)[\s:='-]{1,3}(?:been |already )?"
    r"(?:cancel+ed|failed|rejected|declined|aborted|crashed|exited|terminated|killed|dead|revoked)\b"
)
_DIGIT = re.compile(r"\d")
_ABSENT = AnyCase(r"not[ _]found|no (?:such|match|entry|record)|does ?n[o']t exist|unknown|nxdomain|\b404\b")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_READING = re.compile(r'(?:\{"\w+":)?[-+]?\d+(?:[.,]\d+)?(?:\s?[^\s\d}]{0,4}|\})')
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def _named(words: str) -> "re.Pattern[str]":
    """Finds one of these words in an action's name."""
    return re.compile(rf"(?:^|[^a-z])(?:{words})(?:$|[^a-z])")


_WATCHES = _named(
    "health|healthz|tail|gauges?|monitor|watch|metrics?|sensors?|probe|ping|inbox|mailbox|queue|depth|temperature|poll|"
    "stream|subscribe|consume|notifications?|feed|heartbeat|alerts?|uptime"
)
_CHECKS = _named("tests?|suites?|smoke|checks?|lint|verify|validate|build|compile|review|scan|ci|pytest")
_MUTATES = _named(
    "set|put|write|update|create|delete|remove|add|insert|edit|replace|patch|assign|forward|send|post|close|move|rename|"
    "start|stop|restart|submit|save|upload|append|grant|revoke|enable|disable|toggle|archive|book|order|pay|charge|reopen"
)
_REMAKES = _named(
    "sync|rsync|deploy|publish|render|export|rebuild|reindex|refresh|reload|regenerate|bundle|package|merge|pull|preview"
)
_TAKES_IN = _named("pull|rebase|fetch|sync")
_LIVES = re.compile(
    r"heart_?beat|keep_?alive|still_?alive|(?:renew|extend|prolong)_?(?:the_?)?(?:lease|lock|visibility|claim)"
    r"|(?:lease|lock|claim)[_.](?:renew|extend)"
)
_MOVES = _named(
    "scroll|press|keypress|send_keys|tap|swipe|move|go|walk|step|advance|tick|rotate|roll|flip|"
    "toss|draw|deal|play|vote|bet|guess|spin|throw|shoot|jump|next|prev|previous|skip|undo|redo|increment|decrement|"
    "up|down|left|right|north|south|east|west|page_?down|page_?up|zoom|sample|random|dice|coin|nudge"
)
_MOVES_ON = AnyCase(
    r":\"[^\"]{0,12}\b(?:next|more|down|up|left|right|forward|continue|page ?down|arrow\w*|tab|weiter|siguiente)\b"
    r"[^\"]{0,12}\""
)
_BY_AS_MUCH = re.compile(
    r'"(?:met(?:er|re)s?|cm|steps?|angle|degrees?|direction|distance|delta|d[xy]|by|amount|increment|times|ticks)":'
)
_DID = (
    r"(?:affected|deleted|processed|updated|moved|inserted|migrated|copied|imported|archived|purged|removed|"
    r"handled|synced|exported|DELETE|UPDATE|INSERT|COPY)"
)
_DID_MANY = re.compile(rf"\b{_DID}\W{{1,3}}(?:0 )?(?:[5-9]|\d\d)|\b(?:[5-9]|\d{{2,}}) (?:\w+ )?{_DID}\b")
_PRESSES = _named("click|press|tap|button|key")
_AFRESH = AnyCase(r"refresh|reload|update|check|f5|again")
_READS = _named(
    "get|list|read|search|find|query|fetch|look|lookup|show|view|cat|ls|grep|status|check|describe|observe|browse|"
    "inspect|poll|watch|monitor|count|select|diff|preview|peek|scan|head|tail|stat|stats|retrieve|load|scrape|extract|"
    "measure|see|health|whoami|discover|ask|recall|open"
)
_WRITES_AFTER_ALL = _named("open_(?:pr|pull|issue|ticket|account|case|incident|position|order)|comment|reply")
_RUNS = _named("bash|shell|sh|terminal|exec|execute|command|cmd|run|run_command")
_READING_COMMAND = re.compile(
    r'"(?:command|cmd|script)":"(?:cd \S+ && )?(?:cat|ls|grep|rg|head|tail|find|ps|df|du|wc|pwd|which|stat|echo|'
    r"git (?:status|log|diff|show)|kubectl (?:get|describe|logs)|docker (?:ps|logs))\b"
)
_DELEGATES = _named("delegate|delegation|spawn|sub_?agents?|agent|task|assign|hand_?off|dispatch|orchestrator|escalate")
_NOTES = _named("todos?|plan|notes?|memo|scratchpad|thoughts?|checklist|journal|diary")
_CHECKING = re.compile(
    r'"(?:command|cmd|target|task|script|goal|job)":"(?:(?:make|npm(?: run)?|yarn|cargo|go|poetry run) )?'
    r"(?:pytest|test|check|lint|build)\b"
)

NO, VARIES, WATCHES, RETURNS = 0, 1, 2, 3
"""Of a look: nothing is known; what it shows has changed by itself; it is by its name a look at what moves; what it
shows changed after it had stayed, or it came back."""


def unfinished(answer: str) -> bool:
    """Whether a result says of something that it is pending, running or the like."""
    head = answer[:MAX_QUIET_CHARS]
    if not _QUIET.found_in(head):
        return False
    if _IS.found_in(head):
        return True
    return len(head) < 80 and head.count(" ") < _SHORT_WORDS and _SHORTLY.found_in(head)


def passing(answer: str) -> bool:
    """Whether an error is of the kind that passes by itself."""
    head = answer[:MAX_QUIET_CHARS]
    return _PASSING.found_in(head) and not _NO_SUCH.found_in(head)


def absent(answer: str) -> bool:
    """Whether an error says that there is no such thing: an answer, where one asks whether there is."""
    return _ABSENT.found_in(answer[:MAX_QUIET_CHARS])


def over(answer: str, asked: Json) -> bool:
    """Whether a result says of what was asked for by its name, or number, that it has come to its end: another run of
    the same build may come, but nothing comes of this one any more."""
    if not _OVER.found_in(answer[:MAX_QUIET_CHARS]):
        return False
    return _DIGIT.search(str(asked)[:MAX_QUIET_CHARS]) is not None


def lasting(answer: str) -> bool:
    """Whether an error is of the kind that no pause repairs."""
    head = answer[:MAX_QUIET_CHARS]
    return _NO_SUCH.found_in(head) or (_LASTING.found_in(head) and not passing(answer))


@lru_cache(maxsize=256)
def tells_of_failure(answer: str) -> bool:
    """Whether a result says that it came to nothing."""
    return _FAILS.found_in(answer)


@lru_cache(maxsize=1_024)
def _name(action: str) -> str:
    return _CAMEL.sub("_", action).lower()


@lru_cache(maxsize=1_024)
def mutates(action: str) -> bool:
    """Whether a call by its name changes what it is about."""
    return _MUTATES.search(_name(action)) is not None


def remakes(action: str, arguments: str) -> bool:
    """Whether a call by its name, or its command, makes the same thing anew from what others have changed."""
    if _is_read(action) == _BY_COMMAND:
        return _REMAKES.search(arguments[:60]) is not None
    return _is_remake(action)


@lru_cache(maxsize=1_024)
def _is_remake(action: str) -> bool:
    return _REMAKES.search(_name(action)) is not None


def takes_in(action: str, arguments: str) -> bool:
    """Whether a call by its name, or its command, brings what others have made."""
    return _TAKES_IN.search(arguments[:60] if _is_read(action) == _BY_COMMAND else _name(action)) is not None


@lru_cache(maxsize=1_024)
def lives(action: str) -> bool:
    """Whether a call by its name says that its agent lives, and nothing else."""
    return _LIVES.search(_name(action)) is not None


@lru_cache(maxsize=1_024)
def notes(action: str) -> bool:
    """Whether a call by its name writes down what its agent thinks or plans."""
    return _NOTES.search(_name(action)) is not None


@lru_cache(maxsize=1_024)
def _is_move(action: str) -> bool:
    return _MOVES.search(_name(action)) is not None


@lru_cache(maxsize=1_024)
def _is_press(action: str) -> bool:
    return _PRESSES.search(_name(action)) is not None


@lru_cache(maxsize=1_024)
def delegates(action: str) -> bool:
    """Whether a call by its name gives the task to another agent."""
    return _DELEGATES.search(_name(action)) is not None


def moves(action: str, arguments: str) -> bool:
    """Whether a call by its name goes on from where it stands: done again it is the next one (a step, a key)."""
    if _is_move(action) or (_is_press(action) and _MOVES_ON.found_in(arguments[:80])):
        return True
    return len(arguments) < MAX_STATE_CHARS and _BY_AS_MUCH.search(arguments) is not None


def presses(action: str, arguments: str) -> bool:
    """Whether a call by its name presses something that does not just show anew what there is."""
    return _is_press(action) and not _AFRESH.found_in(arguments[:80])


def did_many(answer: str) -> bool:
    """Whether a short result says that a batch of things was done: what is left is another one."""
    return _DID_MANY.search(answer) is not None


@lru_cache(maxsize=1_024)
def _is_read(action: str) -> int:
    name = _name(action)
    if _RUNS.search(name) is not None:
        return _BY_COMMAND
    return int(_READS.search(name) is not None and _WRITES_AFTER_ALL.search(name) is None)


def reads(action: str, arguments: str) -> bool:
    """Whether a call by its name, or by the command that it runs, only looks."""
    found = _is_read(action)
    return _READING_COMMAND.search(arguments[:120]) is not None if found == _BY_COMMAND else bool(found)


def watches(action: str, answer: str) -> bool:
    """Whether a call is by its name a look at what moves, or shows nothing but one figure."""
    return _is_watch(action) or (len(answer) < MAX_STATE_CHARS and _READING.fullmatch(answer) is not None)


@lru_cache(maxsize=1_024)
def _is_watch(action: str) -> bool:
    return _WATCHES.search(_name(action)) is not None


@lru_cache(maxsize=1_024)
def _is_check(action: str) -> bool:
    return _CHECKS.search(_name(action)) is not None


def checks(action: str, arguments: str) -> bool:
    """Whether a call is by its name, or by the command that it runs, a check of what others have made."""
    return _is_check(action) or _CHECKING.search(arguments[:80]) is not None


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

    def take(self, agent: str, call: int, answer: str, result: int) -> tuple[int, int]:
        """How much what a call shows is known to change by itself, and how many different things it has shown."""
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
        return found.grade, len(found.values)


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
