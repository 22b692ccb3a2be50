"""German from meanings: gender, case, the endings of articles and adjectives, the verb's place.

In a main clause the finite verb is the second part, in a question the first, in a subordinate
clause the last; what is left of the verb (prefix, participle, infinitive) closes the clause.
"""

from __future__ import annotations

from generators.clauses import Clause, Phrase, Sentence
from generators.lexicon import PRONOUNS, german_number

_CASES = ("nom", "acc", "dat")

# case -> endings for m, f, n, plural
_DER = {
    "nom": ("der", "die", "das", "die"),
    "acc": ("den", "die", "das", "die"),
    "dat": ("dem", "der", "dem", "den"),
}
_EIN_ENDING = {
    "nom": ("", "e", "", "e"),
    "acc": ("en", "e", "", "e"),
    "dat": ("em", "er", "em", "en"),
}
_DIESER_ENDING = {
    "nom": ("er", "e", "es", "e"),
    "acc": ("en", "e", "es", "e"),
    "dat": ("em", "er", "em", "en"),
}
_WEAK = {
    "nom": ("e", "e", "e", "en"),
    "acc": ("en", "e", "e", "en"),
    "dat": ("en", "en", "en", "en"),
}
_MIXED = {
    "nom": ("er", "e", "es", "en"),
    "acc": ("en", "e", "es", "en"),
    "dat": ("en", "en", "en", "en"),
}
_STRONG_PLURAL = {"nom": "e", "acc": "e", "dat": "en"}

_EIN_WORDS = {"a": "ein", "my": "mein", "her": "ihr", "no": "kein"}
_DIESER_WORDS = {"this": "dies", "that": "jen"}

# tense -> the finite forms for ich, du, er, and the plural
_AUXILIARIES = {
    "haben": ("habe", "hast", "hat", "haben"),
    "sein": ("bin", "bist", "ist", "sind"),
    "future": ("werde", "wirst", "wird", "werden"),
    "can": ("kann", "kannst", "kann", "können"),
    "must": ("muss", "musst", "muss", "müssen"),
    "must not": ("darf", "darfst", "darf", "dürfen"),
    "want": ("will", "willst", "will", "wollen"),
}
_CONJUNCTIONS = {"that": "dass", "because": "weil", "when": "wenn"}


def phrase(np: Phrase, case: str, determiner: str = "") -> list[str]:
    """The words of a name, a pronoun or a noun phrase; ``determiner`` replaces its own."""
    if np.name:
        return [np.name]
    if np.noun is None:
        return [PRONOUNS[np.agreement][2 + _CASES.index(case)]]
    column = 3 if np.plural else "mfn".index(np.noun.gender)
    kind = determiner or np.determiner
    words: list[str] = []
    if kind == "the":
        words, ending = [_DER[case][column]], _WEAK[case][column]
    elif kind in _DIESER_WORDS:
        words = [_DIESER_WORDS[kind] + _DIESER_ENDING[case][column]]
        ending = _WEAK[case][column]
    elif kind == "number":
        words, ending = [german_number(np.count)], _STRONG_PLURAL[case]
    elif kind == "a" and np.plural:
        ending = _STRONG_PLURAL[case]
    else:
        words = [_EIN_WORDS[kind] + _EIN_ENDING[case][column]]
        ending = _MIXED[case][column]
    if np.adjective:
        words.append(np.adjective[1].removesuffix("e") + ending)
    noun = np.noun.de_plural if np.plural else np.noun.de
    if np.plural and case == "dat" and not noun.endswith("n"):
        noun += "n"
    words.append(noun)
    if np.relative:
        words += [",", _DER["nom"][column], *_verb_last(np.relative), ","]
    return words


def _person(subject: Phrase) -> int:
    """The column of the verb's forms: ich, du, er, plural."""
    return {"1s": 0, "2s": 1, "1p": 3, "3p": 3}.get(subject.agreement, 2)


def _verb(clause: Clause) -> tuple[str, str]:
    """(finite verb, what closes a main clause: prefix, participle, infinitive or nothing)."""
    verb, column = clause.verb, _person(clause.subject)
    if clause.tense == "present":
        return (verb.ich, verb.du, verb.er, verb.infinitive)[column], verb.prefix
    if clause.tense == "past":
        return _AUXILIARIES[verb.auxiliary][column], verb.participle
    tense = "must not" if clause.tense == "must" and clause.negated else clause.tense
    return _AUXILIARIES[tense][column], verb.prefix + verb.infinitive


def _middle(clause: Clause, with_time: bool) -> list[str]:
    """Pronouns, dative, time, accusative, place; "nicht", or "kein" for "not a"."""
    pronouns: list[str] = []
    datives: list[str] = []
    accusatives: list[str] = []
    denied = False
    for case, np in clause.objects:
        none_of = clause.negated and np.determiner == "a" and case == clause.objects[-1][0]
        denied = denied or none_of
        words = phrase(np, case, "no" if none_of else "")
        if np.is_pronoun:
            pronouns += words
        elif case == "dat":
            datives += words
        else:
            accusatives += words
    time = clause.time[1].split() if clause.time and with_time else []
    negation = ["nicht"] if clause.negated and not denied else []
    place = clause.place[1].split() if clause.place else []
    return pronouns + datives + time + accusatives + negation + place


def _verb_last(clause: Clause) -> list[str]:
    """A subordinate clause without its subject: a prefix joins its verb at the end."""
    finite, closing = _verb(clause)
    middle = _middle(clause, with_time=True)
    if clause.tense == "present":
        return [*middle, closing + finite]
    return [*middle, closing, finite]


def _main(clause: Clause, front: str) -> list[str]:
    """``front``: what stands before the finite verb: subject, time or nothing."""
    finite, closing = _verb(clause)
    subject = phrase(clause.subject, "nom")
    middle = _middle(clause, with_time=front != "time")
    end = [closing] if closing else []
    if front == "subject":
        return [*subject, finite, *middle, *end]
    time = clause.time[1].split() if front == "time" and clause.time else []
    return [*time, finite, *subject, *middle, *end]


def german(sentence: Sentence) -> list[str]:
    """The words of the sentence; a relative clause's last comma gives way to the full stop."""
    first, second, form = sentence.clause, sentence.second, sentence.form
    if form == "question":
        return [*_main(first, "nothing"), "?"]
    if second is None:
        words = _main(first, "time" if form == "fronted" else "subject")
    elif form == "when":
        subordinate = [*phrase(first.subject, "nom"), *_verb_last(first)]
        words = [_CONJUNCTIONS[form], *subordinate, ",", *_main(second, "nothing")]
    elif form == "and":
        words = [*_main(first, "subject"), "und", *_main(second, "subject")]
    else:
        subordinate = [*phrase(second.subject, "nom"), *_verb_last(second)]
        words = [*_main(first, "subject"), ",", _CONJUNCTIONS[form], *subordinate]
    if words[-1] == ",":
        words.pop()
    return [*words, "."]
