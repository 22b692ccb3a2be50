"""What tests of several rooms share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RNNCLI = (sys.executable, "-m", "rnncli")


def cli_env(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a subprocess: this checkout is the one imported, one thread, output
    buffered as Python does by itself."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**usual, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **(env or {})}


def run_cli(
    *args: str | Path,
    input: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 60,
) -> subprocess.CompletedProcess[bytes]:
    """Run the real command line as a process of its own; ``env`` is added to the environment."""
    return subprocess.run(
        [*RNNCLI, *map(str, args)],
        input=input,
        env=cli_env(env),
        cwd=cwd,
        capture_output=True,
        timeout=timeout,
    )


def tiny_model(
    folder: Path,
    *,
    seed: int = 0,
    text: str = "the cat sat on the mat and the dog ran\n",
    tokenizer: str = "char",
    scale: float = 1.0,
    **model: Any,
) -> Path:
    """Write an untrained language model of ``text``'s vocabulary into ``folder`` and return its
    file; ``scale`` multiplies the output matrix: more gives surer predictions."""
    import torch

    from rnncli.checkpoint import write_model
    from rnncli.config import Config
    from rnncli.models.language_model import LanguageModel
    from rnncli.sections import ModelConfig, TokenizerConfig
    from rnncli.text.tokenizers import train_tokenizer

    kind = TokenizerConfig(kind=tokenizer)
    sizes = {"layers": 2, "hidden_size": 16, "embedding_size": 12}
    # Large weights: what came before makes a difference to what comes next.
    model = {**sizes, "init": "uniform", "init_scale": 0.6, **model}
    config = Config(tokenizer=kind, model=ModelConfig(**model))
    trained = train_tokenizer(kind, text.splitlines())
    torch.manual_seed(seed)
    network = LanguageModel(config.model, trained.vocab_size)
    weights = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    if "output.W_hy" in weights:
        weights["output.W_hy"] = weights["output.W_hy"] * scale
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.safetensors"
    write_model(path, config=config, tokenizer=trained, weights=weights, scores={}, provenance={})
    return path


def tiny_translator(
    folder: Path,
    *,
    seed: int = 0,
    text: str = "the cat sat on the mat",
    source_text: str | None = None,
    scale: float = 3.0,
    **model: Any,
) -> Path:
    """Write an untrained encoder-decoder, with attention unless ``model`` says otherwise, whose
    vocabulary are the words of ``text``, into ``folder`` and return its file; ``source_text``: of
    sources with a vocabulary of their own. ``scale`` multiplies the output matrix."""
    import torch

    from rnncli.checkpoint import write_model
    from rnncli.config import Config
    from rnncli.models.encoder_decoder import EncoderDecoder
    from rnncli.sections import ModelConfig, TokenizerConfig
    from rnncli.text.tokenizers import train_tokenizer

    sizes = {"layers": 1, "hidden_size": 12, "embedding_size": 10, "cell": "gru"}
    look = {"attention": "general", "direction": "bidirectional"}
    network_config = ModelConfig(
        **{**sizes, **look, "init": "uniform", "init_scale": 0.6, **model}  # type: ignore[arg-type]
    )
    kind = TokenizerConfig(kind="word")
    config = Config(task="translate", tokenizer=kind, model=network_config)
    words = train_tokenizer(kind, [text])
    source_words = train_tokenizer(kind, [source_text]) if source_text else None
    torch.manual_seed(seed)
    source_size = source_words.vocab_size if source_words else None
    network = EncoderDecoder(network_config, words.vocab_size, source_size)
    weights = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    weights["output.W_hy"] = weights["output.W_hy"] * scale
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.safetensors"
    write_model(
        path, config=config, tokenizer=words, weights=weights, scores={}, provenance={},
        source_tokenizer=source_words,
    )  # fmt: skip
    return path
