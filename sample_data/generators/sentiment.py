"""Opinions in a sentence or two whose words alone do not tell the verdict.

A negation turns a judgement round, and of two judgements the one in the main clause counts. Every
line has a twin with the other label; three quarters of the twins are the very same words in another
order.
"""

from __future__ import annotations

from generators.draw import Draw

Twins = tuple[tuple[str, str], tuple[str, str]]  # (label, text) twice

LABELS = ("negative", "positive")

# thing, the two things about it that were judged
SUBJECTS = (
    ("the film", "the story", "the ending"),
    ("the book", "the first half", "the second half"),
    ("the concert", "the singer", "the orchestra"),
    ("the hotel", "the room", "the breakfast"),
    ("the restaurant", "the soup", "the service"),
    ("the museum", "the guide", "the collection"),
    ("the journey", "the train", "the view"),
    ("the play", "the acting", "the music"),
    ("the course", "the teacher", "the homework"),
    ("the garden", "the path", "the pond"),
    ("the bakery", "the bread", "the coffee"),
    ("the market", "the fish", "the fruit"),
)

# what can be said of anything, in pairs of opposites: (positive, negative)
JUDGEMENTS = (
    ("good", "bad"),
    ("wonderful", "dreadful"),
    ("delightful", "tedious"),
    ("charming", "disappointing"),
    ("splendid", "poor"),
    ("memorable", "dull"),
    ("excellent", "awful"),
    ("lovely", "miserable"),
)

# what one did afterwards, and its contrary
DEEDS = (
    ("i would go again", "i would never go again"),
    ("i told all my friends to go", "i told all my friends not to go"),
    ("we stayed to the very end", "we could not stay to the very end"),
    ("it was worth the money", "it was not worth the money"),
    ("i could not have wished for more", "i had wished for much more"),
    ("nobody wanted to leave", "everybody wanted to leave"),
    ("i never once looked at my watch", "i looked at my watch more than once"),
    ("you must not miss it", "you will not miss anything if you stay at home"),
    ("my expectations were low and it exceeded them", "my expectations were low and it met them"),
    ("i smiled all the way home", "i complained all the way home"),
)

# what others expected or claimed: it has no weight
HEARSAY = (
    "the papers had called it {}",
    "my neighbour had told me that it was {}",
    "my sister was sure that it would be {}",
    "everybody says that it is {}",
    "i had expected something {}",
    "it is said to be {}",
)

PLAIN = ("{} was {}", "i found {} {}", "i must say that {} was {}", "to my mind {} was {}")
DENIED = ("{} was not {}", "{} was never {}", "{} was hardly {}", "{} was anything but {}")


def _one_judgement(draw: Draw) -> list[str]:
    """Of two opposites one is said and one is denied: "it was good , not bad"."""
    whole, part, _ = draw.one(SUBJECTS)
    frame = draw.one(
        (
            f"{whole} was {{0}} , not {{1}} .",
            f"{whole} was not {{1}} , it was {{0}} .",
            f"{part} was {{0}} and not {{1}} at all .",
            f"not {{1}} but {{0}} , that was {whole} .",
        )
    )
    good, bad = draw.one(JUDGEMENTS)
    return [frame.format(bad, good), frame.format(good, bad)]


def _two_parts(draw: Draw) -> list[str]:
    """Two things are judged and the main clause decides: "although the soup was bad , ..."."""
    whole, first, second = draw.one(SUBJECTS)
    if draw.chance(50):
        first, second = second, first
    frame = draw.one(
        (
            f"although {first} was {{1}} , {whole} was {{0}} .",
            f"{first} was {{1}} but {second} was {{0}} , and that is what counts .",
            f"{whole} was {{0}} , although {first} was {{1}} .",
            f"{second} was so {{0}} that i forgot how {{1}} {first} was .",
        )
    )
    good, bad = draw.one(JUDGEMENTS)[0], draw.one(JUDGEMENTS)[1]
    return [frame.format(bad, good), frame.format(good, bad)]


def _hearsay(draw: Draw) -> list[str]:
    """Only what was found counts: "it is said to be dull , but the play was charming"."""
    whole, part, _ = draw.one(SUBJECTS)
    subject = draw.one((whole, part))
    claim = draw.one(HEARSAY).format("{1}")
    opinion = draw.one(PLAIN).format(subject, "{0}")
    frame = draw.one((f"{claim} , but {opinion} .", f"{opinion} , though {claim} ."))
    good, bad = draw.one(JUDGEMENTS)[0], draw.one(JUDGEMENTS)[1]
    return [frame.format(bad, good), frame.format(good, bad)]


def _judgement_and_deed(draw: Draw) -> list[str]:
    """One judgement, perhaps of the opposite and denied, and what one did afterwards."""
    whole, part, _ = draw.one(SUBJECTS)
    subject = draw.one((whole, part))
    good, bad = draw.one(JUDGEMENTS)
    said = [bad, good]
    frames = PLAIN
    if draw.chance(50):
        said.reverse()
        frames = DENIED
    frame = draw.one(frames)
    deed = draw.one(DEEDS)
    joint = draw.one((" and ", " . "))
    return [f"{frame.format(subject, said[i])}{joint}{deed[1 - i]} ." for i in (0, 1)]


def draw_twins(draw: Draw) -> Twins:
    """A negative and a positive (label, text), in either order."""
    frame = draw.one((_one_judgement, _two_parts, _hearsay, _judgement_and_deed))
    negative, positive = zip(LABELS, frame(draw), strict=True)
    return (negative, positive) if draw.chance(50) else (positive, negative)
