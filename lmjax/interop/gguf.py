"""Weights as llama.cpp keeps them: one GGUF file with the sizes, the tokenizer and the numbers, often quantised.

    load(path) -> (params, config, tokenizer or None)        save(path, params, config, tokenizer)

Llama and GPT-2, by the `gguf` package, which turns every quantisation of llama.cpp into float32. A byte-level tokenizer
is built with the `tokenizers` library from what the file says; other kinds are None. llama.cpp turns neighbouring
numbers of a head where Llama's own weights, and ours, turn the two halves: its queries and keys lie interleaved.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lmjax import config, param
from lmjax.data import tokenizers
from lmjax.errors import UserError, install
from lmjax.interop import huggingface
from lmjax.interop.files import whole
from lmjax.interop.tables import Stored, dense, norm, read, sizes, write
from lmjax.models import gpt

LLAMA = {
    "embed/token": Stored("token_embd.weight", "v d"),
    **norm("blocks/{}/norm1", "blk.{}.attn_norm"),
    "blocks/{}/qkv/w": (
        Stored("blk.{}.attn_q.weight", "grmj d", "d g r jm"),
        Stored("blk.{}.attn_k.weight", "gomj d", "d g o jm"),
        Stored("blk.{}.attn_v.weight", "gok d", "d g o k"),
    ),
    **dense("blocks/{}/out", "blk.{}.attn_output", "d hk", "h k d"),
    **norm("blocks/{}/norm2", "blk.{}.ffn_norm"),
    **dense("blocks/{}/gate", "blk.{}.ffn_gate", "f d", "d f"),
    **dense("blocks/{}/up", "blk.{}.ffn_up", "f d", "d f"),
    **dense("blocks/{}/down", "blk.{}.ffn_down", "d f", "f d"),
    **norm("norm", "output_norm"),
    "head": Stored("output.weight", "v d"),
}
GPT2 = {
    **{path: entry for path, entry in LLAMA.items() if "/qkv/" not in path},
    "embed/position": Stored("position_embd.weight", "t d"),
    "blocks/{}/qkv/w": Stored("blk.{}.attn_qkv.weight", "ngk d", "d g n k"),
    "blocks/{}/qkv/b": Stored("blk.{}.attn_qkv.bias", "ngk", "g n k"),
}
TABLES = {"llama": LLAMA, "gpt2": GPT2}
# What stands before the merges: the names llama.cpp gives to ways of cutting a text.
DIGITS = {"gpt-2": False, "smollm": True}
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
QUANTISED = ("float32", "float16", "q8_0")


def load(path) -> tuple:
    """(params in float32, config, tokenizer or None). UserError in one line where the file is none of ours."""
    return load_chat(path)[:3]


def load_chat(path) -> tuple:
    """What `load` gives, and the chat template or None: a file's words take seconds to read, so it is read once."""
    path = Path(path).expanduser()
    reader = _opened(path)
    given = Fields(reader, path)
    kind = given.get("general.architecture")
    if kind not in TABLES:
        raise UserError(f"{path} is a {kind}: expected {' or '.join(TABLES)}")
    stored = {tensor.name: tensor for tensor in reader.tensors}
    model = _config(given, kind, stored)
    quants = _library().quants

    def tensor(name):
        return quants.dequantize(stored[name].data, stored[name].tensor_type) if name in stored else None

    try:
        params, used = read(gpt.gpt_params(model), TABLES[kind], sizes(model), tensor, path)
    except (NotImplementedError, KeyError) as error:
        raise UserError(f"{path} has a kind of numbers that the gguf package cannot read ({error})") from None
    if extra := sorted(stored.keys() - used):
        raise UserError(f"{path} holds {extra[0]}, for which {kind} as lmjax has it has no place")
    return jax.tree.map(jnp.asarray, params), model, _tokenizer(given), given.get("tokenizer.chat_template")


class Fields:
    """The settings of a file. UserError, with its name, where it lacks what is asked for."""

    def __init__(self, reader, path):
        self.fields, self.path = reader.fields, path

    def get(self, name: str, default=None):
        return self.fields[name].contents() if name in self.fields else default

    def number(self, name: str, default=None):
        value = self.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise UserError(f"{self.path}: {name}={value!r}: expected a number")
        return value


def _opened(path: Path):
    if not path.is_file():
        raise UserError(f"{path} is not there: expected a GGUF file")
    try:
        return _library().GGUFReader(str(path))
    except (ValueError, IndexError, KeyError, OverflowError, OSError) as error:
        raise UserError(f"{path} is no whole GGUF file ({str(error)[:200]}): fetch it again") from None


def _config(given: Fields, kind: str, stored: dict) -> config.GPT:
    dim, heads = given.number(f"{kind}.embedding_length"), given.number(f"{kind}.attention.head_count")
    if "token_embd.weight" not in stored:
        raise UserError(f"{given.path} holds no token_embd.weight: expected the weights of a {kind}")
    common = {
        "vocab": int(stored["token_embd.weight"].shape[-1]), "context": given.number(f"{kind}.context_length"),
        "layers": given.number(f"{kind}.block_count"), "heads": heads, "dim": dim,
        "hidden": given.number(f"{kind}.feed_forward_length"), "tied": "output.weight" not in stored,
    }  # fmt: skip
    try:
        if kind == "gpt2":
            return config.GPT(epsilon=given.number("gpt2.attention.layer_norm_epsilon"), **common)
        wanted = {
            "rope.dimension_count": dim // max(heads, 1), "attention.key_length": dim // max(heads, 1),
            "rope.scaling.type": "none", "expert_count": 0,
        }  # fmt: skip
        for name, value in wanted.items():
            if given.get(f"llama.{name}", value) != value:
                found = given.get(f"llama.{name}")
                raise UserError(f"{given.path}: llama.{name}={found!r}: lmjax has {value!r} only")
        return config.GPT(
            groups=given.number("llama.attention.head_count_kv", heads),
            epsilon=given.number("llama.attention.layer_norm_rms_epsilon"),
            rotary_base=given.number("llama.rope.freq_base", 10000.0), **{**gpt.LLAMA, **common},
        )  # fmt: skip
    except UserError:
        raise
    except ValueError as error:  # sizes that do not go together
        raise UserError(f"{given.path}: {error}") from None


def _tokenizer(given: Fields):
    """Of the byte-level kind, with GPT-2's cuts or SmolLM's; None for another."""
    before = given.get("tokenizer.ggml.pre")
    if given.get("tokenizer.ggml.model") != "gpt2" or before not in DIGITS:
        return None
    words, merges = given.get("tokenizer.ggml.tokens"), given.get("tokenizer.ggml.merges")
    kinds = given.get("tokenizer.ggml.token_type") or [NORMAL] * len(words or [])
    if not words or merges is None or len(set(words)) != len(words) or len(kinds) != len(words):
        raise UserError(f"{given.path}: its tokenizer is damaged: expected distinct tokens, their types, and merges")
    library = tokenizers.tokenizers_library()
    try:
        model = library.models.BPE(
            vocab={word: i for i, word in enumerate(words)}, merges=[tuple(pair.split(" ")) for pair in merges]
        )
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{given.path}: its tokenizer is damaged: {str(error)[:200]}") from None
    tokenizer = library.Tokenizer(model)
    cut = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    if DIGITS[before]:
        cut = library.pre_tokenizers.Sequence([library.pre_tokenizers.Digits(individual_digits=True), cut])
    tokenizer.pre_tokenizer, tokenizer.decoder = cut, library.decoders.ByteLevel()
    whole_words = [(word, kind) for word, kind in zip(words, kinds, strict=True) if kind in (CONTROL, USER_DEFINED)]
    for word, kind in whole_words:
        added = library.AddedToken(word, normalized=False, special=kind == CONTROL)
        (tokenizer.add_special_tokens if kind == CONTROL else tokenizer.add_tokens)([added])
    return tokenizers.BPE(tokenizer.to_str())


def save(path, params, model, tokenizer=None, *, dtype: str = "float32", template: str | None = None) -> None:
    """Writes one file. dtype: of the matrices, one of QUANTISED; vectors stay float32.

    UserError where llama.cpp has no such model, or no such tokenizer.
    """
    path = Path(path).expanduser()
    kind, specs, params, model = huggingface.exported(model, params)
    if kind not in TABLES:
        raise UserError(f"a {kind} has no GGUF of ours: expected GPT-2 or Llama")
    library, flat = _library(), {}
    param.map_params(lambda name, _: flat.update({name: huggingface.leaf(params, name)}), specs)
    tensors = write(specs, flat, TABLES[kind], sizes(model))
    with whole(path) as part:
        writer = library.GGUFWriter(part, kind)
        _describe(writer, model, kind)
        if tokenizer is not None:
            _describe_tokenizer(writer, tokenizer, template)
        for name, x in tensors.items():
            _add(writer, library, name, x, dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _describe(writer, model: config.GPT, kind: str) -> None:
    writer.add_context_length(model.context)
    writer.add_embedding_length(model.dim)
    writer.add_block_count(model.layers)
    writer.add_feed_forward_length(model.hidden or 4 * model.dim)
    writer.add_head_count(model.heads)
    if kind == "gpt2":
        writer.add_layer_norm_eps(model.epsilon)
        return
    writer.add_head_count_kv(model.groups or model.heads)
    writer.add_layer_norm_rms_eps(model.epsilon)
    writer.add_rope_freq_base(model.rotary_base)
    writer.add_rope_dimension_count(model.dim // model.heads)
    writer.add_vocab_size(model.vocab)


def _add(writer, library, name: str, x: np.ndarray, dtype: str) -> None:
    kinds = library.GGMLQuantizationType
    if dtype == "q8_0" and x.ndim > 1 and x.shape[-1] % 32 == 0:
        writer.add_tensor(name, library.quants.quantize(x, kinds.Q8_0), raw_dtype=kinds.Q8_0)
    else:
        writer.add_tensor(name, x.astype(np.float16) if dtype != "float32" and x.ndim > 1 else x)


def _describe_tokenizer(writer, tokenizer, template) -> None:
    description = json.loads(tokenizer.json) if isinstance(tokenizer, tokenizers.BPE) else {}
    before = _cuts(description.get("pre_tokenizer") or {})
    if description.get("model", {}).get("type") != "BPE" or before is None or description.get("normalizer"):
        raise UserError(f"a GGUF of ours has a byte-level tokenizer with the cuts of {' or '.join(DIGITS)}, and this "
                        "model has another: choose a Hugging Face folder for it")
    added = {token["content"]: token for token in description["added_tokens"]}
    ids = description["model"]["vocab"] | {word: token["id"] for word, token in added.items()}
    words = sorted(ids, key=ids.get)
    if [ids[word] for word in words] != list(range(len(words))):
        raise UserError("the tokenizer's ids have gaps, which a GGUF cannot have: leave it out")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(before)
    writer.add_token_list(words)
    kinds = {word: CONTROL if token["special"] else USER_DEFINED for word, token in added.items()}
    writer.add_token_types([kinds.get(word, NORMAL) for word in words])
    pairs = description["model"]["merges"]
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in pairs])
    if tokenizer.eos is not None:
        writer.add_eos_token_id(tokenizer.eos)
    if template:
        writer.add_chat_template(template)


def _cuts(description: dict) -> str | None:
    """The name in DIGITS of what the `tokenizers` library says of a pre-tokenizer; None: it is another."""
    parts = description.get("pretokenizers", [description])
    kinds = [part.get("type") for part in parts]
    plain = bool(parts) and not parts[-1].get("add_prefix_space") and parts[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and plain:
        return "gpt-2"
    return "smollm" if kinds == ["Digits", "ByteLevel"] and plain and parts[0].get("individual_digits") else None


def _library():
    try:
        import gguf
    except ImportError:
        raise UserError("gguf is not installed: " + install("weights")) from None
    return gguf
