"""The canonical text of a call or its result: two calls with the same canonical text are the same call.

In: arguments or a result (JSON value, JSON text or plain text). Out: a text with sorted keys and folded whitespace,
without request ids, timestamps, counters and what is said *about* the call (`thought_text`, `reason`).

An id is noise (made up for this call) under a key that says so or inside a longer text. An id is an address (what the
call is about) and stays when it is the whole argument, or when an earlier result of the lineage gave it.
"""

import hashlib
import json
import re
from collections.abc import Callable, Container, MutableMapping
from functools import lru_cache, partial

from bulkhead.flow import bounded
from bulkhead.health.events import Json
from bulkhead_contracts import bounds

MAX_TEXT_CHARS = 8_192
"""Length of text that is normalised; the rest counts by its digest."""
MAX_VALUE_CHARS = 1_024
"""Length up to which a text with an id in it may be handed back by a later call."""
MAX_DEPTH = 32

_NOISE = re.compile(
    r"(?:request|req|r|trace|span|call|toolcall|message|msg|event|session|run|response)id|nonce|[ug]uid|uuid|random|salt"
    r"|timestamp|ts|now|(?:sent|created|requested)at|attempts?|attemptnumber|try|tries|retry|retries|iter(?:ation)?"
    r"|counter|seq|sequence|sequencenumber|turn|round|hop|lap|thoughts?|reasoning|rationale|explanation|justification|comment"
    r"|traceparent|tracestate|etag"
    r"|.*(?:requestid|traceid|spanid|correlation|nonce|idempot|timestamp|cachebust|attemptn|retryc|csrf|xsrf|viewstate"
    r"|handoverid|handoffid).*"
)
_LABEL_NOISE = re.compile(rf"{_NOISE.pattern}|context|reason|note|message|summary")
"""Keys of a hand-over: what is said about it is no part of it."""
_RESULT_NOISE = re.compile(
    rf"{_NOISE.pattern}|durations?|durationms|elapsed|elapsedm?s|elapsedseconds|took|tookms|latency|latencyms|updatedat"
    r"|servertime|generatedat|pid|uptime|executiontime"
)
_HIT_NOISE = re.compile(rf"{_RESULT_NOISE.pattern}|score|distance|similarity|relevance|rank")
"""Keys in a list of hits: how near a hit is to the question is no part of it."""
_CONTENT = re.compile(
    ".*(?:sha|hash|digest|checksum|screenshot|image|photo|picture|blob|artifact|snapshot|capture|thumb).*", re.DOTALL
)
"""Keys whose value names a content: another value is another result."""
_TOKENS = frozenset({"key", "token", "ref", "reference"})
"""Keys under which an id that no result gave is as likely to be made up for the call."""
_DIGESTS = frozenset({40, 64, 128})
"""Lengths of hexadecimal digests of contents (SHA-1, SHA-256, SHA-512)."""
_THOUGHTS = frozenset({"thought", "thoughts", "text", "content", "reflection", "reasoning"})
_SEPARATORS = str.maketrans("", "", "_- .")
_DIGIT = re.compile(r"\d")
_TIMES = re.compile(
    r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"
    r"|\b\d\d:\d\d:\d\d(?:[.,]\d+)?\b|\b1[0-9]{9}(?:\.\d+)?\b|\b1[0-9]{12}\b|\b1[0-9]{15}\b|\b1[0-9]{18}\b"
)
_IDS = re.compile(
    r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"
    r"|\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{8,64}\b"
    r"|\b(?=[0-9A-Z]*\d)[0-9A-HJKMNP-TV-Z]{26}\b"
    r"|\b(?=(?:[A-Za-z]*\d){4})(?=\d*[A-Za-z])[A-Za-z0-9]{20,64}\b"
    r"|\b(?:req|request|trace|span|call|msg|corr|run|sess|session|txn|nonce|id|ref|uid|tmp)[-_:#=]{1,2}"
    r"(?=[A-Za-z]*\d)(?![A-Za-z0-9]*[A-Za-z]{4})[A-Za-z0-9]{4,}\b"
    r"|0x[0-9a-fA-F]{6,16}\b"
)
_SHORTEST_ID, _UUID = 7, 36
_COUNTERS = re.compile(
    r"\b(attempt|try|retry|retries|iteration|take|round|pass)\s*(?:no\.?|number|#|:|=)?\s*#?\d+(?:\s*(?:/|of)\s*\d+)?\b"
    r"|\b(pid|tid|thread)\s*[=:#]?\s*\d+\b|\b(In ?\[)\d+(?=\])",
    re.IGNORECASE,
)
_COUNTED = re.compile("attempt|try|tries|iteration|take|round|pass|[pt]id|thread|in ?\\[", re.IGNORECASE)
"""Quick test: one of these stands in whatever `_COUNTERS` finds."""
_DURATIONS = re.compile(r"\b\d+(?:[.,]\d+)?\s?(?:ms|µs|us|s|secs?|seconds?|minutes?|mins?)\b")
_DURATION_ASKED_FOR = re.compile(
    rf"^{_DURATIONS.pattern}$|{_DURATIONS.pattern}\s*(?:left|remaining|to go|behind|until|ago|old|late)"
    rf"|(?:left|remaining|lag|eta|until|age)\b[\s:=\"]{{1,4}}{_DURATIONS.pattern}"
)
_MAX_READING_CHARS = 100
_dumps = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str).encode


def digest_text(text: str) -> int:
    """Eight bytes that stand for a text, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")


def canonical_call(arguments: Json, known: Container[str] = (), *, hands_over: bool = False) -> str:
    """Canonical text of a call's arguments. known: ids that are addresses; hands_over: it hands the task on."""
    masked = partial(_mask_call, known=known)
    parsed = parsed_json(arguments)
    if isinstance(parsed, dict) and not any(value or value is False or value == 0 for value in parsed.values()):
        return "{}"  # An empty argument is none.
    noise = _LABEL_NOISE if hands_over else _NOISE
    return masked(parsed) if isinstance(parsed, str) else _dumps(_clean_value(parsed, noise, masked))


def canonical_result(value: Json, known: MutableMapping[str, None] | None = None) -> str:
    """Canonical text of a result. Every id in it, and every short text around one, becomes a key of `known`: they are
    addresses from now on."""
    masked = partial(_mask_result, known={} if known is None else known)
    parsed = parsed_json(value)
    if isinstance(parsed, str):
        short = len(parsed) < _MAX_READING_CHARS and _DIGIT.search(parsed)
        asked_for = short and _DURATION_ASKED_FOR.search(parsed.strip().lower())
        return " ".join(parsed.split()) if asked_for else masked(parsed)
    return _dumps(_clean_value(parsed, _RESULT_NOISE, masked))


@lru_cache(maxsize=64)  # The detectors of loops and of chatter ask for the same text.
def canonical_speech(text: str) -> str:
    """Canonical text of what an agent says: ids, times and counters in it are noise."""
    return _mask_result(text, {})


def thought_text(arguments: Json) -> Json:
    """The text of a thought or a note that is kept by a call."""
    parsed = parsed_json(arguments)
    named = parsed if isinstance(parsed, dict) else {}
    return next((text for key, text in named.items() if key.lower() in _THOUGHTS and isinstance(text, str)), arguments)


@lru_cache(maxsize=128)
def phrases_of(text: str, most: int = 4_000) -> frozenset[str]:
    """Runs of three words: what prose says anew even where its words come back."""
    words = re.findall(r"\w+", text[:most].casefold())
    return frozenset([" ".join(words[start : start + 3]) for start in range(max(1, len(words) - 2))])


def parsed_json(value: Json) -> Json:
    """The value of a JSON text; anything else as it is."""
    if not isinstance(value, str):
        return value
    start = value[:64].lstrip()[:1]
    if start and start in "{[" and len(value) <= 8 * MAX_TEXT_CHARS:
        try:
            # Counting is quick; looking at every character is not, and is only needed for what nests.
            flat = value.count("{") + value.count("[") <= bounds.MAX_JSON_DEPTH
            return json.loads(value) if flat else bounded.load_json(value)
        except ValueError:
            return value
    return value


def _clean_value(value: Json, noise: "re.Pattern[str]", masked: Callable[[str], str], depth: int = 0) -> Json:
    if isinstance(value, str):
        return masked(value)
    if depth >= MAX_DEPTH:
        return "..."
    if isinstance(value, dict):
        return {
            str(key): _clean_field(str(key), field, noise, masked, depth)
            for key, field in value.items()
            if not _key_matches(str(key), noise)
        }
    if isinstance(value, list | tuple):
        inner = _HIT_NOISE if noise is _RESULT_NOISE else noise
        return [_clean_value(item, inner, masked, depth + 1) for item in value]
    return value


def _clean_field(key: str, value: Json, noise: "re.Pattern[str]", masked: Callable[[str], str], depth: int) -> Json:
    if isinstance(value, str):
        of_result = noise is _RESULT_NOISE or noise is _HIT_NOISE
        if of_result and _key_matches(key, _CONTENT):
            return value
        if not of_result and key.lower() in _TOKENS and _IDS.fullmatch(value):
            return masked(f"{key} {value}")
    return _clean_value(value, noise, masked, depth + 1)


@lru_cache(maxsize=4_096)
def _key_matches(key: str, noise: "re.Pattern[str]") -> bool:
    return noise.fullmatch(key[:64].translate(_SEPARATORS).lower()) is not None


def _fold_whitespace(text: str) -> tuple[str, str]:
    """The part that is normalised, with its whitespace folded, and a digest of the rest."""
    head, remainder = text[:MAX_TEXT_CHARS], text[MAX_TEXT_CHARS:]
    return " ".join(head.split()), f"+{digest_text(remainder):016x}" if remainder else ""


def _mask_call(text: str, known: Container[str]) -> str:
    text, tail_digest = _fold_whitespace(text)
    if not _DIGIT.search(text):
        return text + tail_digest

    def id_of(match: "re.Match[str]") -> str:
        name = match.group()
        # An id that is made up for a call has no 0x: where a program is handed in, that is a number in it.
        return name if name in known or len(name) == len(text) or name.startswith("0x") else "<id>"

    text = _mask_counters(text)
    if any(map(_may_be_id, text.split())):
        text = _TIMES.sub(lambda match: match.group() if len(match.group()) == len(text) else "<time>", text)
        text = _without_ids(text, id_of)
    return text + tail_digest


def _mask_result(text: str, known: MutableMapping[str, None]) -> str:
    text, tail_digest = _fold_whitespace(text)
    if not _DIGIT.search(text):
        return text + tail_digest

    def id_of(match: "re.Match[str]") -> str:
        known[match.group()] = None
        return match.group() if len(match.group()) in _DIGESTS else "<id>"

    masked = _mask_counters(text)
    if any(map(_may_be_id, masked.split())):
        masked = _without_ids(_TIMES.sub("<time>", masked), id_of)
        if "<id>" in masked and len(text) <= MAX_VALUE_CHARS:
            known[text] = None
    return _DURATIONS.sub("<span>", masked) + tail_digest


def _may_be_id(word: str) -> bool:
    """Check whether a word may be an id or a time: it is long enough and has a digit, or is as long as a UUID."""
    return len(word) >= _SHORTEST_ID and (len(word) >= _UUID or _DIGIT.search(word) is not None)


def _without_ids(text: str, id_of: Callable[["re.Match[str]"], str]) -> str:
    # No id has a blank in it, and most words of a page cannot be one.
    return " ".join([_IDS.sub(id_of, token) if _may_be_id(token) else token for token in text.split(" ")])


def _mask_counters(text: str) -> str:
    if not _COUNTED.search(text):
        return text
    return _COUNTERS.sub(lambda match: f"{match[1] or match[2] or match[3]} #", text)
