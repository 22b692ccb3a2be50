"""Invented words in an invented spelling, and how they are said.

The sounds follow the letters from left to right, but not one by one: what a letter says depends on
its neighbours. The rules, in the order in which they are tried:

- ``sh ch th ph ng qu`` are one unit: SH, CH, TH, F, NG, K W; ``gh`` is silent and makes the
  vowel before it long; ``kn`` and ``wr`` at the beginning are N and R.
- ``c`` before e, i, y is S, else K; ``g`` before e, i, y is J, else G; ``x`` is K S, and Z at the
  beginning; ``n`` before k, x or c (as K) is NG.
- ``s`` between vowels is Z; ``ti`` before a vowel is SH; ``b d g v z`` at the end of the word lose
  their voice: P T K F S.
- a doubled consonant is said once and keeps the vowel before it short.
- ``ai ea oa oo ou`` are AY EE OH UU OW; any other vowel is long before one consonant (x and a
  unit count for two) with a vowel after it, and short elsewhere; ``e`` at the end is silent but
  makes the vowel before it long.
- ``y`` at the beginning is Y, elsewhere the vowel i; ``r`` between a vowel and anything else is not
  said but colours a single vowel: AR ER IR OR UR.
"""

from __future__ import annotations

from generators.draw import Draw

VOWELS = "aeiouy"
SHORT = {"a": "A", "e": "E", "i": "I", "o": "O", "u": "U", "y": "I"}
LONG = {"a": "AY", "e": "EE", "i": "EYE", "o": "OH", "u": "YU", "y": "EYE"}
COLOURED = {"a": "AR", "e": "ER", "i": "IR", "o": "OR", "u": "UR", "y": "IR"}
PAIRS = {"ai": "AY", "ea": "EE", "oa": "OH", "oo": "UU", "ou": "OW"}
UNITS = {"sh": "SH", "ch": "CH", "th": "TH", "ph": "F", "ng": "NG", "qu": "K W"}
PLAIN = {letter: letter.upper() for letter in "bdfghjklmnprstvwz"}
DEVOICED = {"B": "P", "D": "T", "G": "K", "V": "F", "Z": "S"}

# (letters to choose from, weight)
ONSETS = (
    ("b d f g h j k l m n p r s t v w z", 6),
    ("c c c g g qu sh ch th ph", 3),
    ("bl br cl cr dr fl gl gr pl pr sk sl sp st str tr", 2),
)
MEDIALS = (
    ("b c d f g k l m n p r s t v x z", 6),
    ("bb dd ff ll mm nn pp rr ss tt", 2),
    ("nk nc ng mp nd ld lt rt st rn rk sh ch th gh", 3),
)
NUCLEI = (("a e i o u", 8), ("ai ea oa oo ou", 2), ("y", 1))
ENDINGS = (
    ("b d g l m n p r t v x", 4),
    ("be de le me ne pe re se te ve", 3),
    ("nd nk st rt ng lk sh th gh", 2),
    ("na ro ly sy", 2),
    ("tion tia", 1),
)
AVOIDED = "coon cum dyk fag fuk gook nig phuk piss poof puss rape sex shit slut vag"
BEGINNINGS = ("kn", "wr", "x", "y")


def _is_vowel(word: str, at: int) -> bool:
    return 0 <= at < len(word) and word[at] in VOWELS


def _vowel(word: str, at: int) -> str:
    """The sound of the single vowel letter at ``at``."""
    letter, after = word[at], word[at + 1 : at + 3]
    if after == "gh":
        return LONG[letter]
    if after[:1] == "r" and not _is_vowel(word, at + 2) and after != "rr":
        return COLOURED[letter]
    if len(after) == 2 and after[0] not in VOWELS + "x" and after[1] in VOWELS:
        return LONG[letter]
    return SHORT[letter]


def _consonant(word: str, at: int) -> str:
    """The sound of the single consonant letter at ``at``; empty if it is silent."""
    letter, following = word[at], word[at + 1 : at + 2]
    soft = following != "" and following in "eiy"
    if letter == "c":
        return "S" if soft else "K"
    if letter == "g":
        return "J" if soft else "G"
    if letter == "x":
        return "Z" if at == 0 else "K S"
    if letter == "n" and (following in ("k", "x") or word[at + 1 : at + 3] in ("ca", "co", "cu")):
        return "NG"
    if letter == "s" and _is_vowel(word, at - 1) and _is_vowel(word, at + 1):
        return "Z"
    if letter == "t" and following == "i" and _is_vowel(word, at + 2):
        return "SH"
    if letter == "r" and _is_vowel(word, at - 1) and not _is_vowel(word, at + 1):
        return ""
    return PLAIN[letter]


def _sound(word: str, at: int) -> tuple[str, int]:
    """(what the letters at ``at`` say, perhaps nothing; how many letters that is)."""
    two = word[at : at + 2]
    if at == 0 and two in ("kn", "wr"):
        return PLAIN[two[1]], 2
    if two == "gh" and at > 0:
        return "", 2
    if two == "ti" and _is_vowel(word, at + 2):
        return "SH", 2
    if two in UNITS:
        return UNITS[two], 2
    if two in PAIRS:
        return PAIRS[two], 2
    letter = word[at]
    if letter == "y" and at == 0:
        return "Y", 1
    if letter in VOWELS:
        if letter == "e" and at == len(word) - 1 and not _is_vowel(word, at - 1):
            return "", 1
        return _vowel(word, at), 1
    if two == letter * 2:
        return PLAIN[letter], 2
    return _consonant(word, at), 1


def pronounce(word: str) -> list[str]:
    """The phonemes of a word."""
    sounds: list[str] = []
    at = 0
    while at < len(word):
        sound, length = _sound(word, at)
        sounds += sound.split()
        at += length
    if word[-1] in "bdgvz":
        sounds[-1] = DEVOICED.get(sounds[-1], sounds[-1])
    return sounds


def draw_word(draw: Draw) -> tuple[str, list[str]]:
    """(an invented word of one to three syllables that is not rude in English, its phonemes)."""
    word = _word(draw)
    while any(part in word for part in AVOIDED.split()):
        word = _word(draw)
    return word, pronounce(word)


def _word(draw: Draw) -> str:
    onset = draw.one(BEGINNINGS) if draw.chance(8) else _letters(draw, ONSETS)
    word = onset + (draw.one("aeiou") if onset == "y" else _letters(draw, NUCLEI))
    for _ in range(draw.weighted(((0, 1), (1, 6), (2, 4)))):
        word += _letters(draw, MEDIALS) + _letters(draw, NUCLEI)
    return word + _letters(draw, ENDINGS)


def _letters(draw: Draw, groups: tuple[tuple[str, int], ...]) -> str:
    return draw.one(draw.weighted(groups).split())
