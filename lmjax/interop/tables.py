"""How published weights lie in their files: for each of our parameters the tensors it is made of, read and written.

A table maps a parameter's path ("blocks/{}/qkv/w", {} the layer) to one tensor, or to several that stand side by side
in it. `Stored(name, theirs, ours)` says how a tensor is turned: a letter for each axis, those written together make
one dimension. ("layers.{}.v_proj.weight", "gok d", "d g o k") is stored as [G*1*K, D] and is here [D, G, 1, K].
Reading goes one way, writing the other: no table is the inverse of another.

v vocabulary, t positions, d e model, f feed-forward, h heads, g groups of heads that share keys, r heads of a group,
k head size, j two, m half a head, n queries, keys and values, s segments, c classes, y x i rows, columns and channels
of a patch, o u one.
"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lmjax.errors import UserError
from lmjax.param import map_params


class Stored(NamedTuple):
    name: str
    theirs: str
    ours: str = ""  # "": as theirs


def sizes(config, classes: int = 0) -> dict[str, int]:
    """How long each letter is in a model of this config (GPT, BERT or ViT), with a head of so many classes."""
    D, H = config.dim, config.heads
    G, K = getattr(config, "groups", 0) or H, D // H
    patch = getattr(config, "patch", 0)
    return {
        "d": D, "e": D, "f": config.hidden or 4 * D, "h": H, "g": G, "r": H // G, "k": K, "j": 2, "m": K // 2,
        "c": classes, "n": 3, "o": 1, "u": 1, "v": getattr(config, "vocab", 0), "s": getattr(config, "segments", 0),
        "y": patch, "x": patch, "i": getattr(config, "channels", 0),
        "t": 1 + (config.size // patch) ** 2 if patch else config.context,
    }  # fmt: skip


def norm(path: str, name: str) -> dict:
    return {f"{path}/scale": Stored(f"{name}.weight", "d"), f"{path}/bias": Stored(f"{name}.bias", "d")}


def dense(path: str, name: str, theirs: str, ours: str) -> dict:
    """A linear layer; its bias has the axes that `theirs` has first, PyTorch's way."""
    out = theirs.split()[0]
    return {f"{path}/w": Stored(f"{name}.weight", theirs, ours), f"{path}/b": Stored(f"{name}.bias", out)}


def joint(path: str, q: str, k: str, v: str) -> dict:
    """Queries, keys and values that are stored apart."""
    names = ((q, "grk", "g r k"), (k, "gok", "g o k"), (v, "gok", "g o k"))
    return {
        f"{path}/w": tuple(Stored(f"{name}.weight", f"{theirs} d", f"d {ours}") for name, theirs, ours in names),
        f"{path}/b": tuple(Stored(f"{name}.bias", theirs, ours) for name, theirs, ours in names),
    }


def encoder_block(at: str, name: str, q: str, k: str, v: str, out: str, up: str, down: str, norm1: str, norm2: str):
    """A block of BERT, DistilBERT or ViT under `at`, stored under `name`."""
    b, n = f"{at}blocks/{{}}", name + ".{}."
    return {
        **joint(f"{b}/qkv", n + q, n + k, n + v),
        **dense(f"{b}/out", n + out, "d hk", "h k d"),
        **dense(f"{b}/up", n + up, "f d", "d f"),
        **dense(f"{b}/down", n + down, "d f", "f d"),
        **norm(f"{b}/norm1", n + norm1),
        **norm(f"{b}/norm2", n + norm2),
    }


# Hugging Face's names. Of GPT-2 the matrices lie as here, inputs first, of all others the other way round.

GPT2 = {
    "embed/token": Stored("transformer.wte.weight", "v d"),
    "embed/position": Stored("transformer.wpe.weight", "t d"),
    **norm("blocks/{}/norm1", "transformer.h.{}.ln_1"),
    "blocks/{}/qkv/w": Stored("transformer.h.{}.attn.c_attn.weight", "d ngk", "d g n k"),
    "blocks/{}/qkv/b": Stored("transformer.h.{}.attn.c_attn.bias", "ngk", "g n k"),
    "blocks/{}/out/w": Stored("transformer.h.{}.attn.c_proj.weight", "hk d", "h k d"),
    "blocks/{}/out/b": Stored("transformer.h.{}.attn.c_proj.bias", "d"),
    **norm("blocks/{}/norm2", "transformer.h.{}.ln_2"),
    "blocks/{}/up/w": Stored("transformer.h.{}.mlp.c_fc.weight", "d f"),
    "blocks/{}/up/b": Stored("transformer.h.{}.mlp.c_fc.bias", "f"),
    "blocks/{}/down/w": Stored("transformer.h.{}.mlp.c_proj.weight", "f d"),
    "blocks/{}/down/b": Stored("transformer.h.{}.mlp.c_proj.bias", "d"),
    **norm("norm", "transformer.ln_f"),
    "head": Stored("lm_head.weight", "v d"),
}

LLAMA = {
    "embed/token": Stored("model.embed_tokens.weight", "v d"),
    **norm("blocks/{}/norm1", "model.layers.{}.input_layernorm"),
    **joint("blocks/{}/qkv", *(f"model.layers.{{}}.self_attn.{part}_proj" for part in "qkv")),
    **dense("blocks/{}/out", "model.layers.{}.self_attn.o_proj", "d hk", "h k d"),
    **norm("blocks/{}/norm2", "model.layers.{}.post_attention_layernorm"),
    **dense("blocks/{}/gate", "model.layers.{}.mlp.gate_proj", "f d", "d f"),
    **dense("blocks/{}/up", "model.layers.{}.mlp.up_proj", "f d", "d f"),
    **dense("blocks/{}/down", "model.layers.{}.mlp.down_proj", "d f", "f d"),
    **norm("norm", "model.norm"),
    "head": Stored("lm_head.weight", "v d"),
}

BERT = {
    "bert/embed/token": Stored("bert.embeddings.word_embeddings.weight", "v d"),
    "bert/embed/position": Stored("bert.embeddings.position_embeddings.weight", "t d"),
    "bert/embed/segment": Stored("bert.embeddings.token_type_embeddings.weight", "s d"),
    **norm("bert/embed/norm", "bert.embeddings.LayerNorm"),
    **encoder_block(
        "bert/", "bert.encoder.layer", *(f"attention.self.{part}" for part in ("query", "key", "value")),
        out="attention.output.dense", up="intermediate.dense", down="output.dense",
        norm1="attention.output.LayerNorm", norm2="output.LayerNorm",
    ),
    **dense("pooler", "bert.pooler.dense", "e d", "d e"),
    **dense("masked/transform", "cls.predictions.transform.dense", "e d", "d e"),
    **norm("masked/norm", "cls.predictions.transform.LayerNorm"),
    "masked/bias": Stored("cls.predictions.bias", "v"),
    **dense("next", "cls.seq_relationship", "j d", "d j"),
    **dense("classify", "classifier", "c d", "d c"),
    **dense("tag", "classifier", "c d", "d c"),
    **dense("span", "qa_outputs", "j d", "d j"),
}  # fmt: skip

DISTILBERT = {
    "bert/embed/token": Stored("distilbert.embeddings.word_embeddings.weight", "v d"),
    "bert/embed/position": Stored("distilbert.embeddings.position_embeddings.weight", "t d"),
    **norm("bert/embed/norm", "distilbert.embeddings.LayerNorm"),
    **encoder_block(
        "bert/", "distilbert.transformer.layer", "attention.q_lin", "attention.k_lin", "attention.v_lin",
        out="attention.out_lin", up="ffn.lin1", down="ffn.lin2", norm1="sa_layer_norm", norm2="output_layer_norm",
    ),
    **dense("pooler", "pre_classifier", "e d", "d e"),
    **dense("masked/transform", "vocab_transform", "e d", "d e"),
    **norm("masked/norm", "vocab_layer_norm"),
    "masked/bias": Stored("vocab_projector.bias", "v"),
    **dense("classify", "classifier", "c d", "d c"),
    **dense("tag", "classifier", "c d", "d c"),
    **dense("span", "qa_outputs", "j d", "d j"),
}  # fmt: skip

VIT = {
    "embed/class": Stored("vit.embeddings.cls_token", "o u d", "oud"),
    "embed/position": Stored("vit.embeddings.position_embeddings", "o t d", "ot d"),
    "embed/patch/w": Stored("vit.embeddings.patch_embeddings.projection.weight", "d i y x", "y x i d"),
    "embed/patch/b": Stored("vit.embeddings.patch_embeddings.projection.bias", "d"),
    **encoder_block(
        "", "vit.encoder.layer", *(f"attention.attention.{part}" for part in ("query", "key", "value")),
        out="attention.output.dense", up="intermediate.dense", down="output.dense",
        norm1="layernorm_before", norm2="layernorm_after",
    ),
    **norm("norm", "vit.layernorm"),
    **dense("head", "classifier", "c d", "d c"),
}  # fmt: skip


def read(specs, table, sizes: dict[str, int], tensor: Callable[[str], np.ndarray], source) -> tuple:
    """(parameters for a tree of Param, names of the tensors that were read), float32.

    tensor(name): the tensor, None where there is none. UserError where one is missing or has another shape than sizes
    and specs ask for; `source` is what its line begins with.
    """
    used = set()

    def one(path, spec):
        parts = []
        for stored in _entry(table, path):
            x = tensor(stored.name)
            if x is None:
                raise UserError(f"{source} holds no {stored.name}: expected {_shape(stored.theirs, sizes)} numbers")
            used.add(stored.name)
            parts.append(_turn(stored, x, sizes, source))
        # Queries, keys and values lie side by side on the axis before the head's.
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-2)
        if whole.shape != spec.shape:
            raise ValueError(f"the table gives {path} the shape {whole.shape}, the model {spec.shape}")
        return whole

    return map_params(one, specs), used


def write(specs, params: dict[str, np.ndarray], table, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """The tensors, by name, of parameters by path; `specs` says which."""
    tensors = {}

    def one(path, spec):
        entry, whole = _entry(table, path), params[path]
        starts = np.cumsum([_sizes(stored.ours or stored.theirs, sizes)[-2] for stored in entry[:-1]], dtype=int)
        parts = np.split(whole, starts, axis=-2) if len(entry) > 1 else [whole]
        for stored, part in zip(entry, parts, strict=True):
            tensors[stored.name] = _turn_back(stored, part, sizes)

    map_params(one, specs)
    return tensors


def _entry(table, path: str) -> tuple[Stored, ...]:
    layer = re.search(r"/(\d+)/", path)
    entry = table[re.sub(r"/\d+/", "/{}/", path)]
    entry = (entry,) if isinstance(entry, Stored) else entry
    return tuple(stored._replace(name=stored.name.format(layer and layer[1])) for stored in entry)


def _sizes(groups: str, sizes) -> list[int]:
    return [math.prod(sizes[letter] for letter in group) for group in groups.split()]


def _shape(groups: str, sizes) -> str:
    return " x ".join(map(str, _sizes(groups, sizes)))


def _turn(stored: Stored, x: np.ndarray, sizes, source) -> np.ndarray:
    ours, letters = stored.ours or stored.theirs, stored.theirs.replace(" ", "")
    if x.shape != tuple(_sizes(stored.theirs, sizes)):
        found = " x ".join(map(str, x.shape))
        raise UserError(f"{source}: {stored.name} is {found} numbers, expected {_shape(stored.theirs, sizes)}")
    order = [letters.index(letter) for letter in ours.replace(" ", "")]
    x = x.astype(np.float32).reshape([sizes[letter] for letter in letters]).transpose(order)
    return np.ascontiguousarray(x).reshape(_sizes(ours, sizes))


def _turn_back(stored: Stored, y: np.ndarray, sizes) -> np.ndarray:
    ours, letters = (stored.ours or stored.theirs).replace(" ", ""), stored.theirs.replace(" ", "")
    order = [ours.index(letter) for letter in letters]
    y = y.reshape([sizes[letter] for letter in ours]).transpose(order)
    return np.ascontiguousarray(y).reshape(_sizes(stored.theirs, sizes))
