"""Sentences as meanings: who does what to whom, when and where; no word order yet."""

from __future__ import annotations

from dataclasses import dataclass

from generators.draw import Draw
from generators.lexicon import (
    ADJECTIVES,
    NAMES,
    NOUNS,
    PLACES,
    PRONOUNS,
    SAYING,
    TIMES,
    VERBS,
    Noun,
    Verb,
    english_number,
    german_number,
)

DETERMINERS = (("the", 40), ("a", 25), ("my", 10), ("her", 8), ("this", 8), ("that", 5))


@dataclass(frozen=True)
class Phrase:
    """A name, a pronoun (``agreement`` says which) or a noun with what stands around it.

    ``agreement``: 1s, 2s, 3m, 3f, 1p, 3p for a pronoun; 3s or 3p otherwise.
    """

    agreement: str
    name: str = ""
    noun: Noun | None = None
    determiner: str = ""
    count: int = 1
    adjective: tuple[str, str] | None = None
    relative: Clause | None = None

    @property
    def plural(self) -> bool:
        """Whether its verb stands in the plural."""
        return self.agreement.endswith("p")

    @property
    def is_pronoun(self) -> bool:
        """Whether it is one word that stands for a person."""
        return not self.name and self.noun is None


@dataclass(frozen=True)
class Clause:
    """One verb with what belongs to it. ``tense``: present, past, future, can, must, want.
    ``objects``: (case, phrase). ``time``, ``place``: (English with tags, German)."""

    subject: Phrase
    verb: Verb
    tense: str
    objects: tuple[tuple[str, Phrase], ...] = ()
    time: tuple[str, str] | None = None
    place: tuple[str, str] | None = None
    negated: bool = False


@dataclass(frozen=True)
class Sentence:
    """``form``: main, fronted (the time comes first), question, or the word that joins ``clause``
    and ``second``: that, because, when (``clause`` first, subordinate), and."""

    form: str
    clause: Clause
    second: Clause | None = None


def _noun_phrase(draw: Draw, kinds: frozenset[str], relative: bool = False) -> Phrase:
    noun = draw.one([noun for noun in NOUNS if noun.kinds & kinds])
    kind = "person" if "person" in noun.kinds else "thing"
    adjective = draw.one(ADJECTIVES[kind]) if draw.chance(35) else None
    if draw.chance(14):
        count = 2 + draw.below(11) if draw.chance(75) else 20 + draw.below(60)
        return Phrase("3p", noun=noun, determiner="number", count=count, adjective=adjective)
    determiner = draw.weighted(DETERMINERS)
    count = 2 if draw.chance(30) else 1
    agreement = "3p" if count == 2 else "3s"
    clause = None
    if relative and draw.chance(12) and determiner == "the":
        clause = _clause(draw, Phrase(agreement, noun=noun), simple=True)
    return Phrase(agreement, "", noun, determiner, count, adjective, clause)


def _person(draw: Draw, relative: bool = False, not_like: Phrase | None = None) -> Phrase:
    """Somebody; not the same pronoun or name as ``not_like``."""
    while True:
        kind = draw.weighted((("noun", 60), ("name", 20), ("pronoun", 20)))
        if kind == "noun":
            return _noun_phrase(draw, frozenset({"person"}), relative)
        if kind == "name":
            phrase = Phrase("3s", name=draw.one(NAMES))
        else:
            phrase = Phrase(draw.one(list(PRONOUNS)))
        if phrase != not_like:
            return phrase


def _time(draw: Draw, tense: str) -> tuple[str, str]:
    if draw.chance(20):
        hour = 1 + draw.below(12)
        return f"at/ADP {english_number(hour)}/NUM", f"um {german_number(hour)}"
    english, german, _ = draw.one([time for time in TIMES if tense in time[2]])
    return english, german


def _clause(draw: Draw, subject: Phrase, simple: bool = False) -> Clause:
    """``simple``: present or past, no time, no place, no negation."""
    verb = draw.one(VERBS)
    tense = draw.weighted((("present", 45), ("past", 30)))
    if not simple and draw.chance(30):
        tense = draw.one(("future", "can", "must", "want"))
    objects: list[tuple[str, Phrase]] = []
    for case in verb.frame.split("+") if verb.frame != "none" else ():
        is_person = case == "dat" or ("person" in verb.kinds and draw.chance(50))
        wanted = frozenset({"person"}) if is_person else verb.kinds
        to_person = is_person and not simple
        objects.append(
            (case, _person(draw, not_like=subject) if to_person else _noun_phrase(draw, wanted))
        )
    if simple:
        return Clause(subject, verb, tense, tuple(objects))
    time = _time(draw, tense) if draw.chance(35) else None
    place = None
    if verb.frame in ("none", "acc") and draw.chance(35):
        place = draw.one(PLACES)
    # With a place or a counted object the English "not" could deny only that.
    counted = any(phrase.determiner == "number" for _, phrase in objects)
    negated = place is None and not counted and draw.chance(18)
    return Clause(subject, verb, tense, tuple(objects), time, place, negated)


def _saying(draw: Draw) -> Clause:
    subject = _person(draw)
    return Clause(subject, draw.one(SAYING), draw.one(("present", "past")))


def draw_sentence(draw: Draw) -> Sentence:
    """A random sentence."""
    form = draw.weighted(
        (("main", 40), ("fronted", 16), ("question", 12), ("that", 12), ("because", 8),
         ("when", 7), ("and", 5))
    )  # fmt: skip
    if form == "that":
        return Sentence(form, _saying(draw), _clause(draw, _person(draw)))
    clause = _clause(draw, _person(draw, relative=form in ("main", "fronted")))
    if form == "fronted" and clause.time is None:
        form = "main"
    if form in ("because", "and"):
        return Sentence(form, clause, _clause(draw, _person(draw)))
    if form == "when":
        first = _clause(draw, _person(draw), simple=True)
        second = _clause(draw, _person(draw), simple=True)
        return Sentence(
            form,
            Clause(first.subject, first.verb, "present", first.objects),
            Clause(second.subject, second.verb, "present", second.objects),
        )
    return Sentence(form, clause)
