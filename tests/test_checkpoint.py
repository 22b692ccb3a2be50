import contextlib
import json
import os
import pickle
import random
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rnncli import __version__, container
from rnncli.checkpoint import (
    read_header,
    read_model,
    read_tokenizer,
    read_training_state,
    resolve_model,
    write_model,
    write_tokenizer,
    write_training_state,
)
from rnncli.config import Config
from rnncli.errors import FileError, ModelError, RnncliError
from rnncli.sections import ModelConfig, TokenizerConfig
from rnncli.text.tokenizers import Tokenizer, train_tokenizer

CONFIG = Config(seed=7, model=ModelConfig(hidden_size=8, embedding_size=8))
SCORES = {"valid_nats": 1.25, "step": 12, "state": "carried", "worst": float("inf")}
PROVENANCE = {"train": [{"file": "b\u00fcch.txt", "sha256": "ab" * 32}], "torch": "2"}


def word_tokenizer() -> Tokenizer:
    return train_tokenizer(TokenizerConfig(kind="word"), ["a b c", "b c \u00e9t\u00e9"])


def some_weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "embedding.weight": torch.randn(6, 8),
        "cell.bias": torch.randn(8).double(),
        "half": torch.randn(3, 5).bfloat16(),
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 4),
        "mask": torch.tensor([True, False, True]),
        "bytes": torch.arange(5, dtype=torch.uint8),
    }


def write(path: Path, **changes: object) -> Path:
    values = {
        "config": CONFIG,
        "tokenizer": word_tokenizer(),
        "weights": some_weights(),
        "scores": SCORES,
        "provenance": PROVENANCE,
    }
    write_model(path, **{**values, **changes})  # type: ignore[arg-type]
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "model.safetensors")


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name])
        for name in left
    )


def test_a_model_comes_back(model):
    saved = read_model(model)
    assert same(saved.weights, some_weights())
    assert saved.config == CONFIG
    assert saved.tokenizer.encode("b c x") == word_tokenizer().encode("b c x")
    assert saved.header == read_header(model.parent)
    header = saved.header
    assert header.scores == SCORES
    assert header.provenance == PROVENANCE
    assert Config.from_dict(header.config) == CONFIG
    assert (header.format, header.rnncli_version) == (1, __version__)
    assert (header.tokenizer_kind, header.vocab_size) == ("word", word_tokenizer().vocab_size)
    assert header.tensors["half"] == ("BF16", (3, 5))
    assert header.parameters == sum(tensor.numel() for tensor in some_weights().values())
    assert header.bytes == model.stat().st_size


def test_other_programs_read_it(model):
    with safe_open(model, "pt") as file:
        names = set(file.keys())
        assert names == {*some_weights(), "tokenizer"}
        assert same({n: file.get_tensor(n) for n in names - {"tokenizer"}}, some_weights())
        assert json.loads(file.metadata()["rnncli"])["kind"] == "model"


def test_equal_contents_make_equal_bytes(model, tmp_path):
    backwards = dict(reversed(some_weights().items()))
    backwards["embedding.weight"] = backwards["embedding.weight"].t().contiguous().t()
    backwards["half"].requires_grad_(True)
    other = write(tmp_path / "other", weights=backwards)
    assert other.read_bytes() == model.read_bytes()


def test_weights_digest_tells_weights_alone(model, tmp_path):
    digest = read_header(model).weights_sha256
    other = write(
        tmp_path / "a",
        config=replace(CONFIG, seed=8),
        scores={},
        tokenizer=train_tokenizer(TokenizerConfig(kind="byte"), []),
    )
    assert read_header(other).weights_sha256 == digest
    for name, changed in [
        ("scalar", torch.tensor(4)),
        ("scalar", torch.tensor([3])),
        ("mask", torch.tensor([1, 0, 1], dtype=torch.uint8)),
    ]:
        other = write(tmp_path / "b", weights={**some_weights(), name: changed})
        assert read_header(other).weights_sha256 != digest


def test_training_state_comes_back(tmp_path):
    path = tmp_path / "training.safetensors"
    values = {"step": 2**60, "best": float("inf"), "lr": 0.1, "history": [[1, 2.5], None]}
    write_training_state(path, tensors=some_weights(), values=values)
    tensors, found = read_training_state(path)
    assert same(tensors, some_weights())
    assert found == values
    tensors["scalar"] += 1  # its memory is its own
    with pytest.raises(ModelError, match=r"holds the state of a training run .*expected a model"):
        read_model(path)
    with pytest.raises(ModelError, match="holds the state"):
        read_tokenizer(path)


@pytest.mark.parametrize("kind", ["byte", "char", "word", "bpe", "unigram"])
def test_every_tokenizer_comes_back(kind, tmp_path):
    size = 300 if kind in ("bpe", "unigram") else 0
    lines = ["a few words, and then some more words"] * 20
    tokenizer = train_tokenizer(TokenizerConfig(kind=kind, vocab_size=size), lines)
    write_tokenizer(tmp_path / "x.tok", tokenizer)
    write(tmp_path / "model", tokenizer=tokenizer)
    for path in (tmp_path / "x.tok", tmp_path / "model"):
        back = read_tokenizer(path)
        assert back.fingerprint == tokenizer.fingerprint
        assert back.encode("some words?") == tokenizer.encode("some words?")
    with pytest.raises(ModelError, match="holds a tokenizer by itself; expected a model"):
        read_header(tmp_path / "x.tok")


def test_what_cannot_be_stored():
    with pytest.raises(ValueError, match=r"'x' of torch\.complex64"):
        write(Path("/nowhere"), weights={"x": torch.zeros(1, dtype=torch.complex64)})
    with pytest.raises(ValueError, match="'tokenizer'"):
        write(Path("/nowhere"), weights={"tokenizer": torch.zeros(1)})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_from_the_gpu_is_the_same(model, tmp_path):
    weights = {name: tensor.cuda() for name, tensor in some_weights().items()}
    other = write(tmp_path / "other", weights=weights)
    assert other.read_bytes() == model.read_bytes()
    assert read_model(other).weights["half"].device.type == "cpu"


# -- files that are something else ---------------------------------------------------------------


class Bomb:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("the-bomb-went-off",)


def other_files(folder: Path) -> dict[Path, str]:
    """Files that are no model, with what the message must say."""
    contents = {
        "empty": (b"", "is empty"),
        "short": (b"\x10\0\0", "something else, or damaged"),
        "text": (b"It was the best of times", "is a text file"),
        "german": ("Über allen Gipfeln".encode(), "is a text file"),
        "packed.gz": (b"\x1f\x8b\x08\0\0\0\0\0\0\0", "compressed with gzip"),
        "old.pkl": (pickle.dumps(Bomb()), "is a pickle"),
        "protocol2.pkl": (pickle.dumps(Bomb(), protocol=2), "is a pickle"),
        "image.png": (b"\x89PNG\r\n\x1a\n" + bytes(99), "something else, or damaged"),
        "zeros": (bytes(1000), "something else, or damaged"),
        "huge": (b"\xff" * 8 + b"{}", "something else, or damaged"),
        "cut": (b"\xff\0\0\0\0\0\0\0{}", "ends too early"),
    }
    expected = {}
    for name, (data, message) in contents.items():
        (folder / name).write_bytes(data)
        expected[folder / name] = message
    torch.save({"weight": torch.zeros(3), "bomb": Bomb()}, folder / "model.pt")
    expected[folder / "model.pt"] = "is a zip archive, such as torch.save"
    save_file({"weight": torch.zeros(3)}, folder / "foreign.safetensors")
    expected[folder / "foreign.safetensors"] = "not one that rnncli wrote"
    save_file({"weight": torch.zeros(3)}, folder / "noted.safetensors", {"format": "pt"})
    expected[folder / "noted.safetensors"] = "not one that rnncli wrote"
    return expected


def test_other_files_are_told_for_what_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, message in other_files(tmp_path).items():
        for read in (read_header, read_model, read_tokenizer, read_training_state):
            with pytest.raises(ModelError, match=message) as raised:
                read(path)
            assert str(path) in str(raised.value)
    assert not os.path.exists("the-bomb-went-off")


def test_what_is_no_file(tmp_path):
    with pytest.raises(FileError, match=r"there is no model\.safetensors in it; expected"):
        resolve_model(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "model.safetensors").mkdir()
    for path, message in [
        (tmp_path / "missing", "No such file"),
        (tmp_path / "pipe", "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path, "not a regular file"),
    ]:
        for read in (read_header, read_model):
            with pytest.raises(FileError, match=message):
                read(path)


# -- hostile files -------------------------------------------------------------------------------


def parts(data: bytes) -> tuple[dict, dict, bytes]:
    """The header, the object inside its metadata, and the tensors' bytes."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["rnncli"]), data[8 + length :]


def sign(header: dict, metadata: dict, body: bytes) -> None:
    """Make the checksums right: a forgery, not an accident."""
    blobs = [
        container.Blob(
            name, entry["dtype"], tuple(entry["shape"]), body[slice(*entry["data_offsets"])]
        )
        for name, entry in sorted(header.items())
        if name != "__metadata__"
    ]
    weights = [blob for blob in blobs if blob.name != "tokenizer"]
    metadata["weights_sha256"] = container._digest(weights)
    metadata["tokenizer_sha256"] = container._digest(b for b in blobs if b not in weights)
    table = {blob.name: (blob.dtype, blob.shape) for blob in blobs}
    metadata["sha256"] = container._header_digest(metadata, table)


def whole(header: dict | bytes, metadata: object, body: bytes, signed: bool = True) -> bytes:
    """A file of these parts, its checksums right where that can be."""
    if isinstance(header, dict):
        if signed and isinstance(metadata, dict):
            with contextlib.suppress(TypeError, KeyError):
                sign(header, metadata, body)
        text = metadata if isinstance(metadata, str) else json.dumps(metadata)
        header = json.dumps({**header, "__metadata__": {"rnncli": text}}).encode()
    return len(header).to_bytes(8, "little") + header + body


def forgeries(data: bytes) -> dict[str, bytes]:
    """Files whose author knew the format, by what is wrong with them."""
    made: dict[str, bytes] = {}

    def edit(name: str, change: Callable[[dict, dict], None]) -> None:
        header, metadata, body = parts(data)
        change(header, metadata)
        made[name] = whole(header, metadata, body)

    def tensor(name: str, signed: bool = True, **entry: object) -> None:
        header, metadata, body = parts(data)
        header["cell.bias"] |= entry
        made[name] = whole(header, metadata, body, signed)

    edit("unknown config field", lambda h, m: m["config"].update(colour="red"))
    edit("unknown nested field", lambda h, m: m["config"]["model"].update(colour="red"))
    edit("config of a wrong type", lambda h, m: m["config"]["model"].update(layers="two"))
    edit("config out of range", lambda h, m: m["config"]["model"].update(layers=-1))
    edit("config is a list", lambda h, m: m.update(config=[1]))
    edit("section is a list", lambda h, m: m["config"].update(model=[1]))
    edit("no config", lambda h, m: m.pop("config"))
    edit("no scores", lambda h, m: m.pop("scores"))
    edit("no kind", lambda h, m: m.pop("kind"))
    edit("unknown kind", lambda h, m: m.update(kind="virus"))
    edit("unknown tokenizer", lambda h, m: m.update(tokenizer_kind="magic"))
    edit("other tokenizer", lambda h, m: m.update(tokenizer_kind="bpe"))
    edit("format zero", lambda h, m: m.update(format=0))
    edit("format of a wrong type", lambda h, m: m.update(format="1"))
    edit("format true", lambda h, m: m.update(format=True))
    edit("vocabulary of a wrong type", lambda h, m: m.update(vocab_size="many"))
    edit("source vocabulary of a wrong type", lambda h, m: m.update(source_vocab_size=[]))
    edit("no tokenizer", lambda h, m: h.update(tok=h.pop("tokenizer")))
    tensor("unknown dtype", dtype="F8_E4M3")
    tensor("dtype of another size", dtype="F32")
    tensor("dtype of the same size", dtype="I64", signed=False)
    tensor("negative shape", shape=[-8])
    tensor("negative pair", shape=[-2, -4])
    tensor("fractional shape", shape=[8.0])
    tensor("true shape", shape=[True, 8])
    tensor("huge shape", shape=[2**62, 2**62])
    tensor("astronomic shape", shape=[10**4000])
    tensor("huge empty shape", shape=[0, 2**62, 2**62], data_offsets=[0, 0])
    tensor("many dimensions", shape=[1] * 100_000 + [8])
    tensor("many large dimensions", shape=[2**59] * 200_000)
    tensor("another shape", shape=[2, 4], signed=False)
    tensor("backwards offsets", data_offsets=[64, 0])
    tensor("negative offsets", data_offsets=[-64, 0])
    tensor("far offsets", data_offsets=[2**60, 2**60 + 64])
    tensor("three offsets", data_offsets=[0, 32, 64])
    tensor("text offsets", data_offsets=["0", "64"])
    tensor("an extra key", extra=1)
    header, metadata, body = parts(data)
    first, second = header["cell.bias"], header["embedding.weight"]
    overlap = {**header, "embedding.weight": {**second, "data_offsets": [0, 192]}}
    made["overlapping tensors"] = whole(overlap, metadata, body)
    fewer = {name: entry for name, entry in header.items() if entry is not second}
    made["a hole"] = whole(fewer, metadata, body)
    made["a missing tensor"] = whole({**header, "cell.bias": None}, metadata, body)
    made["an added tensor"] = whole({**header, "x": {**first, "shape": [0]}}, metadata, body)
    made["bytes after the end"] = whole(header, metadata, body + b"\0")
    made["another program's keys"] = whole({**header, "__metadata__": 1}, "{}", body)
    for name, text in {
        "nested metadata": "[" * 100_000,
        "nested objects": '{"a":' * 100_000,
        "closed nesting": "[" * 50_000 + "]" * 50_000,
        "metadata a list": "[]",
        "metadata a number": "1" * 10_000,
        "metadata truncated": json.dumps(metadata)[:-1],
        "a name twice": json.dumps(metadata)[:-1] + ', "format": 1}',
        "lone surrogate": json.dumps({**metadata, "provenance": {"\ud800": 1}}),
        "metadata empty": "",
    }.items():
        made[name] = whole(header, text, body)
    for name, raw in {
        "nested header": b'{"a":' + b"[" * 200_000,
        "header not UTF-8": b'{"\xff": 1}',
        "header a list of objects": b"[{}]",
        "header empty": b"{}",
        "header without tensors": b'{"__metadata__":{"rnncli":"{\\"format\\":1}"}}',
        "very many values": b'{"a":[' + b"[]," * 5_000_000 + b"[]]}",
        "very many names": b"{%s}" % b",".join(b'"%d":{}' % n for n in range(200_000)),
        "one long string": b'{"%s":1}' % (b"x" * 15_000_000),
    }.items():
        made[name] = whole(raw, None, body)
    return made


def accidents(data: bytes, count: int) -> dict[str, bytes]:
    """``count`` each of flipped bits, cuts and splices, half of them in the header."""
    made: dict[str, bytes] = {}
    chance = random.Random(1)
    header_end = 8 + int.from_bytes(data[:8], "little")
    for number in range(count):
        limit = header_end if number % 2 else len(data)
        place, bit = chance.randrange(limit), chance.randrange(8)
        flipped = bytearray(data)
        flipped[place] ^= 1 << bit
        made[f"bit {bit} of byte {place}"] = bytes(flipped)
        made[f"cut to {place}"] = data[:place]
        source, length = chance.randrange(len(data)), chance.randrange(1, 64)
        spliced = data[:place] + data[source : source + length] + data[place + length :]
        made[f"{length} bytes of {source} at {place}"] = spliced
        made[f"{length} bytes of {source} put in at {place}"] = (
            data[:place] + data[source : source + length] + data[place:]
        )
        made[f"{length} bytes out at {place}"] = data[:place] + data[place + length :]
    return made


def content(path: Path) -> tuple[object, ...]:
    """Everything a model's file says."""
    saved = read_model(path)
    weights = {name: (t.dtype, t.shape, t.tolist()) for name, t in sorted(saved.weights.items())}
    header = replace(saved.header, bytes=0)
    return repr(header), saved.config, saved.tokenizer.fingerprint, repr(weights)


def examine(path: Path, data: bytes, original: tuple[object, ...]) -> None:
    """Reading ``data`` gives an error of ours or what was written; soon, in little memory."""
    path.write_bytes(data)
    started = time.process_time()
    tracemalloc.reset_peak()
    try:
        assert content(path) == original
    except (ModelError, FileError) as error:
        assert str(path) in str(error)
        assert len(str(error)) < 1000
    assert time.process_time() - started < 5
    # Beside the file, what parsing the largest header may take.
    assert tracemalloc.get_traced_memory()[1] < 2 * len(data) + 60_000_000
    for read in (read_header, read_tokenizer):
        with contextlib.suppress(RnncliError):
            read(path)


def test_damaged_and_forged_files(model, tmp_path):
    data, original = model.read_bytes(), content(model)
    files = {**accidents(data, 80), **forgeries(data)}
    assert len(files) >= 400
    tracemalloc.start()
    try:
        for name, mutated in files.items():
            try:
                examine(tmp_path / "mutated", mutated, original)
            except BaseException as error:
                error.add_note(f"the file: {name}")
                raise
    finally:
        tracemalloc.stop()


def test_no_forgery_passes_for_a_model(model, tmp_path):
    for name, data in forgeries(model.read_bytes()).items():
        path = tmp_path / "forged"
        path.write_bytes(data)
        with pytest.raises(ModelError):
            read_model(path)
            pytest.fail(name)


def test_the_header_verifies_itself(model):
    """A changed bit in it is seen without reading the tensors, which are not looked at here."""
    data, original = model.read_bytes(), read_header(model)
    places = range(0, 8 + int.from_bytes(data[:8], "little"), 23)
    ignored = 0
    for place in places:
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            model.write_bytes(flipped)
            try:
                assert read_header(model) == original, (place, bit)
                ignored += 1  # as in 1e5 for 1E5
            except ModelError:
                pass
    assert ignored < len(places) / 100


def test_a_newer_format(model):
    header, _, body = parts(model.read_bytes())
    model.write_bytes(whole(header, {"format": 7, "new": 1}, body))
    with pytest.raises(ModelError, match=r"newer rnncli \(format 7, this one reads 1\); upgrade"):
        read_model(model)


def test_large_sizes_are_not_believed(model, tmp_path):
    """A header that promises 8 GB of a file that has 100 bytes: nothing is allocated for it."""
    header = {"w": {"dtype": "F64", "shape": [10**9], "data_offsets": [0, 8 * 10**9]}}
    _, metadata, _ = parts(model.read_bytes())
    path = tmp_path / "promise"
    path.write_bytes(whole(header, metadata, b""))
    tracemalloc.start()
    with pytest.raises(ModelError, match="ends too early"):
        read_model(path)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def resident(name: str) -> int:
    """VmRSS, what is resident now, or VmHWM, the most that ever was, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{name}:")[1].split()[0])


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's /proc")
def test_memory_is_that_of_the_file(tmp_path):
    weights = {str(number): torch.randn(1000, 1000) for number in range(15)}
    Path("/proc/self/clear_refs").write_text("5")  # the most starts from now
    before = resident("VmRSS")
    path = write(tmp_path / "large", weights=weights)
    size = path.stat().st_size
    assert size > 60_000_000
    assert resident("VmHWM") - before < 0.2 * size
    del weights
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    saved = read_model(path)
    assert resident("VmHWM") - before < 1.5 * size
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    del saved
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    with pytest.raises(ModelError, match="do not match their checksum"):
        read_model(path)
    assert resident("VmHWM") - before < 1.5 * size


def test_a_header_that_could_not_be_read_again_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="too large"):
        write_training_state(tmp_path / "x", tensors={}, values={"x": [0] * 300_000})
    assert not os.listdir(tmp_path)
