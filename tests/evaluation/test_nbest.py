"""N-best lists: read, rescored, written, the best of each id kept."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from rnncli.errors import DataError, UsageError
from rnncli.evaluation.nbest import (
    BestOfEach,
    BySource,
    ByText,
    NoSource,
    Rescored,
    Rescorer,
    parse,
)


def lengths(texts: Sequence[str]) -> list[Any]:
    """A scorer for which a text costs one nat a character."""
    return [SimpleNamespace(total_nats=float(len(text))) for text in texts]


BY_TEXT = ByText(lengths)  # type: ignore[arg-type]


def lines(given: list[str], weight: float = 0.25, **options: Any) -> list[str]:
    rescorer = Rescorer(BY_TEXT, weight=weight, **options)
    results = rescorer(given)
    assert all(isinstance(one, Rescored) for one in results)
    return [one.line for one in results if isinstance(one, Rescored)]


def test_moses():
    assert lines([
        "0 ||| das haus ||| LM0= -3.5 TM= -1 -2 ||| -4.0 ||| 0-0 1-1",
        "0 ||| das ||| LM0= -1 ||| -4",
        "a7 ||| x |||  ||| 2",
        "8 ||| no score",
        "8 ||| only ||| -1e1",
        "9 ||| features ||| LM0= -1",
        "9 |||  ||| ||| -2",
    ]) == [
        "0 ||| das haus ||| LM0= -3.5 TM= -1 -2 rnncli= -8.0000 ||| -5.0000 ||| 0-0 1-1",
        "0 ||| das ||| LM0= -1 rnncli= -3.0000 ||| -3.7500",
        "a7 ||| x ||| rnncli= -1.0000 ||| 1.2500",
        "8 ||| no score ||| rnncli= -8.0000 ||| -8.0000",
        "8 ||| only ||| rnncli= -4.0000 ||| -8.5000",
        "9 ||| features ||| LM0= -1 rnncli= -8.0000 ||| -8.0000",
        "9 |||  ||| rnncli= 0.0000 ||| -1.5000",
    ]  # fmt: skip


def test_tabs():
    assert lines(["0\tdas haus\t-4.0", "0\tdas", "x y\t\t0\tmore\tcolumns"]) == [
        "0\tdas haus\t-5.0000\t-8.0000",
        "0\tdas\t-3.0000\t-3.0000",
        "x y\t\t0.0000\tmore\tcolumns\t0.0000",
    ]


def test_weights_and_bases():
    assert lines(["0\tabcd\t-10"], weight=0.0) == ["0\tabcd\t-10.0000\t-4.0000"]
    assert lines(["0\tabcd\t-10"], weight=1.0) == ["0\tabcd\t-4.0000\t-4.0000"]
    assert lines(["0\tabcd\t-10"], weight=0.5, unit=2.0) == ["0\tabcd\t-6.0000\t-2.0000"]


def test_the_first_line_that_is_not_blank_decides_the_format():
    rescorer = Rescorer(BY_TEXT, weight=0.5)
    assert [type(one) for one in rescorer(["", "0 ||| a\tb"])] == [DataError, Rescored]
    assert [type(one) for one in rescorer(["0\tno bars", "0 ||| a"])] == [DataError, Rescored]
    assert lines(["0\ta ||| b"]) == ["0\ta ||| b\t-7.0000\t-7.0000"]


def test_the_id_names_the_line_of_the_source():
    seen = []

    def scorer(pairs: Sequence[tuple[str, str]]) -> list[Any]:
        seen.extend(pairs)
        return lengths([target for _, target in pairs])

    by = BySource(scorer, ["eins", "zwei"], "s.txt")  # type: ignore[arg-type]
    given = ["1\tabc\t-1", "no entry", "2\tab", "0\ta", "-1\ta", "x\ta", "01\tabcd"]
    results = Rescorer(by, weight=1.0)(given)
    assert seen == [("zwei", "abc"), ("eins", "a"), ("zwei", "abcd")]
    kinds = [Rescored, DataError, NoSource, Rescored, NoSource, NoSource, Rescored]
    assert [type(one) for one in results] == kinds
    assert [one.score for one in results if isinstance(one, Rescored)] == [-3.0, -1.0, -4.0]
    assert str(results[2]) == "id '2' names no line of the source s.txt; its lines are 0 to 1"
    (nothing,) = Rescorer(BySource(scorer, [], "s"), weight=1.0)(["0\ta"])  # type: ignore[arg-type]
    assert str(nothing).endswith("it is empty")
    (large,) = Rescorer(by, weight=1.0)(["1" * 5000 + "\ta"])
    assert isinstance(large, NoSource)


@pytest.mark.parametrize(
    ("line", "format", "message"),
    [
        ("0", "moses", r"expected 'id \|\|\| text', got '0'"),
        ("0 a b", "tsv", "expected 'id TAB text'"),
        ("0 ||| a ||| f= 1 ||| good", "moses", "must be a number, not 'good'"),
        ("0\ta\tnan", "tsv", "must be a number, not 'nan'"),
    ],
)
def test_what_is_no_entry(line: str, format: str, message: str):
    with pytest.raises(DataError, match=message):
        parse(line, format)


def test_unknown_values():
    with pytest.raises(UsageError, match="--format: unknown value 'mooses'; did you mean 'moses'"):
        Rescorer(BY_TEXT, weight=0.5, format="mooses")
    with pytest.raises(UsageError, match="--weight 2"):
        Rescorer(BY_TEXT, weight=2.0)


def test_the_best_of_each_id():
    keep = BestOfEach()
    assert keep.finish() == []
    out = []
    for id, score, line in [
        ("1", -3.0, "a"), ("1", -2.0, "b"), ("1", -2.0, "c"), ("0", -9.0, "d"), ("2", 1.0, "e"),
    ]:  # fmt: skip
        out += keep.push(Rescored(id, score, line))
    assert [*out, *keep.finish()] == ["b", "d", "e"]
    with pytest.raises(DataError, match="id '1' comes back after another one"):
        keep.push(Rescored("1", 0.0, "f"))


def test_a_bar_that_is_text_is_scored_as_one_and_written_as_it_came() -> None:
    line = "0 ||| a &#124;&#124;&#124; b ||| lm= -1 ||| -2"
    assert parse(line, "moses").text == "a ||| b"
    assert parse("0 |||  a\u3000 ||| -2", "moses").text == " a\u3000"
    assert lines([line]) == ["0 ||| a &#124;&#124;&#124; b ||| lm= -1 rnncli= -7.0000 ||| -3.2500"]
