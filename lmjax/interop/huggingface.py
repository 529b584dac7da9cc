"""Published weights as Hugging Face keeps them: a folder with config.json, safetensors and a tokenizer, both ways.

    load(folder) -> (params, config, tokenizer)        save(folder, params, config, tokenizer)

GPT-2 and Llama (config.GPT), BERT and DistilBERT (config.BERT; the parameters hold "bert" and the heads that the file
has: "pooler", "masked", "next", "classify", "tag", "span") and ViT (config.ViT). What transformers writes is read and
the reverse; the tables of names are in tables.py. Weights of 16 bits are read to float32.

What a config.json asks for and the model has not (scaled rotary positions, another activation, ...) is refused, and so
is a file that holds anything the model has no place for: wrong numbers are worse than none. Pickle is never read.
"""

import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from lmjax import config, param
from lmjax.data import tokenizers
from lmjax.errors import UserError
from lmjax.interop import tables
from lmjax.interop.files import safetensors_library, whole
from lmjax.interop.model_types import FAMILIES, Family, Given
from lmjax.models import bert, gpt, vit

PICKLE = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
_TEMPLATE = "chat_template"


def load(path) -> tuple:
    """(params in float32, config, tokenizer or None) of a folder, or of a safetensors file with config.json beside it.

    UserError in one line where it is none of ours: no config.json, another model type, a missing or a superfluous
    tensor, a wrong shape, a damaged file, pickle.
    """
    path = Path(path).expanduser()
    folder = path if path.is_dir() else path.parent
    given = _given(path, folder)
    family = FAMILIES[given.data["model_type"]]
    with _tensors(path) as stored:
        names = _names(stored, family)
        try:
            model = family.read(given)
        except UserError:
            raise
        except ValueError as error:  # sizes that do not go together
            raise UserError(f"{given.source}: {error}") from None
        shapes = {name: stored.shape(theirs) for name, theirs in names.items()}
        specs = family.specs(model, shapes, given)
        params, used = tables.read(
            specs, family.table, tables.sizes(model, _classes(model, specs)),
            lambda name: stored.get(names[name]) if name in names else None, path,
        )  # fmt: skip
    tied = "lm_head.weight" if getattr(model, "tied", False) else ""
    extra = [name for name in names if name not in used and name != tied and not re.search(family.ignored, name)]
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        kind = given.data["model_type"]
        raise UserError(f"{path} holds {extra[0]}{more}, for which {kind} as config.json has it has no place")
    return jax.tree.map(jnp.asarray, params), model, _tokenizer(folder)


def save(folder, params, model, tokenizer=None, *, dtype: str = "float32", template: str | None = None) -> None:
    """Writes config.json, model.safetensors and, where there is one, tokenizer.json, as transformers reads them.

    dtype: of the stored numbers, one of DTYPES. template: a chat template to keep. UserError where transformers has no
    such model. A tokenizer of characters or words is kept in our own form, which `load` reads and transformers does
    not.
    """
    kind, specs, params, model = exported(model, params)
    family = FAMILIES[kind]
    flat = {}
    param.map_params(lambda path, _: flat.update({path: leaf(params, path)}), specs)
    tensors = tables.write(specs, flat, family.table, tables.sizes(model, _classes(model, params)))
    described = {"model_type": kind, "dtype": dtype, "torch_dtype": dtype, **family.write(model, params)}
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}; choose another folder") from None
    written = {name: np.ascontiguousarray(x.astype(DTYPES[dtype])) for name, x in tensors.items()}
    with whole(folder / "model.safetensors") as part:
        safetensors_library().numpy.save_file(written, part, metadata={"format": "pt"})
    if tokenizer is not None:
        described |= _save_tokenizer(folder, tokenizer, model, template)
    _write_json(folder / "config.json", described)


def chat_template(path) -> str | None:
    """The chat template of a folder, None where it has none."""
    path = Path(path).expanduser()
    folder = path if path.is_dir() else path.parent
    if (folder / f"{_TEMPLATE}.jinja").is_file():
        return (folder / f"{_TEMPLATE}.jinja").read_text(encoding="utf-8")
    file = folder / "tokenizer_config.json"
    found = _json(file).get(_TEMPLATE) if file.is_file() else None
    return found if isinstance(found, str) else None


def exported(model, params):
    """(model type, specs of the parameters to write, params, config) as one of transformers' model types has them."""
    if isinstance(model, config.GPT):
        if model.scan:
            layers = [jax.tree.map(lambda x, i=i: x[i], params["blocks"]) for i in range(model.layers)]
            params = params | {"blocks": layers}
        return _exported_gpt(model, params)
    if isinstance(model, config.BERT):
        if (model.pooler == "tanh") != bool(model.segments) and "pooler" in params:
            raise UserError(f"a BERT with {model.segments} segments and a pooler of {model.pooler}: transformers has "
                            "BERT with segments and tanh, and DistilBERT with neither")
        classes = _classes(model, params)
        specs = bert.pretrain_params(model) | bert.span_params(model)
        specs |= bert.classifier_params(model, classes) | bert.tagger_params(model, classes)
        specs = {name: specs[name] for name in params}
        return "bert" if model.segments else "distilbert", specs, params, model
    if isinstance(model, config.ViT):
        return "vit", vit.vit_params(model), params, model
    raise UserError(f"a {type(model).__name__} has no place in transformers: expected GPT, BERT or ViT")


def _exported_gpt(model: config.GPT, params):
    model = dataclasses.replace(model, scan=False)
    parts = model.positions, model.norm, model.activation
    if parts == ("rotary", "rms", "swiglu") and not model.bias:
        return "llama", gpt.gpt_params(model), params, model
    if parts == ("learned", "layer", "gelu") and model.groups in (0, model.heads):
        model = dataclasses.replace(model, bias=True, groups=0)  # GPT-2 has biases: zeros where ours has none
        specs = gpt.gpt_params(model)
        full = param.map_params(lambda path, spec: leaf(params, path, np.zeros(spec.shape, np.float32)), specs)
        return "gpt2", specs, full, model
    raise UserError(
        f"model.positions={model.positions}, norm={model.norm}, activation={model.activation}, groups={model.groups}, "
        f"bias={str(model.bias).lower()}: neither GPT-2's nor Llama's choice, and transformers has no other of ours"
    )


def leaf(params, path: str, default=None) -> np.ndarray:
    at = params
    for part in path.split("/"):
        if isinstance(at, dict) and part not in at and default is not None:
            return default
        at = at[int(part)] if isinstance(at, list | tuple) else at[part]
    return np.asarray(at, np.float32)


def _given(path: Path, folder: Path) -> Given:
    if not path.exists():
        raise UserError(f"{path} is not there: expected a model's folder or safetensors file")
    if path.suffix in PICKLE:
        raise UserError(f"{path} is a pickle, which may run any code as it is read: expected safetensors")
    file = folder / "config.json"
    if not file.is_file():
        raise UserError(f"{folder} holds no config.json: expected a model's folder as transformers saves it")
    data = _json(file)
    kind = data.get("model_type")
    if kind not in FAMILIES:
        raise UserError(f"{file}: model_type={json.dumps(kind)}: expected one of {', '.join(FAMILIES)}")
    return Given(data, file)


def _json(file: Path) -> dict:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is no JSON: {str(error)[:200]}; fetch it again") from None
    if not isinstance(data, dict):
        raise UserError(f"{file} holds {type(data).__name__}, expected an object")
    return data


def _write_json(file: Path, data: dict) -> None:
    with whole(file) as part:
        part.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class _Tensors:
    """The tensors of one or several safetensors files, each read when it is asked for."""

    def __init__(self, files: list[Path]):
        library = safetensors_library()
        self.at = {}
        for file in files:
            try:
                opened = library.safe_open(file, "flax")  # numpy's own reading knows no bfloat16
            except FileNotFoundError:
                raise UserError(f"{file} is not there: expected it by model.safetensors.index.json") from None
            except (library.SafetensorError, OSError) as error:
                raise UserError(f"{file} is no whole safetensors file ({error}): fetch it again") from None
            self.at |= dict.fromkeys(opened.keys(), opened)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.at.clear()

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.at[name].get_slice(name).get_shape())

    def get(self, name: str) -> np.ndarray:
        return np.asarray(self.at[name].get_tensor(name))


def _tensors(path: Path) -> _Tensors:
    if path.is_file():
        return _Tensors([path])
    one, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if one.is_file():
        return _Tensors([one])
    if index.is_file():
        places = _json(index).get("weight_map")
        if not isinstance(places, dict) or not all(
            isinstance(place, str) and Path(place).name == place for place in places.values()
        ):
            raise UserError(f"{index} is damaged: expected weight_map, the file of each tensor")
        return _Tensors([path / place for place in sorted(set(places.values()))])
    pickles = [file.name for file in sorted(path.iterdir()) if file.suffix in PICKLE] if path.is_dir() else []
    if pickles:
        raise UserError(f"{path} holds its weights in {pickles[0]} only, a pickle, which may run any code as it is "
                        "read: expected model.safetensors")
    raise UserError(f"{path} holds no model.safetensors and no model.safetensors.index.json")


def _names(stored: _Tensors, family: Family) -> dict[str, str]:
    """By a tensor's name in the table: its name in the file."""
    bare = not any(name.startswith(family.prefix) for name in stored.at)
    tops = {str(entry.name).split(".")[0] for entry in _entries(family.table)} - {family.prefix.rstrip(".")}
    names = {}
    for theirs in stored.at:
        name = family.prefix + theirs if bare and theirs.split(".")[0] not in tops else theirs
        for pattern, replacement in family.renamed:
            name = re.sub(pattern, replacement, name)
        names[name] = theirs
    return names


def _entries(table) -> list:
    return [stored for entry in table.values() for stored in ([entry] if isinstance(entry, tables.Stored) else entry)]


def _classes(model, params) -> int:
    """Of the classifier of a tree of Param or of arrays; 0: it has none."""
    if isinstance(model, config.ViT):
        return model.classes
    head = params.get("classify") or params.get("tag") if isinstance(model, config.BERT) else None
    if head is None:
        return 0
    return head["b"].shape[0]


def _tokenizer(folder: Path):
    names = ("tokenizer.json", *tokenizers.MERGES)
    if any((folder / name).is_file() for name in names):
        return tokenizers.load(folder)
    return None


def _save_tokenizer(folder: Path, tokenizer, model, template) -> dict:
    file = folder / "tokenizer.json"
    if not isinstance(tokenizer, tokenizers.BPE):
        tokenizer.save(file)
        return {}
    with whole(file) as part:
        part.write_text(tokenizer.json, encoding="utf-8")
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": getattr(model, "context", None)}
    if template:
        words[_TEMPLATE] = template
    _write_json(folder / "tokenizer_config.json", words)
    return {} if tokenizer.eos is None else {"eos_token_id": tokenizer.eos}
