"""What transformers' config.json says of a model, and ours of the same: read, written, refused.

`FAMILIES` has an entry for each model type. A setting that our model does not have (scaled rotary positions, another
activation, ...) is refused in one line, for the weights would run and give something else.
"""

import json
from collections.abc import Callable
from typing import NamedTuple

from lmjax import config
from lmjax.errors import UserError
from lmjax.interop import tables
from lmjax.models import bert, gpt, vit


class Family(NamedTuple):
    """One of transformers' model types.

    table: see tables.py; names there begin with `prefix` where the files of a bare model drop it. Tensors that match
    `ignored` are buffers or copies. renamed: (pattern, replacement) of names that other versions wrote. read(given) ->
    config; write(config, params) -> what config.json says of it; specs(config, names, given) -> Param tree.
    """

    prefix: str
    table: dict
    ignored: str
    read: Callable
    write: Callable
    specs: Callable
    renamed: tuple = ()


class Given:
    """What a config.json says. UserError, with the file's name, where it lacks what is asked for."""

    def __init__(self, data: dict, source):
        self.data, self.source = data, source

    def size(self, name: str, default=None) -> int:
        value = self.data.get(name)
        value = default if value is None else value
        if type(value) is not int or value < 0:
            raise UserError(f"{self.source}: {name}={value!r}: expected a whole number")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.data.get(name, default)
        if type(value) not in (int, float):
            raise UserError(f"{self.source}: {name}={value!r}: expected a number")
        return float(value)

    def only(self, name: str, *allowed) -> None:
        """The first of `allowed` is what a missing setting means."""
        value = self.data.get(name, allowed[0])
        if value not in allowed:
            names = " or ".join(map(json.dumps, allowed))
            raise UserError(f"{self.source}: {name}={json.dumps(value)[:80]}: lmjax has {names} only")

    def flag(self, name: str, default: bool) -> bool:
        self.only(name, default, not default)
        return self.data.get(name, default)


# Each model type: its config.json read and written, and which parameters a file holds.


def _read_gpt2(given: Given) -> config.GPT:
    given.only("activation_function", "gelu_new", "gelu_pytorch_tanh")
    given.only("scale_attn_weights", True)
    given.only("scale_attn_by_inverse_layer_idx", False)
    given.only("add_cross_attention", False)
    return config.GPT(
        vocab=given.size("vocab_size"), context=given.size("n_positions"), layers=given.size("n_layer"),
        heads=given.size("n_head"), dim=given.size("n_embd"), hidden=given.size("n_inner", 0),
        epsilon=given.number("layer_norm_epsilon", 1e-5), dropout=given.number("resid_pdrop", 0.1),
        tied=given.flag("tie_word_embeddings", True),
    )  # fmt: skip


def _write_gpt2(model: config.GPT, params) -> dict:
    return {
        "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new", "vocab_size": model.vocab,
        "n_positions": model.context, "n_layer": model.layers, "n_head": model.heads, "n_embd": model.dim,
        "n_inner": model.hidden or None, "layer_norm_epsilon": model.epsilon, "tie_word_embeddings": model.tied,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), model.dropout),
    }  # fmt: skip


def _read_llama(given: Given) -> config.GPT:
    given.only("hidden_act", "silu")
    given.only("attention_bias", False)
    given.only("mlp_bias", False)
    given.only("rope_scaling", None, {"rope_type": "default"}, {"type": "default"})
    given.only("partial_rotary_factor", 1.0, 1, None)
    rope = given.data.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        raise UserError(f"{given.source}: rope_parameters={rope!r}: expected an object")
    if set(rope) - {"rope_theta", "rope_type"} or rope.get("rope_type", "default") != "default":
        raise UserError(f"{given.source}: rope_parameters={json.dumps(rope)[:80]}: lmjax has the default kind only")
    dim, heads = given.size("hidden_size"), given.size("num_attention_heads")
    if heads:
        given.only("head_dim", dim // heads, None)
    base = Given(rope, given.source).number("rope_theta", given.number("rope_theta", 10000.0))
    return config.GPT(
        vocab=given.size("vocab_size"), context=given.size("max_position_embeddings", 2048),
        layers=given.size("num_hidden_layers"), heads=heads, dim=dim, hidden=given.size("intermediate_size"),
        groups=given.size("num_key_value_heads", heads), epsilon=given.number("rms_norm_eps", 1e-6), rotary_base=base,
        **{**gpt.LLAMA, "tied": given.flag("tie_word_embeddings", False)},
    )  # fmt: skip


def _write_llama(model: config.GPT, params) -> dict:
    return {
        "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "vocab_size": model.vocab,
        "max_position_embeddings": model.context, "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads, "num_key_value_heads": model.groups or model.heads,
        "hidden_size": model.dim, "head_dim": model.dim // model.heads,
        "intermediate_size": model.hidden or 4 * model.dim, "rms_norm_eps": model.epsilon,
        "rope_theta": model.rotary_base, "rope_parameters": {"rope_theta": model.rotary_base, "rope_type": "default"},
        "tie_word_embeddings": model.tied, "attention_bias": False, "mlp_bias": False,
    }  # fmt: skip


def _read_bert(given: Given) -> config.BERT:
    given.only("hidden_act", "gelu")
    given.only("position_embedding_type", "absolute")
    given.only("is_decoder", False)
    given.only("add_cross_attention", False)
    given.only("tie_word_embeddings", True)
    return config.BERT(
        vocab=given.size("vocab_size"), context=given.size("max_position_embeddings"),
        layers=given.size("num_hidden_layers"), heads=given.size("num_attention_heads"), dim=given.size("hidden_size"),
        hidden=given.size("intermediate_size"), segments=given.size("type_vocab_size", 2),
        dropout=given.number("hidden_dropout_prob", 0.1), epsilon=given.number("layer_norm_eps", 1e-12),
    )  # fmt: skip


def _write_bert(model: config.BERT, params) -> dict:
    return {
        "architectures": ["Bert" + _task(params)], "hidden_act": "gelu", "vocab_size": model.vocab,
        "max_position_embeddings": model.context, "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads, "hidden_size": model.dim,
        "intermediate_size": model.hidden or 4 * model.dim, "type_vocab_size": model.segments,
        "hidden_dropout_prob": model.dropout, "attention_probs_dropout_prob": model.dropout,
        "layer_norm_eps": model.epsilon, **_labels(params),
    }  # fmt: skip


def _read_distilbert(given: Given) -> config.BERT:
    given.only("activation", "gelu")
    given.only("tie_word_embeddings", True)
    return config.BERT(
        vocab=given.size("vocab_size"), context=given.size("max_position_embeddings"), layers=given.size("n_layers"),
        heads=given.size("n_heads"), dim=given.size("dim"), hidden=given.size("hidden_dim"), segments=0,
        pooler="relu", dropout=given.number("dropout", 0.1), epsilon=1e-12,
    )  # fmt: skip


def _write_distilbert(model: config.BERT, params) -> dict:
    if model.epsilon != 1e-12:
        raise UserError(f"model.epsilon={model.epsilon:g}: DistilBERT's is 1e-12 and its config.json has no other")
    return {
        "architectures": ["DistilBert" + _task(params)], "activation": "gelu", "vocab_size": model.vocab,
        "max_position_embeddings": model.context, "n_layers": model.layers, "n_heads": model.heads, "dim": model.dim,
        "hidden_dim": model.hidden or 4 * model.dim, "dropout": model.dropout, "attention_dropout": model.dropout,
        **_labels(params),
    }  # fmt: skip


def _task(params) -> str:
    """The class of transformers, behind "Bert", that holds these heads."""
    names = {
        ("masked", "next"): "ForPreTraining", ("next",): "ForNextSentencePrediction", ("masked",): "ForMaskedLM",
        ("classify",): "ForSequenceClassification", ("tag",): "ForTokenClassification",
        ("span",): "ForQuestionAnswering",
    }  # fmt: skip
    return names.get(tuple(name for name in ("masked", "next", "classify", "tag", "span") if name in params), "Model")


def _labels(params) -> dict:
    head = params.get("classify") or params.get("tag")
    return {} if head is None else _named(head["w"].shape[-1])


def _named(classes: int) -> dict:
    return {"id2label": {str(i): f"LABEL_{i}" for i in range(classes)},
            "label2id": {f"LABEL_{i}": i for i in range(classes)}}  # fmt: skip


def _bert_specs(model: config.BERT, shapes: dict, given: Given) -> dict:
    distil = not model.segments
    heads = {
        "pooler": ("pre_classifier" if distil else "bert.pooler.dense", bert.pooler_params),
        "masked": ("vocab_transform" if distil else "cls.predictions.transform.dense", bert.masked_params),
        "next": ("cls.seq_relationship", lambda model: bert.pretrain_params(model)["next"]),
        "span": ("qa_outputs", lambda model: bert.span_params(model)["span"]),
    }
    specs = {"bert": bert.bert_params(model)}
    specs |= {head: make(model) for head, (name, make) in heads.items() if f"{name}.weight" in shapes}
    if "classifier.weight" in shapes:
        asked = "TokenClassification" in "".join(map(str, given.data.get("architectures") or []))
        head, make = ("tag", bert.tagger_params)
        if not asked and "pooler" in specs:
            head, make = ("classify", bert.classifier_params)
        specs[head] = make(model, shapes["classifier.weight"][0])[head]
    return specs


def _read_vit(given: Given) -> config.ViT:
    given.only("hidden_act", "gelu")
    given.only("qkv_bias", True)
    labels = given.data.get("id2label")
    return config.ViT(
        size=given.size("image_size", 224), patch=given.size("patch_size", 16), channels=given.size("num_channels", 3),
        classes=len(labels) if labels else given.size("num_labels", 2), layers=given.size("num_hidden_layers"),
        heads=given.size("num_attention_heads"), dim=given.size("hidden_size"), hidden=given.size("intermediate_size"),
        dropout=given.number("hidden_dropout_prob", 0.0), epsilon=given.number("layer_norm_eps", 1e-12),
    )  # fmt: skip


def _write_vit(model: config.ViT, params) -> dict:
    return {
        "architectures": ["ViTForImageClassification"], "hidden_act": "gelu", "qkv_bias": True,
        "image_size": model.size, "patch_size": model.patch, "num_channels": model.channels,
        "num_hidden_layers": model.layers, "num_attention_heads": model.heads, "hidden_size": model.dim,
        "intermediate_size": model.hidden or 4 * model.dim, "hidden_dropout_prob": model.dropout,
        "attention_probs_dropout_prob": model.dropout, "layer_norm_eps": model.epsilon, **_named(model.classes),
    }  # fmt: skip


def _gpt_specs(model: config.GPT, shapes, given) -> dict:
    return gpt.gpt_params(model)


def _vit_specs(model: config.ViT, shapes, given) -> dict:
    return vit.vit_params(model)


# Names that BERT's first conversions have, and those of transformers' newest ViT.
_GAMMA = ((r"\.gamma$", ".weight"), (r"\.beta$", ".bias"))
_VIT = (
    (r"^vit\.layers\.", "vit.encoder.layer."),
    (r"attention\.q_proj\.", "attention.attention.query."),
    (r"attention\.k_proj\.", "attention.attention.key."),
    (r"attention\.v_proj\.", "attention.attention.value."),
    (r"attention\.o_proj\.", "attention.output.dense."),
    (r"mlp\.fc1\.", "intermediate.dense."),
    (r"mlp\.fc2\.", "output.dense."),
)
_BUFFERS = r"position_ids$|token_type_ids$|"
FAMILIES = {
    "gpt2": Family("transformer.", tables.GPT2, r"attn\.(masked_)?bias$", _read_gpt2, _write_gpt2, _gpt_specs),
    "llama": Family("model.", tables.LLAMA, r"rotary_emb\.inv_freq$", _read_llama, _write_llama, _gpt_specs),
    "bert": Family("bert.", tables.BERT, _BUFFERS + r"^cls\.predictions\.decoder\.", _read_bert, _write_bert,
                   _bert_specs, _GAMMA),
    "distilbert": Family("distilbert.", tables.DISTILBERT, _BUFFERS + r"^vocab_projector\.weight$", _read_distilbert,
                         _write_distilbert, _bert_specs),
    "vit": Family("vit.", tables.VIT, r"^vit\.pooler\.", _read_vit, _write_vit, _vit_specs, _VIT),
}  # fmt: skip
