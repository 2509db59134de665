"""Word lists: the state that a result tells of, and the kind of a call.

In: the canonical text of a result; the name of an action and its arguments as a canonical text. Out: a `ResultState`,
yes or no. A word like `pending` counts only where it is said *of* something: as a value, or as what something is.
"""

import re
from functools import lru_cache
from typing import Literal

ResultState = Literal["", "pending", "over", "passing", "lasting"]
"""Of a result: "pending", what was asked for goes on; "over", it has come to its end. Of an error: "passing", a retry
may succeed; "lasting", no pause repairs it."""

MAX_STATE_CHARS = 500
_SHORT_CHARS, _SHORT_WORDS = 80, 5
_FEW_CHARS = 40

_WORD = (
    r"(?:pending|running|in[ _-]?progress|queued|processing|waiting|started|building|starting|deploying|"
    r"provisioning|scheduled|initiali[sz]ing|not[ _-](?:yet|ready|finished|done|complete))"
)
_STATE = (
    rf"(?:{_WORD}|in[ _-](?:review|transit|flight|queue)|await\w*|on[ _-]hold|"
    r"under[ _-](?:review|way|construction|investigation|consideration)|"
    r"(?:sync|index|render|upload|download|train|validat|roll|convert|creat|updat|prepar|load|import|export|copy|"
    r"transcod|migrat|drain|settl|shipp|verify|review|clear|boot|restart|warm|scann|comput|analy[sz]|generat)ing|"
    r"läuft|wartend|ausstehend|pendiente|en (?:curso|attente|cours))"
)
_FALSE = (
    r"\b(?:done|ready|finished|completed?|acquired|granted|approved|signed|settled|synced|delivered|available|"
    r"confirmed|answered|online|converged)\"?:\s?false"
)
_LATER = (
    r"please (?:wait|stand by)|one moment|containercreating|podinitializing|terminating|notready\b|"
    r"\b(?:no|none|nothing|not)\b.{0,40}\b(?:at the moment|right now|so far|as yet|new output)\b|"
    r"(?:try|check|look) (?:again|back) later|may wait\b|\bprogressing\b|\b\d+ ?(?:s|min|h)\w* (?:left|remaining)\b|"
    r"\b(?:pass|passed|ok|success)\b[^.]{0,40}\bpending\b|\bpending\b[^.]{0,40}\b(?:pass|passed|ok|success)\b"
)
_PENDING = re.compile(
    rf'^\W*{_WORD}\b|^\W*{_STATE}\W*$|:"{_STATE}\b|{_FALSE}'
    r"|\b(?:is|are|still|currently|now|state|status|phase|stage)\b[\s:='\"-]{0,4}(?:still |currently |now )?"
    rf"{_STATE}\b|\bstarting up\b|{_LATER}"
)
_PENDING_SHORT = re.compile(rf"\b{_WORD}\b|{_FALSE}")
_OVER = re.compile(
    r'"(?:state|status|phase|outcome|result|conclusion|decision|verdict)":"'
    r"(?:fail|error|reject|declin|cancel|denied|abort|crash|exited|expired|terminated|killed|dead\b|revoked)"
    r"|\b(?:is|was|been|already|has|job|process|task|run|build|state|status)[\s:='-]{1,3}(?:been |already )?"
    r"(?:cancel+ed|failed|rejected|declined|aborted|crashed|exited|terminated|killed|dead|revoked)\b"
)
_PASSING = re.compile(
    r"time[ds]?[ -]?out|\b5\d\d\b|\b429\b|unavailable|rate[ _-]?limit|too many|throttl|overload|busy|locked|reset|"
    r"temporar|try again|retry|later|in use|conflict|unreachable|gateway|connection|not (?:yet|ready)|internal|network|"
    r"\bdns\b|broken pipe|abort|interrupt|quota|exhausted|capacity|maintenance|\bdown\b|offline|warming"
)
_LASTING = re.compile(
    r"declined|denied|forbidden|not allowed|permission|unauthori[sz]ed|invalid|syntax|unsupported|out of stock|"
    r"command not found|\b40[0135]\b"
)
_NO_SUCH = re.compile(
    r"(?:unknown|no such) (?:column|table|option|command)|(?:column|table|relation) \S{1,80} does(?:n't| not) exist"
)
_ABSENT = re.compile(r"not[ _]found|no (?:such|match|entry|record)|does ?n[o']t exist|unknown|nxdomain|\b404\b")
_DIGIT = re.compile(r"\d")
_VAIN = re.compile(
    r"\b(?:no|not|nor|none|nothing|never|cannot|can't|couldn't|could not|unable|fail(?:ed|s|ure)?|denied|refused|error|"
    r"sorry|unknown|impossible|without success|unsuccessful|blocked|missing|lack(?:s|ing)?|timed? ?out|don't|didn't|"
    r"doesn't|won't|isn't)\b(?! (?:objections?|concerns?|comments?|changes?|remarks?|issues?|problems?))"
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def _name_pattern(words: str) -> "re.Pattern[str]":
    """A pattern for one of these words in an action's name."""
    return re.compile(rf"(?:^|[^a-z])(?:{words})(?:$|[^a-z])")


_WATCHES = _name_pattern(
    "health|healthz|tail|gauges?|monitor|watch|metrics?|sensors?|probe|ping|inbox|mailbox|queue|depth|temperature|poll|"
    "stream|subscribe|consume|notifications?|feed|heartbeat|alerts?|uptime"
)
_CHECKS = _name_pattern("tests?|suites?|smoke|checks?|lint|verify|validate|build|compile|review|scan|ci|pytest")
_MUTATES = _name_pattern(
    "set|put|write|update|create|delete|remove|add|insert|edit|replace|patch|assign|forward|send|post|close|move|rename|"
    "start|stop|restart|submit|save|upload|append|grant|revoke|enable|disable|toggle|archive|book|order|pay|charge|reopen"
)
_REMAKES = _name_pattern(
    "sync|rsync|deploy|publish|render|export|rebuild|reindex|refresh|reload|regenerate|bundle|package|merge|pull|preview"
)
_HANDS_OVER = _name_pattern(
    "(?:transfer|hand_?off|delegate(?:_\\w{1,20}?)?|route|escalate|pass)_?(?:back_?)?to(?:_\\w+)?"
)
_LIVES = re.compile(
    r"heart_?beat|keep_?alive|still_?alive|(?:renew|extend|prolong)_?(?:the_?)?(?:lease|lock|visibility|claim)"
    r"|(?:lease|lock|claim)[_.](?:renew|extend)"
)
_MOVES = _name_pattern(
    "scroll|press|keypress|send_keys|tap|swipe|move|go|walk|step|advance|tick|rotate|roll|flip|"
    "toss|draw|deal|play|vote|bet|guess|spin|throw|shoot|jump|next|prev|previous|skip|undo|redo|increment|decrement|"
    "up|down|left|right|north|south|east|west|page_?down|page_?up|zoom|sample|random|dice|coin|nudge"
)
_PRESSES = _name_pattern("click|press|tap|button|key")
_MOVES_ON = re.compile(
    r":\"[^\"]{0,12}\b(?:next|more|down|up|left|right|forward|continue|page ?down|arrow\w*|tab|weiter|siguiente)\b"
    r"[^\"]{0,12}\"|\"(?:met(?:er|re)s?|cm|steps?|angle|degrees?|direction|distance|delta|d[xy]|by|amount|increment|"
    r"times|ticks)\":"
)
_DID = (
    r"(?:affected|deleted|processed|updated|moved|inserted|migrated|copied|imported|archived|purged|removed|"
    r"handled|synced|exported|DELETE|UPDATE|INSERT|COPY)"
)
_DID_MANY = re.compile(rf"\b{_DID}\W{{1,3}}(?:0 )?(?:[5-9]|\d\d)|\b(?:[5-9]|\d{{2,}}) (?:\w+ )?{_DID}\b")
_READS = _name_pattern(
    "get|list|read|search|find|query|fetch|look|lookup|show|view|cat|ls|grep|status|check|describe|observe|browse|"
    "inspect|poll|watch|monitor|count|select|diff|preview|peek|scan|head|tail|stat|stats|retrieve|load|scrape|extract|"
    "measure|see|health|whoami|discover|ask|recall|open"
)
_WRITES_AFTER_ALL = _name_pattern("open_(?:pr|pull|issue|ticket|account|case|incident|position|order)|comment|reply")
_RUNS = _name_pattern("bash|shell|sh|terminal|exec|execute|command|cmd|run|run_command")
_READING_COMMAND = re.compile(
    r'"(?:command|cmd|script)":"(?:cd \S+ && )?(?:cat|ls|grep|rg|head|tail|find|ps|df|du|wc|pwd|which|stat|echo|'
    r"git (?:status|log|diff|show)|kubectl (?:get|describe|logs)|docker (?:ps|logs))\b"
)
_CHECKING_COMMAND = re.compile(
    r'"(?:command|cmd|target|task|script|goal|job)":"(?:(?:make|npm(?: run)?|yarn|cargo|go|poetry run) )?'
    r"(?:pytest|test|check|lint|build)\b"
)
_WAITS = _name_pattern(r"(?:sleep|wait|pause|delay|back_?off)\d*")
_SLEEPS = re.compile(r'^(?:\{"[^"]{1,20}":)?"?\s*sleep\s+[\d.]+[smh]?\s*("?\}?$|&&|;|\\n)')
_WAIT_MS = re.compile(r'"\w*(?:wait|block|poll|linger|timeout)\w*?(ms)?":([1-9]\d{0,6})')
_THINKS = re.compile(r"think|reflect|reason(?:ing)?$|scratch_?pad")
_NOTES = _name_pattern("todos?|plan|notes?|memo|thoughts?|checklist|journal|diary")


def state_of(answer: str, error: bool, asked: str) -> ResultState:
    """The state in a result or an error. asked: arguments of the call; a name or number in them makes the end of the
    thing final, while another run of the same build may follow."""
    head = answer[:MAX_STATE_CHARS].lower()
    if error:
        if _NO_SUCH.search(head):
            return "lasting"
        return "passing" if _PASSING.search(head) else "lasting" if _LASTING.search(head) else ""
    if _PENDING.search(head):
        return "pending"
    if len(head) < _SHORT_CHARS and head.count(" ") < _SHORT_WORDS and _PENDING_SHORT.search(head):
        return "pending"
    return "over" if _OVER.search(head) and _DIGIT.search(asked[:MAX_STATE_CHARS]) else ""


def reports_no_result(text: str) -> bool:
    """Check whether a text says that nothing came of it."""
    return _VAIN.search(text[:MAX_STATE_CHARS].lower()) is not None


def reports_absence(answer: str) -> bool:
    """Check whether an error says that there is no such thing: an answer, where one asks whether there is."""
    return _ABSENT.search(answer[:MAX_STATE_CHARS].lower()) is not None


def did_many(answer: str) -> bool:
    """Check whether a short result says that a batch of things was done: what is left is another batch."""
    return _DID_MANY.search(answer) is not None


@lru_cache(maxsize=4_096)
def _action_matches(pattern: "re.Pattern[str]", action: str) -> bool:
    return pattern.search(_CAMEL.sub("_", action).lower()) is not None


def only_reads(action: str, arguments: str) -> bool:
    """Check whether a call by its name, or by the command that it runs, only looks."""
    if _action_matches(_RUNS, action):
        return _READING_COMMAND.search(arguments[:120]) is not None
    return _action_matches(_READS, action) and not _action_matches(_WRITES_AFTER_ALL, action)


def is_watching(action: str) -> bool:
    """Check whether a call is by its name a look at what moves."""
    return _action_matches(_WATCHES, action)


def is_mutating(action: str) -> bool:
    """Check whether a call by its name changes what it is about."""
    return _action_matches(_MUTATES, action)


def follows_others_work(action: str, arguments: str) -> bool:
    """Check whether a call is about whatever others have made by now: a check, a build, a hand-over."""
    if _action_matches(_CHECKS, action) or hands_over(action) or _CHECKING_COMMAND.search(arguments[:80]):
        return True
    return (
        _REMAKES.search(arguments[:60]) is not None
        if _action_matches(_RUNS, action)
        else _action_matches(_REMAKES, action)
    )


def moves_on(action: str, arguments: str) -> bool:
    """Check whether a call by its name goes on from where it stands: done again it is the next one (a step, a
    key).
    """
    if _action_matches(_MOVES, action):
        return True
    head = arguments[:80].lower()
    return _MOVES_ON.search(head) is not None and (_action_matches(_PRESSES, action) or len(arguments) < _FEW_CHARS)


def is_sign_of_life(action: str) -> bool:
    """Check whether a call by its name says that its agent lives, and nothing else."""
    return _action_matches(_LIVES, action)


def asked_to_wait_ms(arguments: str) -> int:
    """Milliseconds that a call was asked to wait (a long poll), 0 when it was not."""
    match = _WAIT_MS.search(arguments.lower())
    if match is None:
        return 0
    number = int(match[2])
    return number if match[1] or number >= 1_000 else number * 1_000


def keeps_thought(action: str) -> bool:
    """Check whether a call by its name only keeps a thought or a note."""
    return _action_matches(_THINKS, action) or (_action_matches(_NOTES, action) and not _action_matches(_READS, action))


def hands_over(action: str) -> bool:
    """Check whether a call by its name hands the task to another agent."""
    return _action_matches(_HANDS_OVER, action)


def waiting_kind(action: str, arguments: str) -> Literal["", "first", "only"]:
    """Kind of waiting: a call does nothing but wait, or waits before it does something else."""
    if _action_matches(_WAITS, action):
        return "only"
    match = _SLEEPS.match(arguments)
    if match is None:
        return ""
    return "first" if match[1] in ("&&", ";", "\\n") else "only"
