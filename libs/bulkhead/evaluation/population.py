"""Distance of a set's cases from the requests of a time: over topics, lengths and languages. Pure.

In: texts of both. Out: for each the Jensen-Shannon divergence (0: the same, 1: nothing in common), and whether it is
more than chance: texts are dealt out anew PERMUTATIONS times, and a distance that is reached in few of them is drift.
"""

import math
import random
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

BUCKETS = 1_024
"""Words are counted by hash, in so many."""
PERMUTATIONS, SEED = 199, 20_261
ALPHA = 0.05 / 3
"""Of each of three measures, so that five sets of a hundred that are alike are told as drifted."""
MIN_EXCESS = 0.05
"""Over the median of the permutations: of many texts the smallest difference is more than chance."""
MIN_TEXTS, MAX_TEXTS = 20, 300
_WORD = re.compile(r"[^\W\d_]{2,}")
_STOP_WORDS = {
    "en": "the of and to is in what how for are with which",
    "de": "der die das und ist wie was ein eine nicht mit welche",
    "fr": "le la les des est et que quel une dans pour comment",
    "es": "el los las que es una por para como con cuál del",
    "it": "il gli che di è una per come con della quale sono",
    "pt": "os que é uma por para como com não qual dos são",
    "nl": "de het een van en is wat hoe met niet welke voor",
}
_STOPS = {language: frozenset(words.split()) for language, words in _STOP_WORDS.items()}


@dataclass(frozen=True, slots=True)
class PopulationDistance:
    """One measure. typical: the median of the permutations; p_value: share of them that is as far, or farther."""

    measure: str
    distance: float
    typical: float
    p_value: float

    @property
    def has_drifted(self) -> bool:
        """True where it is more than chance, and not a little."""
        return self.p_value <= ALPHA and self.distance - self.typical >= MIN_EXCESS


def distance_json(row: PopulationDistance) -> dict[str, float | str | bool]:
    """A distance for programs."""
    figures = {name: round(getattr(row, name), 4) for name in ("distance", "typical", "p_value")}
    return {"measure": row.measure, **figures, "drifted": row.has_drifted}


def measure_distances(cases: Sequence[str], requests: Sequence[str]) -> list[PopulationDistance]:
    """Distances by measure; of more than MAX_TEXTS texts as many are drawn. Needs MIN_TEXTS of each."""
    chance = random.Random(SEED)  # noqa: S311
    drawn_cases, drawn_requests = (
        chance.sample(list(side), MAX_TEXTS) if len(side) > MAX_TEXTS else list(side) for side in (cases, requests)
    )
    return [_measure(name, profile, drawn_cases, drawn_requests, chance) for name, profile in _PROFILES.items()]


def language_of(text: str) -> str:
    """The language of a text by a small rule: of Latin letters the one with the most stop words, else the script."""
    tokens = [token.lower() for token in _WORD.findall(text)]
    scripts = Counter(unicodedata.name(token[0], "?").split()[0].lower() for token in tokens)
    script = scripts.most_common(1)[0][0] if scripts else "none"
    hits = {language: sum(token in stops for token in tokens) for language, stops in _STOPS.items()}
    language = max(hits, key=lambda name: hits[name])
    return language if script == "latin" and hits[language] else script


def _topic_profile(text: str) -> Mapping[int | str, float]:
    tokens = [token.lower() for token in _WORD.findall(text) if len(token) > 2]
    buckets = Counter(zlib.crc32(token.encode()) % BUCKETS for token in tokens)
    return {bucket: count / len(tokens) for bucket, count in buckets.items()}


def _length_profile(text: str) -> Mapping[int | str, float]:
    return {len(text.split()).bit_length(): 1.0}


def _language_profile(text: str) -> Mapping[int | str, float]:
    return {language_of(text): 1.0}


_PROFILES: Mapping[str, Callable[[str], Mapping[int | str, float]]] = {
    "topics": _topic_profile,
    "lengths": _length_profile,
    "languages": _language_profile,
}


def _measure(
    name: str,
    profile: Callable[[str], Mapping[int | str, float]],
    cases: Sequence[str],
    requests: Sequence[str],
    chance: random.Random,
) -> PopulationDistance:
    profiles = [profile(text) for text in (*cases, *requests)]
    size, distance = len(cases), _divergence(profiles[: len(cases)], profiles[len(cases) :])
    dealt = []
    for _ in range(PERMUTATIONS):
        chance.shuffle(profiles)
        dealt.append(_divergence(profiles[:size], profiles[size:]))
    # A sum in another order may differ in its last digit.
    farther = sum(value >= distance - 1e-12 for value in dealt)
    return PopulationDistance(name, distance, sorted(dealt)[PERMUTATIONS // 2], (1 + farther) / (1 + PERMUTATIONS))


def _divergence(first: Sequence[Mapping[int | str, float]], second: Sequence[Mapping[int | str, float]]) -> float:
    """Jensen-Shannon divergence in bits (Lin 1991) of the mean profiles."""
    p, q = _mean_profile(first), _mean_profile(second)
    return sum(
        share * math.log2(2 * share / (p.get(key, 0.0) + q.get(key, 0.0))) / 2
        for side in (p, q)
        for key, share in side.items()
    )


def _mean_profile(profiles: Sequence[Mapping[int | str, float]]) -> dict[int | str, float]:
    sums: dict[int | str, float] = {}
    for profile in profiles:
        for key, share in profile.items():
            sums[key] = sums.get(key, 0.0) + share
    total = sum(sums.values()) or 1.0
    return {key: share / total for key, share in sums.items()}
