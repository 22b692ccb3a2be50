"""Which module may import which: the order of the rooms, read off the syntax trees."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT, cli_env

# A module imports from its own room and from rooms of lower levels. Rooms of one level never meet.
LEVELS = (
    ("errors",),
    ("cell_table", "checks"),
    ("model_section",),
    ("sections",),
    ("heeded",),
    ("config",),
    ("files", "runtime"),
    ("text", "nn", "metrics", "container", "zoo"),
    ("models",),
    ("checkpoint", "decoding"),
    ("loading",),
    ("translation", "averaging"),
    ("evaluation", "generation"),
    ("training",),
    ("api",),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

# Rooms that do without these packages, and those that import them inside functions only.
ROOMS = set(LEVEL)
NEVER = {
    "torch": {
        "errors",
        "cell_table",
        "checks",
        "model_section",
        "sections",
        "heeded",
        "config",
        "files",
        "text",
        "metrics",
        "container",
        "zoo",
    },
    "sentencepiece": ROOMS - {"text"},
    "typer": ROOMS - {"cli"},
    "rich": ROOMS - {"cli"},
}
NOT_AT_THE_TOP = {"torch": {"checkpoint", "cli"}, "rich": {"cli"}}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Each module of the package with a room: its dotted name below rnncli, and its tree."""
    for path in sorted((ROOT / "rnncli").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "rnncli").with_suffix("").parts)
        if name not in ("__init__", "__main__"):
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST, *, top: bool = False) -> Iterator[tuple[str, int]]:
    """Full dotted names that are imported, with their lines; with ``top`` when the module is."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif not (top and waits(node)):
            yield from imports(node, top=top)


def waits(node: ast.AST) -> bool:
    """Whether ``node`` is not run when its module is imported."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))


def wrong_directions(name: str, tree: ast.Module) -> Iterator[str]:
    room = name.partition(".")[0]
    for imported, line in imports(tree):
        package, _, rest = imported.partition(".")
        target = rest.partition(".")[0]
        if package != "rnncli" or target in ("__version__", room):
            continue
        if LEVEL.get(target, 99) >= LEVEL[room]:
            yield f"{name}:{line} imports {imported}"


def test_rooms_import_downwards_only():
    found = dict(modules())
    assert {name.partition(".")[0] for name in found} <= LEVEL.keys(), "a room without a level"
    assert [wrong for name, tree in found.items() for wrong in wrong_directions(name, tree)] == []


@pytest.mark.parametrize(
    ("name", "source", "wrong"),
    [
        ("text.word", "from rnncli.nn.stack import Stack", True),
        ("nn.stack", "import rnncli.text.word", True),
        ("nn.stack", "def f():\n    from rnncli.text import word", True),
        ("nn.stack", "from rnncli import text", True),
        ("errors", "from rnncli.config import Config", True),
        ("models.lm", "from rnncli import cli", True),
        ("nn.stack", "from rnncli.nn.cells import base", False),
        ("cli.info", "from rnncli.checkpoint import Header", False),
        ("cli", "from rnncli import __version__", False),
        ("text.word", "import numpy", False),
    ],
)
def test_the_rule_itself(name, source, wrong):
    assert bool(list(wrong_directions(name, ast.parse(source)))) == wrong


def test_packages_stay_in_their_rooms():
    wrong = []
    for name, tree in modules():
        room = name.partition(".")[0]
        for rule, top in ((NEVER, False), (NOT_AT_THE_TOP, True)):
            for imported, line in imports(tree, top=top):
                if room in rule.get(imported.partition(".")[0], ()):
                    wrong.append(f"{name}:{line} imports {imported}")
    assert wrong == []


def loaded_after(code: str, folder: Path) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded after ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"],
        env=cli_env(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return {name.partition(".")[0] for name in done.stderr.split()}


def test_importing_is_light(tmp_path):
    heavy = {"torch", "numpy", "sentencepiece", "typer", "rich", "safetensors"}
    loaded = loaded_after("import rnncli, rnncli.cli, rnncli.checkpoint, rnncli.metrics", tmp_path)
    assert "rnncli" in loaded
    assert not loaded & heavy


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["tokenize", "encode", "x.tok", "x.txt"], ["tokenize", "decode", "--help"]],
)
def test_commands_without_torch(arguments, tmp_path):
    from rnncli.checkpoint import write_tokenizer
    from rnncli.sections import TokenizerConfig
    from rnncli.text.tokenizers import train_tokenizer

    tokenizer = train_tokenizer(TokenizerConfig("bpe", vocab_size=300), ["some words"] * 20)
    write_tokenizer(tmp_path / "x.tok", tokenizer)
    (tmp_path / "x.txt").write_text("some words\n")
    code = f"""
from rnncli.cli import main
sys.argv = ["rnncli", *{arguments!r}]
try:
    main()
except SystemExit as exit:
    assert not exit.code
"""
    assert not loaded_after(code, tmp_path) & {"torch", "numpy", "safetensors"}
