"""Words of several languages, as far as plain rules need them: stems, stop words, months, number words, units."""

import re
import unicodedata
from collections.abc import Iterable

STEM_CHARS = 6
WORD = re.compile(r"[^\W\d_]{3,}")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{2,}")
_STOP = """
    the and for with that this from are was were has have had not but its into than then they them will would can may
    all any each per our your their his her which when where while been being also only such does did what who how why
    there here about these those some more most other after before under over out off upon within shall should must
    could der die das den dem des ein eine einen einem einer eines und oder ist sind war wird werden nicht auch auf aus
    bei bis durch fur gegen mit nach ohne seit uber unter von vor wie wenn als dass daß zum zur sich sie ihr ihre wir
    man nur noch les des une est sont dans pour par sur avec sans qui que quoi dont leur leurs ses son aux cette ces
    pas plus mais ont los las una unos unas del con por para sin como cual cuando donde esta este estos estas fue ser
    hay mas pero gli che dei della delle nel nella per sono come quando dove questo questa piu het een van met voor aan
    zijn"""
STOP = frozenset(_STOP.split())
_MONTHS = """
    january januar janvier enero gennaio januari|february februar fevrier febrero febbraio februari
    march marz maerz mars marzo maart|april avril abril aprile|may mai mayo maggio mei|june juni juin junio giugno
    july juli juillet julio luglio|august aout agosto augustus|september septembre septiembre settembre
    october oktober octobre octubre ottobre|november novembre noviembre|december dezember decembre diciembre dicembre
"""
MONTHS = {name: at for at, row in enumerate(_MONTHS.strip().replace("\n", "|").split("|"), 1) for name in row.split()}
MONTHS |= {name[:3]: at for name, at in tuple(MONTHS.items()) if name[:3] not in ("mar", "mai", "mei", "jui")}
MONTHS |= {"mar": 3, "sept": 9}
_NUMBERS = {
    2: "two zwei deux dos due",
    3: "three drei trois tres tre",
    4: "four vier quatre cuatro quattro",
    5: "five funf fuenf cinq cinco cinque",
    6: "six sechs seis sei",
    7: "seven sieben sept siete sette",
    8: "eight acht huit ocho otto",
    9: "nine neun neuf nueve nove",
    10: "ten zehn dix diez dieci",
    11: "eleven elf onze once undici",
    12: "twelve zwolf zwoelf douze doce dodici",
    14: "fourteen vierzehn quatorze catorce",
    15: "fifteen funfzehn quinze quince quindici",
    20: "twenty zwanzig vingt veinte venti",
    24: "twentyfour vierundzwanzig",
    30: "thirty dreissig dreißig trente treinta trenta",
    40: "forty vierzig quarante cuarenta quaranta",
    50: "fifty funfzig cinquante cincuenta cinquanta",
    60: "sixty sechzig soixante sesenta sessanta",
    90: "ninety neunzig",
}
NUMBER_WORDS = {word: number for number, words in _NUMBERS.items() for word in words.split()}
_UNITS = {
    "eur": "€ eur euro euros",
    "usd": "$ usd dollar dollars",
    "gbp": "£ gbp pound pounds",
    "chf": "chf franken francs",
    "percent": "% percent prozent pourcent",
    "day": "day days tag tage tagen jour jours dia dias giorno giorni dag dagen",
    "week": "week weeks woche wochen semaine semaines semana semanas settimana settimane",
    "month": "month months monat monate monaten mois mes meses mese mesi maand maanden",
    "year": "year years jahr jahre jahren an ans annee annees ano anos anno anni jaar",
    "hour": "hour hours stunde stunden heure heures hora horas ora ore",
    "minute": "minute minutes minuten minuto minutos",
}
UNITS = {word: unit for unit, words in _UNITS.items() for word in words.split()}


_FACTORS = {
    "0.5": "half halfte halben moitie mitad meta",
    "2": "double twice doppelt double doble",
    "0.25": "quarter viertel",
}
FACTORS = {word: factor for factor, words in _FACTORS.items() for word in words.split()}
_MARKS_OF = {
    "en": "the of and is to for what how which does at",
    "de": "der die das und ist wie fur ein eine nicht den im welche",
    "fr": "le la les des est et pour une du quel dans",
    "es": "el los las una por que del cual cuanto",
    "it": "il della di che per una quale sono",
}
_LANGUAGES = {name: frozenset(words.split()) for name, words in _MARKS_OF.items()}


def language_of(text: str) -> str:
    """The language of a text by its small words; "" where they do not tell."""
    if len(_CJK.findall(text)) > len(text.split()) / 4:
        return "cjk"
    words = re.findall(r"[^\W\d_]+", fold_text(text[:20_000]))
    counts = sorted(((sum(map(small.__contains__, words)), name) for name, small in _LANGUAGES.items()), reverse=True)
    return counts[0][1] if counts[0][0] > counts[1][0] else ""


def fold_text(text: str) -> str:
    """Lower case without accents; the length may change."""
    lowered = text.lower()
    if lowered.isascii():
        return lowered
    return "".join(char for char in unicodedata.normalize("NFKD", lowered) if not unicodedata.combining(char))


def _stem_word(word: str) -> str:
    if len(word) > 3 and word[-1] == "s" and word[-2] != "s":
        word = word[:-1]
    return word[:STEM_CHARS]


def word_stems(text: str) -> frozenset[str]:
    """Content words cut to a crude stem, enough to match inflections; pairs of characters where nothing parts words."""
    folded = fold_text(text)
    words = {_stem_word(token) for token in WORD.findall(folded) if token not in STOP and not _CJK.match(token)}
    for run in _CJK.findall(folded):
        words.update(run[start : start + 2] for start in range(len(run) - 1))
    return frozenset(words)


def find_terms(text: str, names: Iterable[str]) -> frozenset[str]:
    """Its stems and the names of things (LF-200) in it."""
    return word_stems(text) | frozenset(names)


def normalise_text(text: str) -> str:
    """Letters and digits alone, folded, one blank between words: equal for the same words."""
    return " ".join(re.findall(r"[^\W_]+", fold_text(text)))
