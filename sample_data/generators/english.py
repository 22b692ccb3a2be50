"""English from meanings: auxiliaries, do-support, a or an, particles; each word with its tag.

The tags are the universal ones (Nivre et al. 2016), used as in the English treebanks: a possessive
is PRON, "not" and "to" are PART, the particle of a verb is ADP.
"""

from __future__ import annotations

from generators.clauses import Clause, Phrase, Sentence
from generators.lexicon import PRONOUNS, english_number

Token = tuple[str, str]

_POSSESSIVE = ("my", "her")
_PLURAL_DETERMINER = {"this": "these", "that": "those", "a": ""}
_AUXILIARY = {"future": "will", "can": "can", "must": "must"}


def phrase(np: Phrase, is_subject: bool) -> list[Token]:
    """The words of a name, a pronoun or a noun phrase."""
    if np.name:
        return [(np.name, "PROPN")]
    if np.noun is None:
        return [(PRONOUNS[np.agreement][0 if is_subject else 1], "PRON")]
    rest: list[Token] = []
    if np.adjective:
        rest.append((np.adjective[0], "ADJ"))
    rest.append((np.noun.en_plural if np.plural else np.noun.en, "NOUN"))
    if np.relative:
        rest += [("who", "PRON"), *_predicate(np.relative)]
    if np.determiner == "number":
        return [(english_number(np.count), "NUM"), *rest]
    determiner = np.determiner
    if np.plural:
        determiner = _PLURAL_DETERMINER.get(determiner, determiner)
    elif determiner == "a" and rest[0][0][0] in "aeiou":
        determiner = "an"
    tag = "PRON" if determiner in _POSSESSIVE else "DET"
    return [(determiner, tag), *rest] if determiner else rest


def _tagged(words: str) -> list[Token]:
    """``"at/ADP the/DET window/NOUN"``, split."""
    return [(word, tag) for word, _, tag in (part.partition("/") for part in words.split())]


def _finite(clause: Clause, inverted: bool) -> tuple[list[Token], list[Token]]:
    """(the auxiliary, if there is one; the verb with what stands before its objects)."""
    base, third, past = clause.verb.en
    singular = clause.subject.agreement in ("3s", "3m", "3f")
    if clause.tense in _AUXILIARY:
        return [(_AUXILIARY[clause.tense], "AUX")], [(base, "VERB")]
    supported = clause.negated or inverted
    if clause.tense == "want":
        verb: list[Token] = [("to", "PART"), (base, "VERB")]
        forms = ("want", "wants")
    else:
        verb = [(base, "VERB")]
        forms = (base, third)
    if supported:
        do = "did" if clause.tense == "past" else "does" if singular else "do"
        if clause.tense == "want":
            verb = [("want", "VERB"), *verb]
        return [(do, "AUX")], verb
    form = past if clause.tense == "past" else forms[singular]
    return [], [(form, "VERB"), *(verb if clause.tense == "want" else [])]


def _objects(clause: Clause, verb: list[Token]) -> list[Token]:
    """The verb, its particle and its objects: a pronoun comes before the particle."""
    *before, (last, tag) = verb
    stem, _, particle = last.partition("_")
    words: list[Token] = [*before, (stem, tag)]
    particles: list[Token] = [(particle, "ADP")] if particle else []
    if not (clause.objects and clause.objects[0][1].is_pronoun):
        words += particles
        particles = []
    for _, np in clause.objects:
        words += phrase(np, is_subject=False)
    return words + particles


def _predicate(clause: Clause) -> list[Token]:
    """All but the subject and the time."""
    auxiliary, verb = _finite(clause, inverted=False)
    negation: list[Token] = [("not", "PART")] if clause.negated else []
    place = _tagged(clause.place[0]) if clause.place else []
    return auxiliary + negation + _objects(clause, verb) + place


def _clause(clause: Clause) -> list[Token]:
    time = _tagged(clause.time[0]) if clause.time else []
    return phrase(clause.subject, is_subject=True) + _predicate(clause) + time


def _question(clause: Clause) -> list[Token]:
    auxiliary, verb = _finite(clause, inverted=True)
    negation: list[Token] = [("not", "PART")] if clause.negated else []
    place = _tagged(clause.place[0]) if clause.place else []
    time = _tagged(clause.time[0]) if clause.time else []
    subject = phrase(clause.subject, is_subject=True)
    return auxiliary + subject + negation + _objects(clause, verb) + place + time


def english(sentence: Sentence) -> list[Token]:
    """The words with their universal tags."""
    first, second, form = sentence.clause, sentence.second, sentence.form
    if form == "question":
        return [*_question(first), ("?", "PUNCT")]
    if form == "fronted" and first.time:
        words = _tagged(first.time[0]) + phrase(first.subject, is_subject=True) + _predicate(first)
    elif second is None:
        words = _clause(first)
    elif form == "when":
        words = [("when", "SCONJ"), *_clause(first), (",", "PUNCT"), *_clause(second)]
    elif form == "and":
        words = [*_clause(first), ("and", "CCONJ"), *_clause(second)]
    else:
        words = [*_clause(first), (form, "SCONJ"), *_clause(second)]
    return [*words, (".", "PUNCT")]
