"""The words of the two languages: what they mean together and how they bend."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """``kinds``: person, or thing and what can be done with it."""

    en: str
    en_plural: str
    de: str
    gender: str
    de_plural: str
    kinds: frozenset[str]


@dataclass(frozen=True)
class Verb:
    """``en``: base, third person, past; a particle follows "_". ``frame``: the cases of the
    objects, "none" without. ``prefix`` leaves the German verb in a main clause."""

    en: tuple[str, str, str]
    prefix: str
    infinitive: str
    ich: str
    du: str
    er: str
    participle: str
    auxiliary: str
    frame: str
    kinds: frozenset[str]


def _noun(line: str) -> Noun:
    english, english_plural, german, gender, german_plural, *kinds = line.split()
    return Noun(english, english_plural, german, gender, german_plural, frozenset(kinds))


def _verb(line: str) -> Verb:
    english, german, use = (part.split() for part in line.split("|"))
    base, third, past = english
    prefix, infinitive, ich, du, er, participle, auxiliary = german
    frame, *kinds = use
    return Verb(
        en=(base, third, past),
        prefix=prefix.strip("-"),
        infinitive=infinitive,
        ich=ich,
        du=du,
        er=er,
        participle=participle,
        auxiliary=auxiliary,
        frame=frame,
        kinds=frozenset(kinds),
    )


# English, plural, German, gender, plural, kinds. The watch, the light, the can and the fish are
# there because the same words are a verb, an adjective, an auxiliary and a verb.
NOUNS = tuple(
    _noun(line)
    for line in """\
captain captains Kapitän m Kapitäne person
teacher teachers Lehrerin f Lehrerinnen person
sister sisters Schwester f Schwestern person
brother brothers Bruder m Brüder person
child children Kind n Kinder person
woman women Frau f Frauen person
man men Mann m Männer person
baker bakers Bäcker m Bäcker person
neighbour neighbours Nachbarin f Nachbarinnen person
girl girls Mädchen n Mädchen person
fisherman fishermen Fischer m Fischer person
doctor doctors Ärztin f Ärztinnen person
ship ships Schiff n Schiffe thing machine
boat boats Boot n Boote thing machine
letter letters Brief m Briefe thing text light closed
book books Buch n Bücher thing text light closed
map maps Karte f Karten thing text light
watch watches Armbanduhr f Armbanduhren thing machine light
clock clocks Uhr f Uhren thing machine sound
lamp lamps Lampe f Lampen thing machine light glow
light lights Licht n Lichter thing glow
wheel wheels Rad n Räder thing machine light
bell bells Glocke f Glocken thing machine sound
drum drums Trommel f Trommeln thing sound light
key keys Schlüssel m Schlüssel thing light
can cans Dose f Dosen thing light closed
fish fish Fisch m Fische thing light
apple apples Apfel m Äpfel thing light
picture pictures Bild n Bilder thing light
hat hats Hut m Hüte thing light
basket baskets Korb m Körbe thing light closed
umbrella umbrellas Schirm m Schirme thing light closed
door doors Tür f Türen thing machine closed
window windows Fenster n Fenster thing machine closed
""".splitlines()
)

# English | prefix, infinitive, ich, du, er, participle, auxiliary | frame, kinds of the last object
VERBS = tuple(
    _verb(line)
    for line in """\
see sees saw | - sehen sehe siehst sieht gesehen haben | acc person thing
hear hears heard | - hören höre hörst hört gehört haben | acc person sound
watch watches watched | - beobachten beobachte beobachtest beobachtet beobachtet haben | acc person
find finds found | - finden finde findest findet gefunden haben | acc person thing
know knows knew | - kennen kenne kennst kennt gekannt haben | acc person
buy buys bought | - kaufen kaufe kaufst kauft gekauft haben | acc thing
sell sells sold | - verkaufen verkaufe verkaufst verkauft verkauft haben | acc thing
repair repairs repaired | - reparieren repariere reparierst repariert repariert haben | acc machine
read reads read | - lesen lese liest liest gelesen haben | acc text
carry carries carried | - tragen trage trägst trägt getragen haben | acc light
draw draws drew | - zeichnen zeichne zeichnest zeichnet gezeichnet haben | acc person thing
admire admires admired | - bewundern bewundere bewunderst bewundert bewundert haben | acc thing
take takes took | - nehmen nehme nimmst nimmt genommen haben | acc light
call calls called | an rufen rufe rufst ruft angerufen haben | acc person
pick_up picks_up picked_up | ab holen hole holst holt abgeholt haben | acc person text
turn_off turns_off turned_off | aus machen mache machst macht ausgemacht haben | acc glow
open opens opened | auf machen mache machst macht aufgemacht haben | acc closed
close closes closed | zu machen mache machst macht zugemacht haben | acc closed
help helps helped | - helfen helfe hilfst hilft geholfen haben | dat person
thank thanks thanked | - danken danke dankst dankt gedankt haben | dat person
answer answers answered | - antworten antworte antwortest antwortet geantwortet haben | dat person
follow follows followed | - folgen folge folgst folgt gefolgt sein | dat person
give gives gave | - geben gebe gibst gibt gegeben haben | dat+acc light
show shows showed | - zeigen zeige zeigst zeigt gezeigt haben | dat+acc thing
send sends sent | - schicken schicke schickst schickt geschickt haben | dat+acc light
lend lends lent | - leihen leihe leihst leiht geliehen haben | dat+acc light
sleep sleeps slept | - schlafen schlafe schläfst schläft geschlafen haben | none
work works worked | - arbeiten arbeite arbeitest arbeitet gearbeitet haben | none
laugh laughs laughed | - lachen lache lachst lacht gelacht haben | none
sing sings sang | - singen singe singst singt gesungen haben | none
wait waits waited | - warten warte wartest wartet gewartet haben | none
dance dances danced | - tanzen tanze tanzt tanzt getanzt haben | none
fish fishes fished | - angeln angle angelst angelt geangelt haben | none
stay stays stayed | - bleiben bleibe bleibst bleibt geblieben sein | none
""".splitlines()
)

# These take a clause with "that".
SAYING = tuple(
    _verb(line)
    for line in """\
know knows knew | - wissen weiß weißt weiß gewusst haben | clause
say says said | - sagen sage sagst sagt gesagt haben | clause
think thinks thought | - glauben glaube glaubst glaubt geglaubt haben | clause
""".splitlines()
)

NAMES = ("Anna", "Karl", "Zoë", "Emil", "Märta", "Jonas", "Ingrid", "Paul")

# kind of noun -> (English, German)
ADJECTIVES = {
    "person": (
        ("old", "alt"), ("young", "jung"), ("tall", "groß"), ("small", "klein"),
        ("clever", "klug"), ("tired", "müde"), ("happy", "glücklich"), ("friendly", "freundlich"),
    ),
    "thing": (
        ("old", "alt"), ("new", "neu"), ("small", "klein"), ("big", "groß"), ("red", "rot"),
        ("blue", "blau"), ("heavy", "schwer"), ("light", "leicht"), ("beautiful", "schön"),
    ),
}  # fmt: skip

# agreement -> English subject, object; German nominative, accusative, dative
PRONOUNS = {
    "1s": ("I", "me", "ich", "mich", "mir"),
    "2s": ("you", "you", "du", "dich", "dir"),
    "3m": ("he", "him", "er", "ihn", "ihm"),
    "3f": ("she", "her", "sie", "sie", "ihr"),
    "1p": ("we", "us", "wir", "uns", "uns"),
    "3p": ("they", "them", "sie", "sie", "ihnen"),
}

# English words with their universal tags, and the German phrase.
PLACES = (
    ("in/ADP the/DET harbour/NOUN", "im Hafen"),
    ("in/ADP the/DET garden/NOUN", "im Garten"),
    ("in/ADP the/DET kitchen/NOUN", "in der Küche"),
    ("in/ADP the/DET light/NOUN", "im Licht"),
    ("on/ADP the/DET island/NOUN", "auf der Insel"),
    ("on/ADP the/DET roof/NOUN", "auf dem Dach"),
    ("at/ADP the/DET window/NOUN", "am Fenster"),
    ("behind/ADP the/DET house/NOUN", "hinter dem Haus"),
    ("beside/ADP the/DET river/NOUN", "neben dem Fluss"),
    ("under/ADP the/DET bridge/NOUN", "unter der Brücke"),
)

# The same, and the tenses that it goes with.
TIMES = (
    ("today/NOUN", "heute", ("present", "past", "future", "can", "must", "want")),
    ("yesterday/NOUN", "gestern", ("past",)),
    ("tomorrow/NOUN", "morgen", ("future", "can", "must", "want")),
    ("now/ADV", "jetzt", ("present", "can", "must", "want")),
    ("often/ADV", "oft", ("present", "past", "can", "must")),
    ("every/DET day/NOUN", "jeden Tag", ("present", "past", "can", "must", "want")),
)

# from zero to nineteen, then the tens from twenty
_ENGLISH_NUMBERS = """\
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"""
_GERMAN_NUMBERS = """\
null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn
sechzehn siebzehn achtzehn neunzehn zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig
neunzig"""


def english_number(number: int) -> str:
    """From 0 to 99: ``twenty-three``."""
    words = _ENGLISH_NUMBERS.split()
    if number < 20:
        return words[number]
    tens, ones = words[18 + number // 10], number % 10
    return f"{tens}-{words[ones]}" if ones else tens


def german_number(number: int) -> str:
    """From 0 to 99; the ones come first: ``dreiundzwanzig``."""
    words = _GERMAN_NUMBERS.split()
    if number < 20:
        return words[number]
    tens, ones = words[18 + number // 10], number % 10
    return f"{'ein' if ones == 1 else words[ones]}und{tens}" if ones else tens
