"""What a call or its result says once everything is left out that changes by itself.

In: arguments or a result (JSON value, JSON text or plain text). Out: a canonical text: keys sorted, whitespace folded,
request ids, timestamps and counters gone, and what is said *about* the call (`thought`, `reason`). Two calls with the
same canonical text are the same call.

An id may be noise (made up for this call) or an address (what the call is about). It is noise under a key that says so,
or inside a longer text; it is an address when an earlier result of the lineage gave it, or when the call's own result
names it. What is left is doubtful: `loose` takes it for noise, `strict` for an address.
"""

import hashlib
import json
import re
from collections.abc import Callable, Container
from functools import lru_cache

from bulkhead.flow import bounded
from bulkhead.health.events import Json
from bulkhead.health.text.ignore_case import AnyCase
from bulkhead_contracts import bounds

MAX_TEXT_CHARS = 8_192
"""So much of a text is normalised; the rest counts as it is."""
MAX_VALUE_CHARS = 1_024
"""A longer text is none that the next call hands back."""
MAX_DEPTH = 32
MAX_READING_CHARS = 100

_CALL_NOISE = frozenset(
    {
        "requestid",
        "reqid",
        "rid",
        "traceid",
        "spanid",
        "callid",
        "toolcallid",
        "messageid",
        "msgid",
        "eventid",
        "sessionid",
        "runid",
        "nonce",
        "uuid",
        "guid",
        "random",
        "salt",
        "timestamp",
        "ts",
        "now",
        "sentat",
        "createdat",
        "requestedat",
        "attempt",
        "attempts",
        "attemptnumber",
        "try",
        "tries",
        "retry",
        "retries",
        "iteration",
        "iter",
        "counter",
        "seq",
        "sequence",
        "sequencenumber",
        "turn",
        "thought",
        "thoughts",
        "reasoning",
        "rationale",
        "explanation",
        "justification",
        "comment",
        "traceparent",
        "tracestate",
        "etag",
    }
)
_RESULT_NOISE = _CALL_NOISE | frozenset(
    {
        "duration",
        "durationms",
        "durations",
        "elapsed",
        "elapsedms",
        "elapseds",
        "elapsedseconds",
        "took",
        "tookms",
        "latency",
        "latencyms",
        "updatedat",
        "servertime",
        "generatedat",
        "pid",
        "uptime",
        "responseid",
        "executiontime",
    }
)
_HIT_NOISE = _RESULT_NOISE | frozenset({"score", "distance", "similarity", "relevance", "rank"})
"""Of what stands in a list: how near a hit is to a question is no part of it."""
_NOISE_STEMS = re.compile(
    "requestid|traceid|spanid|correlation|nonce|idempot|timestamp|cachebust|attemptn|retryc|csrf|xsrf|viewstate|"
    "handoverid|handoffid"
)
_TOKENS = frozenset({"key", "token", "ref", "reference"})
"""Keys under which an id that no result gave is as likely to be made up for the call."""
_LABELS = frozenset({"context", "reason", "note", "message", "comment", "summary"})
"""Of a hand-over: what is said about it."""
_SEPARATORS = str.maketrans("", "", "_- .")
_dumps = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str).encode
_DIGIT = re.compile(r"\d")
_TIMES = re.compile(
    r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"
    r"|\b\d\d:\d\d:\d\d(?:[.,]\d+)?\b|\b1[0-9]{9}(?:\.\d+)?\b|\b1[0-9]{12}\b|\b1[0-9]{15}\b|\b1[0-9]{18}\b"
)
_EPOCH = re.compile("1[0-9]{9}")
"""It, or a colon, stands in whatever `_TIMES` finds."""
_IDS = re.compile(
    r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"
    r"|\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{8,64}\b"
    r"|\b(?=[0-9A-Z]*\d)[0-9A-HJKMNP-TV-Z]{26}\b"
    r"|\b(?=(?:[A-Za-z]*\d){4})(?=\d*[A-Za-z])[A-Za-z0-9]{20,64}\b"
    r"|\b(?:req|request|trace|span|call|msg|corr|run|sess|session|txn|nonce|id|ref|uid|tmp)[-_:#=]{1,2}"
    r"(?=[A-Za-z]*\d)(?![A-Za-z0-9]*[A-Za-z]{4})[A-Za-z0-9]{4,}\b"
    r"|0x[0-9a-fA-F]{6,16}\b"
)
_COUNTERS = re.compile(
    r"\b(attempt|try|retry|retries|iteration|take|round|pass)\s*(?:no\.?|number|#|:|=)?\s*#?\d+(?:\s*(?:/|of)\s*\d+)?\b",
    re.IGNORECASE,
)
_COUNTS = ("attempt", "try", "tries", "iteration", "take", "round", "pass")
"""One of these stands in whatever `_COUNTERS` finds."""
_SHORTEST, _UUID = 7, 36
_PROCESSES = re.compile(r"\b(pid|tid|thread)\s*[=:#]?\s*\d+\b", re.IGNORECASE)
_CONTENT = re.compile("sha|hash|digest|checksum|screenshot|image|photo|picture|blob|artifact|snapshot|capture|thumb")
"""Keys whose value names a content: another one is another result."""
_DIGESTS = frozenset({40, 64, 128})
"""Lengths of hexadecimal digests of contents (SHA-1, SHA-256, SHA-512)."""
_HANDS_OVER = re.compile(
    r"^(?:transfer|hand_?off|delegate(?:_\w{1,20}?)?|route|escalate|pass)_?(?:back_?)?to(?:_|$)", re.IGNORECASE
)
_THINKS = re.compile(r"think|reflect|reason(?:ing)?$|scratch_?pad", re.IGNORECASE)
_THOUGHTS = frozenset({"thought", "thoughts", "text", "content", "reflection", "reasoning"})
_PAGE_OF_LINK = re.compile(r"([?&](?:page|offset|start|skip|p|from|pageno|page_number)=)\d+", re.IGNORECASE)
_NUMBERED = re.compile(r"\b([A-Za-z]+(?:[-_][A-Za-z]+)*)[-_#]\d+\b")
PAGING = frozenset({"page", "pagenumber", "pageno", "pageindex", "offset", "start", "skip", "from", "startat"})
_SIZES = frozenset({"limit", "max", "top", "count", "size", "pagesize", "perpage", "maxresults", "topk", "k", "n"})
_FILTERS = frozenset(
    {
        "filter",
        "filters",
        "type",
        "kind",
        "state",
        "status",
        "category",
        "sort",
        "order",
        "orderby",
        "sortby",
        "archived",
        "active",
        "visibility",
        "include",
        "includeall",
        "includearchived",
        "includedeleted",
        "includehidden",
        "severity",
    }
)
_NAMES = frozenset(
    {
        "name",
        "agent",
        "agentname",
        "agentid",
        "assistant",
        "helper",
        "worker",
        "assignee",
        "recipient",
        "to",
        "target",
        "member",
        "subagent",
        "started",
        "spawned",
        "id",
    }
)
_VAIN = AnyCase(
    r"\b(?:no|not|nor|none|nothing|never|cannot|can't|couldn't|could not|unable|fail(?:ed|s|ure)?|denied|refused|error|"
    r"sorry|unknown|impossible|without success|unsuccessful|blocked|missing|lack(?:s|ing)?|timed? ?out|don't|didn't|"
    r"doesn't|won't|isn't)\b"
)
_CONTENT_WITH = AnyCase(r"\bno (?:objections?|concerns?|comments?|changes?|remarks?|issues?|problems?)\b")
_NONE_LEFT = re.compile(
    r"(?:no (?:more |further )?(?:results|items|rows|matches|entries|records)\b.{0,40}|none|empty)\.?", re.IGNORECASE
)
_DURATION = r"\b\d+(?:[.,]\d+)?\s?(?:ms|µs|us|s|secs?|seconds?|minutes?|mins?)\b"
_DURATIONS = re.compile(_DURATION)
_LEFT = AnyCase(
    _DURATION + r"\s*(?:left|remaining|to go|behind|until|ago|old|late)"
    r"|(?:left|remaining|lag|eta|until|age)\b[\s:=\"]{1,4}" + _DURATION
)
"""Durations that are what was asked for, not how long the answer took."""


def digest(text: str) -> int:
    """Eight bytes that stand for a text, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")


def call(arguments: Json, known: Container[str] = (), *, loose: bool = False) -> str:
    """Canonical text of a call's arguments. known: ids that are addresses."""

    def text_of(text: str) -> str:
        return _masked_call(text, known, loose)

    parsed = parsed_json(arguments)
    if isinstance(parsed, dict) and not any(one or one is False or one == 0 for one in parsed.values()):
        return "{}"  # An argument that is empty is none.
    return _canonical(parsed, _CALL_NOISE, text_of)


def result(value: Json, seen: Callable[[str], object] | None = None) -> str:
    """Canonical text of a result. `seen` is told every id in it, and what it is part of: from now on an address."""

    def text_of(text: str) -> str:
        return _masked_result(text, seen)

    parsed = parsed_json(value)
    if (
        isinstance(parsed, str)
        and len(parsed) < MAX_READING_CHARS
        and _DIGIT.search(parsed)
        and (_DURATIONS.fullmatch(parsed.strip()) or _LEFT.found_in(parsed))
    ):
        return " ".join(parsed.split())  # A duration is what was asked for.
    return _canonical(parsed, _RESULT_NOISE, text_of, _CONTENT)


@lru_cache(maxsize=64)  # The detectors of loops and of chatter ask for the same text.
def said(text: str) -> str:
    """Canonical text of what an agent says: ids, times and counters in it are noise."""
    return _masked_result(text, None)


@lru_cache(maxsize=1_024)
def hands_over(action: str) -> bool:
    """Whether a call by its name hands the task to another agent: what it carries besides is a label."""
    return _HANDS_OVER.search(action) is not None


def unlabelled(arguments: Json) -> Json:
    """The arguments of a hand-over without what is only said about it."""
    parsed = parsed_json(arguments)
    if not isinstance(parsed, dict):
        return parsed
    return {key: one for key, one in parsed.items() if _plain(str(key)) not in _LABELS}


def thought(action: str, arguments: Json) -> str:
    """What is thought in a call of a tool that only keeps thoughts; "" for any other call."""
    if not _thinks(action):
        return ""
    parsed = parsed_json(arguments)
    named = parsed.items() if isinstance(parsed, dict) else ()
    return next((one for key, one in named if isinstance(one, str) and str(key).lower() in _THOUGHTS), "")


@lru_cache(maxsize=1_024)
def _thinks(action: str) -> bool:
    return _THINKS.search(action) is not None


def kin(text: str) -> str:
    """A text, with the numbers of numbered names left out: `sub-7` and `sub-8` are of one kin."""
    return _NUMBERED.sub(r"\1-#", text)


def vain(text: str) -> bool:
    """Whether what is said says that nothing came of it."""
    return _VAIN.found_in(text[:400]) and not _CONTENT_WITH.found_in(text[:400])


def unnamed(arguments: Json) -> Json | None:
    """The arguments without those that name an agent: who is started for it changes nothing of what is wanted.

    None when they name nobody.
    """
    parsed = parsed_json(arguments)
    if not isinstance(parsed, dict):
        return None
    rest = {key: one for key, one in parsed.items() if _plain(str(key)) not in _NAMES}
    return rest if len(rest) < len(parsed) else None


def paging(arguments: Json) -> Json | None:
    """The arguments without the number of the page; None when they name no page."""
    parsed = parsed_json(arguments)
    if not isinstance(parsed, dict):
        return None
    rest = {key: value for key, value in parsed.items() if not (isinstance(value, int) and _plain(str(key)) in PAGING)}
    if len(rest) < len(parsed):
        return rest
    if not any(isinstance(one, str) and "=" in one for one in parsed.values()):
        return None
    rest = {key: _PAGE_OF_LINK.sub(r"\1#", one) if isinstance(one, str) else one for key, one in parsed.items()}
    return rest if rest != parsed else None


def nothing(value: Json, depth: int = 0) -> bool:
    """Whether a result says that there is nothing (more)."""
    value = parsed_json(value) if depth == 0 else value
    if value is None or value == "" or value == [] or value == {}:
        return True
    if isinstance(value, str):
        return len(value) < 80 and _NONE_LEFT.fullmatch(value.strip()) is not None
    if isinstance(value, dict) and depth < 2:
        return any(nothing(one, depth + 1) for one in value.values()) and all(
            isinstance(one, bool | int | float) or nothing(one, depth + 1) for one in value.values()
        )
    return False


def narrowing(arguments: Json) -> frozenset[str] | None:
    """What a call asks for, each of it a narrower thing; None where it may be another part of the same list."""
    parsed = parsed_json(arguments)
    if not isinstance(parsed, dict):
        return None if parsed else frozenset()
    found = set()
    for key, one in parsed.items():
        if _plain(str(key)) in _SIZES or one in ("", "*", "all", "any", None) or one == [] or one == {}:
            continue
        if _plain(str(key)) not in _FILTERS or isinstance(one, dict | list | float) or _DIGIT.search(str(one)):
            return None
        found.add(f"{key}={one}")
    return frozenset(found)


@lru_cache(maxsize=128)  # The last text is compared with each of a window.
def shingles(text: str, size: int = 4, most: int = 400) -> frozenset[str]:
    """Overlapping runs of letters and digits of a text, without case and punctuation."""
    plain = " ".join(re.findall(r"\w+", text[: 2 * most].casefold()))[:most]
    return frozenset([plain[at : at + size] for at in range(max(1, len(plain) - size + 1))])


@lru_cache(maxsize=128)
def phrases(text: str, most: int = 4_000) -> frozenset[str]:
    """Runs of three words: what prose says anew even where its words come back."""
    words = re.findall(r"\w+", text[:most].casefold())
    return frozenset([" ".join(words[at : at + 3]) for at in range(max(1, len(words) - 2))])


def similarity(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard: what two sets share, of all that they have."""
    both = len(one & other)
    return both / (len(one) + len(other) - both) if both else 0.0


def parsed_json(value: Json) -> Json:
    """What a JSON text says; anything else as it is."""
    if not isinstance(value, str):
        return value
    start = value[:64].lstrip()[:1]
    if start and start in "{[" and len(value) <= 8 * MAX_TEXT_CHARS:
        try:
            # Counting is quick; looking at every character is not, and is only needed for what nests.
            flat = value.count("{") + value.count("[") <= bounds.MAX_JSON_DEPTH
            return json.loads(value) if flat else bounded.loads(value)
        except ValueError:
            return value
    return value


def _canonical(
    value: Json, noise: frozenset[str], text_of: Callable[[str], str], content: "re.Pattern[str] | None" = None
) -> str:
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, dict | list | tuple):
        return _dumps(_clean(value, noise, text_of, 0, content))
    return json.dumps(value, default=str)


def _clean(
    value: Json, noise: frozenset[str], text_of: Callable[[str], str], depth: int, content: "re.Pattern[str] | None"
) -> Json:
    if isinstance(value, str):
        return text_of(value)
    if depth >= MAX_DEPTH:
        return "..."
    if isinstance(value, dict):
        return {
            str(key): one
            if isinstance(one, str) and content is not None and _names_content(str(key), content)
            else text_of(f"{key} {one}")
            if noise is _CALL_NOISE and _is_token(str(key), one)
            else _clean(one, noise, text_of, depth + 1, content)
            for key, one in value.items()
            if not _is_noise(str(key), noise)
        }
    if isinstance(value, list | tuple):
        inner = _HIT_NOISE if noise is _RESULT_NOISE else noise
        return [_clean(one, inner, text_of, depth + 1, content) for one in value]
    return value


def _is_token(key: str, value: Json) -> bool:
    return key.lower() in _TOKENS and isinstance(value, str) and _IDS.fullmatch(value) is not None


@lru_cache(maxsize=4_096)
def _plain(key: str) -> str:
    return key[:64].translate(_SEPARATORS).lower()


@lru_cache(maxsize=4_096)
def _is_noise(key: str, noise: frozenset[str]) -> bool:
    bare = _plain(key)
    return bare in noise or _NOISE_STEMS.search(bare) is not None


@lru_cache(maxsize=4_096)
def _names_content(key: str, content: "re.Pattern[str]") -> bool:
    return content.search(_plain(key)) is not None


def _folded(text: str) -> tuple[str, str]:
    """The part that is normalised, with its whitespace folded, and a digest of the rest."""
    head, rest = text[:MAX_TEXT_CHARS], text[MAX_TEXT_CHARS:]
    return " ".join(head.split()), f"+{digest(rest):016x}" if rest else ""


def _masked_call(text: str, known: Container[str], loose: bool) -> str:
    text, rest = _folded(text)
    if not _DIGIT.search(text):
        return text + rest

    def id_of(match: "re.Match[str]") -> str:
        found = match.group()
        whole = len(found) == len(text)
        # An id that is made up for a call has no 0x: where a program is handed in, that is a number in it.
        return found if found in known or (whole and not loose) or found.startswith("0x") else "<id>"

    def time_of(match: "re.Match[str]") -> str:
        return match.group() if len(match.group()) == len(text) and not loose else "<time>"

    text = _uncounted(text)
    if _dense(text):
        text = _without_ids(_without_times(text, time_of), id_of)
    return text + rest


def _masked_result(text: str, seen: Callable[[str], object] | None) -> str:
    text, rest = _folded(text)
    if not _DIGIT.search(text):
        return text + rest

    def id_of(match: "re.Match[str]") -> str:
        if seen is not None:
            seen(match.group())
        return match.group() if len(match.group()) in _DIGESTS else "<id>"

    whole, dense = text, _dense(text)
    text = _uncounted(_without_times(text, "<time>") if dense else text)
    lower = text.lower()
    if "pid" in lower or "tid" in lower or "thread" in lower:
        text = _PROCESSES.sub(r"\1 #", text)
    masked = _without_ids(text, id_of) if dense else text
    if seen is not None and dense and "<id>" in masked and len(whole) <= MAX_VALUE_CHARS:
        seen(whole)
    return _DURATIONS.sub("<span>", masked) + rest


def _dense(text: str) -> bool:
    """Whether there may be an id or a time in it: a word that is long enough and has a digit, or as long as a UUID."""
    return any(map(_may_be_id, text.split()))


def _may_be_id(word: str) -> bool:
    return len(word) >= _SHORTEST and (len(word) >= _UUID or _DIGIT.search(word) is not None)


def _without_ids(text: str, id_of: Callable[["re.Match[str]"], str]) -> str:
    # No id has a blank in it, and most words of a page cannot be one.
    return " ".join([_IDS.sub(id_of, word) if _may_be_id(word) else word for word in text.split(" ")])


def _without_times(text: str, time_of: Callable[["re.Match[str]"], str] | str) -> str:
    return _TIMES.sub(time_of, text) if ":" in text or _EPOCH.search(text) else text


def _uncounted(text: str) -> str:
    lower = text.lower()
    return _COUNTERS.sub(r"\1 #", text) if any(word in lower for word in _COUNTS) else text
