"""``rnncli gradients``: text, JSON and SVG."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rnncli.cli.console import print_columns, printable
from rnncli.cli.gradients import BAR_WIDTH, _training_lines, _verdict, bar, peaks
from rnncli.cli.svg import Line, Panel, draw
from rnncli.errors import FileError, UsageError
from rnncli.evaluation.gradients import Curve, TrainingNorms, look_into
from rnncli.evaluation.subjects import Reading, open_subject
from tests.cli.in_process import Run, in_process
from tests.helpers import tiny_model
from tests.training.runs import run as train
from tests.training.runs import tiny_config, write_text

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def rnncli(capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    yield from in_process("gradients", capfd)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its metrics, and its text."""
    folder = tmp_path_factory.mktemp("gradients")
    text = write_text(folder / "text.txt")
    config = tiny_config(text, model__cell="elman", model__layers=2, optimizer__clip_norm=0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rnncli.training.loop.REPORT_SECONDS", 0.0)
        train(config, folder / "run")
    return folder


def test_json_has_every_number(folder, rnncli):
    out = rnncli(folder / "run", folder / "text.txt", "--steps", 15, "--windows", 3, "--json")
    assert out.count("\n") == 1
    found = json.loads(out)
    assert set(found) == {"model", "task", "trained", "source", "steps", "layers", "training"}
    assert (found["task"], found["trained"], found["steps"]) == ("lm", True, 15)
    assert len(found["layers"]) == 2
    for layer in found["layers"]:
        assert set(layer) == {
            "layer", "direction", "cell", "units", "state", "gradient", "gradient_factor",
            "jacobians", "matrices", "saturation",
        }  # fmt: skip
        assert set(layer["gradient"]) == {"lags", "low", "median", "high"}
        assert [len(values) for values in layer["gradient"].values()] == [15] * 4
        assert set(layer["jacobians"]) == {
            "norm", "bound_of_steps", "bound_of_weights", "exact", "windows",
        }  # fmt: skip
        (matrix,) = layer["matrices"]
        assert (matrix["name"], len(matrix["singular_values"])) == ("W_hh", 8)
        assert [s["name"] for s in layer["saturation"]] == ["h"]
    training = found["training"]
    assert set(training) == {
        "steps", "norms", "largest", "counted_steps", "clipped_steps", "clip_norm",
    }  # fmt: skip
    assert training["counted_steps"] == len(training["steps"]) == len(training["norms"]) > 20
    assert training["largest"] == training["norms"], "a report for every step"
    assert training["clipped_steps"] == sum(norm > 0.3 for norm in training["norms"])
    assert training["clip_norm"] == 0.3


def test_plain_text(folder, rnncli):
    out = rnncli(folder / "run", folder / "text.txt", "--steps", 15)
    assert "\x1b" not in out
    first, *lines = out.splitlines()
    assert first.startswith(f"{folder / 'run'}: ")
    assert first.endswith(f"windows of 15 tokens of {folder / 'text.txt'}")
    assert "layer 1, Elman, 8 units, forward" in lines
    assert "layer 2, Elman, 8 units, forward" in lines
    rows = [line.split() for line in lines if re.match(r"\d+ +\d", line)]
    assert [int(row[0]) for row in rows[: len(rows) // 2]] == [0, 1, 2, 3, 5, 7, 10, 14]
    for row in rows:
        assert float(row[2]) <= 1.1 * float(row[3])
        assert "█" in row[5]
    assert re.search(r"multiplied by [\d.]+ with every step further back: it halves in", out)
    assert re.search(r"^W_hh +8 x 8 +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+$", out, re.M)
    assert re.search(r"^h +[\d.]+ % +[\d.]+ %$", out, re.M)
    assert re.search(
        r"^largest gradient norms in training, to step \d+: [▁-█]{20,40}\n"
        r"  of \d+ steps: largest [\d.]+, \d+ % above clip_norm 0.3; "
        r"median [\d.]+$", out, re.M,
    )  # fmt: skip
    assert rnncli.err == ""


def test_a_model_of_gates_without_a_text(tmp_path, rnncli):
    path = tiny_model(tmp_path, cell="lstm", layers=1, hidden_size=6)
    out = rnncli(path, "--steps", 5)
    assert "h below is the whole state: h, c" in out
    assert "W_hh forget" in out
    assert re.search(r"^forget +[\d.]+ % +[\d.]+ %$", out, re.M)
    assert "by W_hh" not in out
    assert "in training" not in out
    assert f"{path} reads 16 windows of 5 tokens drawn at random" in rnncli.err


def test_training_is_told_by_all_of_its_steps():
    """The curve shows each peak, and shares are of the steps, not of the reports."""
    largest = [1.0] * 100
    largest[37] = 50.0
    norms = TrainingNorms(list(range(10, 1010, 10)), [0.5] * 100, largest, 1000, 20, 0.9)
    curve, numbers = _training_lines(norms)
    assert curve.endswith(f"to step 1,000: {'▁' * 15}█{'▁' * 24}")
    assert numbers == (
        "  of 1,000 steps: largest 50, 2 % above clip_norm 0.9; median 0.5 of 100 recorded"
    )
    _, numbers = _training_lines(replace(norms, clip_norm=0.0))
    assert "clip_norm" not in numbers
    assert peaks([3.0, 1.0, 2.0], 40) == [3.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("model", "rows"),
    [
        ({"cell": "elman", "nonlinearity": "relu"}, [r"h +[\d.]+ % +-"]),
        ({"cell": "mingru"}, [r"forget +[\d.]+ % +[\d.]+ %"]),
        (
            {"cell": "sru", "recurrent_vectors": True},
            [r"forget +[\d.]+ % +[\d.]+ %", r"reset +[\d.]+ % +[\d.]+ %"],
        ),
        ({"cell": "dt-rnn", "nonlinearity": "maxout"}, []),
    ],
)
def test_saturation_of_what_has_ends(model, rows, rnncli, tmp_path):
    path = tiny_model(tmp_path, layers=1, hidden_size=6, **model)
    _, found, after = rnncli(path, "--steps", 5).partition("saturated")
    assert bool(found) == bool(rows)
    lines = after.splitlines()[1:]
    assert len(lines) == len(rows)
    assert all(re.fullmatch(row, line) for row, line in zip(rows, lines, strict=True))


def test_layers_that_read_backward_have_no_jacobians(rnncli, tmp_path):
    order = (
        'task = "synthetic:order"\n[training]\nstate = "reset"\nbptt = 0\n[synthetic]\nlag = 12\n'
        '[model]\nlayers = 1\nhidden_size = 4\ndirection = "{}"\n'
    )
    for direction, jacobians in (("bidirectional", 1), ("backward", 0)):
        config, picture = tmp_path / "order.toml", tmp_path / "order.svg"
        config.write_text(order.format(direction))
        out = rnncli(config, "--windows", 2, "--svg", picture)
        assert out.count("|dL(t)/dh(k)|") == jacobians + 1
        assert out.count("|dh(t)/dh(k)|") == out.count("bound") == jacobians
        assert out.count("read backward: h(t) is the first state") == 1
        assert picture.read_text().count("and its bounds") == jacobians
        found = json.loads(rnncli(config, "--windows", 2, "--json"))["layers"]
        assert [layer["jacobians"] is None for layer in found] == [False] * jacobians + [True]


def test_svg(folder, rnncli, tmp_path):
    picture = tmp_path / "picture.svg"
    rnncli(folder / "run", folder / "text.txt", "--steps", 15, "--svg", picture, "--json")
    root = ElementTree.parse(picture).getroot()
    assert root.tag == f"{SVG}svg"
    texts = [element.text for element in root.iter(f"{SVG}text")]
    for wanted in ("t - k", "layer 1", "layer 2", "by W_hh", "1: W_hh", "step", "norm"):
        assert wanted in texts, wanted
    lines = list(root.iter(f"{SVG}polyline"))
    assert len(lines) == 2 + 6 + 2 + 1
    width, height = float(root.get("width")), 260
    for line in lines:
        for point in line.get("points").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert -1 <= y <= height + 1
    assert len(lines[0].get("points").split()) == 15


def test_pictures_of_odd_numbers():
    """Nothing, one point, what a logarithm has no place for, signs that XML takes for its own."""
    lines = [
        Line("<&>", [(1.0, 0.0), (2.0, float("inf")), (3.0, float("nan")), (4.0, 1e-5)]),
        Line("empty", []),
        Line("flat", [(1.0, 2.0), (2.0, 2.0)], band=[(1.0, 0.0, 3.0), (2.0, 1.0, 3.0)]),
        Line("wide", [(1.0, 2.0)], band=[(k, 1.0, 3.0 if k else float("inf")) for k in range(3)]),
    ]
    for log in (True, False):
        root = ElementTree.fromstring(draw('a "title" & more', [Panel("p < q", "x", lines, log)]))
        assert root.find(f"{SVG}title").text == 'a "title" & more'
        points = [line.get("points") for line in root.iter(f"{SVG}polyline")]
        bands = [band.get("points") for band in root.iter(f"{SVG}polygon")]
        assert not any("nan" in p or "inf" in p for p in points + bands)
        assert points[0].count(",") == (1 if log else 2)
    ElementTree.fromstring(draw("none", [Panel("p", "x", [], log=True)]))


def test_bars():
    assert bar(1.0, 1.0) == "█" * BAR_WIDTH
    assert bar(1e-4, 1.0) == "█" * (BAR_WIDTH // 2) + "·" * (BAR_WIDTH // 2)
    assert bar(1e-9, 1.0) == bar(0.0, 1.0) == bar(float("nan"), 1.0) == "·" * BAR_WIDTH
    lengths = [len(bar(10.0**-k, 1.0).rstrip("·")) for k in range(9)]
    assert lengths == sorted(lengths, reverse=True)


def test_what_would_not_be_heeded(folder, rnncli, tmp_path):
    with pytest.raises(UsageError, match="--seed: with a text nothing is drawn"):
        rnncli(folder / "run", folder / "text.txt", "--seed", 3)
    (tmp_path / "order.toml").write_text(
        'task = "synthetic:order"\n[model]\nlayers = 1\nhidden_size = 4\n'
        '[training]\nstate = "reset"\nbptt = 0\n[synthetic]\nlag = 12\n'
    )
    with pytest.raises(UsageError, match=r"--steps: .*synthetic\.lag = 12 makes them"):
        rnncli(tmp_path / "order.toml", "--steps", 30)
    first, other = (
        rnncli(tmp_path / "order.toml", "--windows", 2, "--seed", seed, "--json") for seed in (1, 2)
    )
    assert first == rnncli(tmp_path / "order.toml", "--windows", 2, "--json") != other


def test_a_wrong_name(rnncli):
    with pytest.raises(Exception, match="did you mean 'char-rnn'") as error:
        rnncli("char-rn")
    assert not isinstance(error.value, UsageError)


def test_what_a_terminal_obeys_and_what_it_shows():
    """Spaces and joiners of other scripts are characters like any other."""
    shown = "a\u00a0b\u3000c\u200dd\u00ade"
    assert printable(shown) == shown
    assert printable("a\x1b[31m\u202eb\u2028") == "a\\x1b[31m\\x202eb\\x2028"


def test_a_terminal_that_is_too_narrow_loses_no_digit(monkeypatch, capsys):
    """rich would cut cells that do not fit in the middle of a number."""
    names, rows = ["t-k", "|dL(t)/dh(k)|", "bound"], [["100", "1.0e-12", "1.0e+99"]]
    monkeypatch.setattr("rnncli.cli.console.is_terminal", lambda stream: True)
    for width, lines_between in ((80, True), (33, True), (32, False), (20, False)):
        monkeypatch.setenv("COLUMNS", str(width))
        print_columns(names, rows)
        out = capsys.readouterr().out
        assert all(cell in out for cell in (*names, *rows[0]))
        assert ("│" in out) == lines_between


@pytest.mark.parametrize(
    ("factor", "median", "said"),
    [
        (0.5, [1.0, 0.5, 0.25], "multiplied by 0.500 with every step further back: it halves"),
        (math.inf, [1.0, 1e300, math.inf], "explodes: 2 steps back it is no number any more"),
        (math.nan, [1.0, 0.0, 0.0], "does not reach back"),
        (math.nan, [1.0, 0.5], "too few steps to tell"),
    ],
)
def test_what_is_said_of_a_gradient(folder, factor, median, said):
    layer = look_into(open_subject(str(folder / "run"), None, Reading(5, 1, 1))).layers[0]
    curve = Curve(list(range(len(median))), median, median, median)
    assert said in _verdict(replace(layer, gradient=curve, gradient_factor=factor))


def test_a_picture_instead_of_the_report_or_none_at_all(folder, rnncli, tmp_path):
    """A path is looked at before the work, which takes a while."""
    out = rnncli(folder / "run", "--steps", 5, "--svg", "-")
    assert ElementTree.fromstring(out).tag == f"{SVG}svg"
    with pytest.raises(UsageError, match="standard output takes the picture or JSON"):
        rnncli(folder / "run", "--steps", 5, "--svg", "-", "--json")
    with pytest.raises(FileError, match=r"cannot write .*none/g\.svg: No such file"):
        rnncli(folder / "run", "--steps", 5, "--svg", tmp_path / "none" / "g.svg")
