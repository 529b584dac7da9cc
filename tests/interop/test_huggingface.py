"""Weights in Hugging Face's form: the same numbers as transformers, there and back; and what is refused."""

import json
import shutil
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from lmjax import config, param
from lmjax.data.files import own_dir
from lmjax.errors import UserError
from lmjax.interop import huggingface
from lmjax.models import bert as b
from lmjax.models.gpt import LLAMA, gpt, gpt_params
from lmjax.models.vit import vit

pytest.importorskip("safetensors", reason="the extra lmjax[weights]")


@partial(jax.jit, static_argnums=1)
def gpt_logits(params, model, tokens):
    return gpt(params, model, tokens)


@partial(jax.jit, static_argnums=(0, 2))
def encoded(head, params, model, batch):
    return head(params, model, batch)


def last_layer(params, model, batch):
    return b.encode(params, model, batch)


def words(params, model, batch):
    return b.masked_logits(params, model, b.encode(params, model, batch))


def follows(params, model, batch):
    return b.next_logits(params, model, b.encode(params, model, batch))


def random(specs):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), param.shapes(specs))


HERE = Path(__file__).parent / "published"  # written by transformers: see make.py there


def kept(name):
    """(params, config, tensors by name) of a folder that transformers wrote, with what it computed."""
    from safetensors.numpy import load_file

    params, ours, tokenizer = huggingface.load(HERE / name)
    assert tokenizer is None
    return params, ours, load_file(HERE / name / "expected.safetensors")


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_published_decoder_gives_its_logits(name):
    params, ours, expected = kept(name)
    assert ours.groups in (0, 2)
    np.testing.assert_allclose(gpt_logits(params, ours, expected["input_ids"]), expected["logits"], atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "distilbert"])
def test_a_published_encoder_gives_its_logits(name):
    params, ours, expected = kept(name)
    batch = {"tokens": expected["input_ids"], "valid": expected["attention_mask"].astype(bool)}
    if name == "distilbert":
        np.testing.assert_allclose(encoded(b.classify, params, ours, batch), expected["logits"], atol=1e-5)
        return
    batch["segments"] = expected["token_type_ids"]
    found = encoded(words, params, ours, batch)[batch["valid"]]
    np.testing.assert_allclose(found, expected["prediction_logits"][batch["valid"]], atol=1e-5)
    found = encoded(follows, params, ours, batch)
    np.testing.assert_allclose(found, expected["seq_relationship_logits"], atol=1e-5)


def test_a_published_vit_gives_its_logits():
    params, ours, expected = kept("vit")
    images = expected["pixel_values"].transpose(0, 2, 3, 1)
    found = jax.jit(lambda params: vit(params, ours, images))(params)
    np.testing.assert_allclose(found, expected["logits"], atol=1e-5)


FAMILIES = ["gpt2", "llama", "bert", "distilbert", "vit"]


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_saved_is_the_file_it_came_from(name, tmp_path):
    from safetensors.numpy import load_file

    params, ours, _ = kept(name)
    huggingface.save(tmp_path, params, ours)
    written, was = (load_file(folder / "model.safetensors") for folder in (tmp_path, HERE / name))
    assert written.keys() == was.keys()
    for key in was:
        np.testing.assert_array_equal(written[key], was[key])
    again, model, _ = huggingface.load(tmp_path)
    assert model == ours
    jax.tree.map(np.testing.assert_array_equal, again, params)
    # What the two config.json both say is the same, but for the classes' names.
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path, HERE / name))
    for key in theirs.keys() & ours.keys() - {"rope_parameters", "n_inner"}:
        assert ours[key] == theirs[key], key


def edited(tmp_path, name, change=None, settings=None, file="model.safetensors"):
    """A copy of a published folder with its tensors changed (change(dict) in place) and its settings."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / name
    shutil.copytree(HERE / name, folder)
    (folder / "expected.safetensors").unlink()
    tensors = load_file(folder / "model.safetensors")
    if change:
        (folder / "model.safetensors").unlink()
        save_file(change(tensors), folder / file)
    if settings:
        data = json.loads((folder / "config.json").read_text()) | settings
        (folder / "config.json").write_text(json.dumps(data))
    return folder


def renamed(pairs):
    def change(tensors):
        for old, new in pairs:
            tensors = {name.replace(old, new): x for name, x in tensors.items()}
        return tensors

    return change


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("gpt2", [("transformer.", "")]),
        ("llama", [("model.", "")]),
        ("bert", [("bert.", "")]),
        ("bert", [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")]),
        ("distilbert", [("distilbert.", "")]),
        ("vit", [("vit.", "")]),
        ("vit", [("vit.encoder.layer.", "vit.layers."), ("attention.output.dense", "attention.o_proj"),
                 ("attention.attention.query", "attention.q_proj"), ("attention.attention.key", "attention.k_proj"),
                 ("attention.attention.value", "attention.v_proj"), ("intermediate.dense", "mlp.fc1"),
                 ("output.dense", "mlp.fc2")]),
    ],
)  # fmt: skip
def test_other_names_for_the_same_are_read(name, pairs, tmp_path):
    params, ours, _ = kept(name)
    again, model, _ = huggingface.load(edited(tmp_path, name, renamed(pairs)))
    assert model == ours
    jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.parametrize(
    ("name", "buffer"),
    [
        ("gpt2", "transformer.h.0.attn.bias"),
        ("gpt2", "transformer.h.1.attn.masked_bias"),
        ("gpt2", "lm_head.weight"),  # tied
        ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq"),
        ("bert", "bert.embeddings.position_ids"),
        ("bert", "cls.predictions.decoder.weight"),
        ("distilbert", "vocab_projector.weight"),
        ("vit", "vit.pooler.dense.weight"),
    ],
)
def test_buffers_and_copies_are_passed_over(name, buffer, tmp_path):
    folder = edited(tmp_path, name, lambda tensors: tensors | {buffer: np.ones((1, 3), np.float32)})
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(folder)[0], kept(name)[0])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_stored_and_read_to_float32(dtype, tmp_path):
    params, ours, _ = kept("gpt2")
    huggingface.save(tmp_path, params, ours, dtype=dtype)
    again, _, _ = huggingface.load(tmp_path)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y.astype(dtype).astype(np.float32)), again, params)
    assert (tmp_path / "model.safetensors").stat().st_size < 0.7 * (HERE / "gpt2/model.safetensors").stat().st_size


def test_a_model_in_several_files_is_read_by_its_index(tmp_path):
    from safetensors.numpy import save_file

    places = {}

    def split(tensors):
        for i, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2])):
            file = f"model-0000{i + 1}-of-00002.safetensors"
            save_file({name: tensors[name] for name in names}, tmp_path / "llama" / file)
            places.update(dict.fromkeys(names, file))
        return {"unused": np.zeros(1, np.float32)}

    folder = edited(tmp_path, "llama", split, file="other.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(folder)[0], kept("llama")[0])
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00002.safetensors is not there: expected it by .*index.json"):
        huggingface.load(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(UserError, match="is damaged: expected weight_map"):
        huggingface.load(folder)


def test_a_file_is_named_as_well_as_its_folder():
    jax.tree.map(
        np.testing.assert_array_equal, huggingface.load(HERE / "bert" / "model.safetensors")[0], kept("bert")[0]
    )


def dropped(name):
    return lambda tensors: {key: x for key, x in tensors.items() if key != name}


REFUSED = {
    "a missing tensor": ("gpt2", dropped("transformer.h.1.ln_2.bias"), None,
                         r"holds no transformer.h.1.ln_2.bias: expected 6 numbers"),
    "a missing part of a joint one": ("llama", dropped("model.layers.0.self_attn.k_proj.weight"), None,
                                      r"holds no model.layers.0.self_attn.k_proj.weight: expected 8 x 16 numbers"),
    "a wrong shape": ("bert", None, {"vocab_size": 21},
                      r"word_embeddings.weight is 20 x 12 numbers, expected 21 x 12"),
    "one more than there is place for": ("llama", lambda t: t | {"model.layers.0.mlp.bias": np.ones(2, np.float32)},
                                         None, r"holds model.layers.0.mlp.bias, for which llama .* has no place"),
    "a layer more": ("gpt2", None, {"n_layer": 1}, r"holds transformer.h.1.* and 10 more, for which gpt2"),
    "another architecture": ("gpt2", None, {"model_type": "mamba"}, r'model_type="mamba": expected one of gpt2, llama'),
    "another's weights": ("gpt2", None, {"model_type": "llama", "hidden_size": 6, "num_attention_heads": 3,
                                         "num_hidden_layers": 2, "intermediate_size": 24},
                          r"holds no model.layers.0.mlp.down_proj.weight: expected 6 x 24 numbers"),
    "scaled rotary positions": ("llama", None, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
                                r"rope_scaling=.*linear.*: lmjax has null"),
    "scaled rotary positions, newer": (
        "llama", None, {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}},
        r"rope_parameters=.*llama3.*: lmjax has the default kind only"),
    "a head size of its own": ("llama", None, {"head_dim": 8}, r"head_dim=8: lmjax has 4 or null only"),
    "another activation": ("bert", None, {"hidden_act": "relu"}, r'hidden_act="relu": lmjax has "gelu" only'),
    "attention with biases": ("llama", None, {"attention_bias": True}, r"attention_bias=true: lmjax has false only"),
    "no size": ("gpt2", None, {"n_layer": "two"}, r"n_layer='two': expected a whole number"),
    "sizes that do not go together": ("gpt2", None, {"n_head": 4}, r"config.json: model.dim=6 is not a multiple"),
    "heads of no groups": ("llama", None, {"num_key_value_heads": 3}, r"model.groups=3 does not divide"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_folder_is_one_line(case, tmp_path):
    name, change, settings, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        huggingface.load(edited(tmp_path, name, change, settings))
    assert "\n" not in str(caught.value)


def test_a_damaged_or_pickled_file_is_one_line(tmp_path):
    folder = edited(tmp_path, "gpt2")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for content in (b"", whole[:500], whole[:-4], b"x" * 500):
        weights.write_bytes(content)
        with pytest.raises(UserError, match=r"model.safetensors is no whole safetensors file .*: fetch it again"):
            huggingface.load(folder)
    weights.rename(folder / "pytorch_model.bin")
    for path in (folder, folder / "pytorch_model.bin"):
        with pytest.raises(UserError, match=r"pickle, which may run any code as it is read: expected"):
            huggingface.load(path)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"holds no model.safetensors"):
        huggingface.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json is no JSON"):
        huggingface.load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"holds no config.json"):
        huggingface.load(folder)
    with pytest.raises(UserError, match=r"is not there"):
        huggingface.load(tmp_path / "nowhere")


def test_a_gpt_of_ours_is_saved_as_gpt2_with_zeros_for_the_biases_it_lacks(tmp_path):
    ours = config.GPT(vocab=11, context=8, layers=2, heads=2, dim=8, bias=False, scan=True)
    params = random(gpt_params(ours))
    huggingface.save(tmp_path, params, ours)
    again, model, _ = huggingface.load(tmp_path)
    tokens = np.arange(8)[None]
    np.testing.assert_allclose(gpt_logits(again, model, tokens), gpt_logits(params, ours, tokens), atol=1e-6)
    assert model.bias


@pytest.mark.parametrize(
    "changes", [{"positions": "sinusoidal"}, LLAMA | {"norm": "layer"}, {"groups": 1}, LLAMA | {"bias": True}]
)
def test_a_model_that_transformers_has_not_is_not_saved(changes, tmp_path):
    ours = config.GPT(vocab=11, context=8, layers=1, heads=2, dim=8, **changes)
    with pytest.raises(UserError, match="neither GPT-2's nor Llama's choice"):
        huggingface.save(tmp_path / "no", random(gpt_params(ours)), ours)
    assert not (tmp_path / "no").exists()


def test_a_real_folder_is_read_with_its_tokenizer(tmp_path):
    pytest.importorskip("tokenizers", reason="the extra lmjax[text]")
    folder = own_dir() and own_dir() / "pretrained-tiny" / "tiny_gpt2"
    if not folder or not folder.is_dir():
        pytest.skip("no pretrained-tiny/tiny_gpt2 under LMJAX_DATA")
    params, ours, tokenizer = huggingface.load(folder)
    assert (ours.vocab, ours.dim, ours.context, ours.hidden) == (21, 2, 1024, 0)
    assert param.count(params) == param.count(gpt_params(ours)) == 2168
    ids = tokenizer.encode("low")
    assert tokenizer.decode(ids) == "low"
    assert np.isfinite(gpt_logits(params, ours, ids[None])).all()
    huggingface.save(tmp_path, params, ours, tokenizer, template="{{ messages }}")
    again, _, same = huggingface.load(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    np.testing.assert_array_equal(same.encode("lower"), tokenizer.encode("lower"))
    assert huggingface.chat_template(tmp_path) == "{{ messages }}"
    assert huggingface.chat_template(folder) is None


# Beside transformers itself, where it is installed.


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch", reason="beside transformers: pip install torch transformers")
    torch.set_num_threads(1)
    return torch


@pytest.fixture(scope="module")
def transformers(torch):
    return pytest.importorskip("transformers", reason="beside transformers: pip install torch transformers")


def drawn(torch, model, seed):
    """Every weight away from where it starts, biases too."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    return model.eval()


def sizes(seed):
    rng = np.random.default_rng(seed)
    heads = int(rng.choice([1, 2, 3, 4, 6]))
    groups = int(rng.choice([g for g in range(1, heads + 1) if heads % g == 0]))
    dim = heads * int(rng.choice([2, 4, 8, 10]))
    return rng, heads, groups, dim, int(rng.integers(1, 4)), int(rng.integers(5, 70)), int(rng.integers(20, 90))


def there_and_back(torch, model, folder, seed):
    """Our reading of transformers' files; and theirs of ours, which must be the very same model."""
    model = drawn(torch, model, seed)
    model.save_pretrained(folder / "theirs")
    params, ours, tokenizer = huggingface.load(folder / "theirs")
    assert tokenizer is None
    huggingface.save(folder / "ours", params, ours)
    again, report = type(model).from_pretrained(folder / "ours", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    kept = again.state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(kept[name], weight), name
    return model, params, ours


def padded(rng, rows, length, vocab):
    tokens = rng.integers(0, vocab, (rows, length))
    valid = np.arange(length)[None] < rng.integers(1, length + 1, rows)[:, None]
    return tokens, valid, rng.integers(0, 2, (rows, length))


@pytest.mark.parametrize("seed", range(20))
def test_gpt2_is_transformers(seed, torch, transformers, tmp_path):
    rng, heads, _, dim, layers, hidden, vocab = sizes(seed)
    theirs = transformers.GPT2Config(
        vocab_size=vocab, n_positions=24, n_embd=dim, n_layer=layers, n_head=heads,
        n_inner=hidden if seed % 2 else None, layer_norm_epsilon=float(rng.choice([1e-5, 1e-3])),
        tie_word_embeddings=bool(seed % 3), bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model, params, ours = there_and_back(torch, transformers.GPT2LMHeadModel(theirs), tmp_path, seed)
    tokens = rng.integers(0, vocab, (2, int(rng.integers(1, 25))))
    expected = model(torch.tensor(tokens)).logits.detach().numpy()
    np.testing.assert_allclose(gpt_logits(params, ours, tokens), expected, atol=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_llama_is_transformers(seed, torch, transformers, tmp_path):
    rng, heads, groups, dim, layers, hidden, vocab = sizes(seed)
    theirs = transformers.LlamaConfig(
        vocab_size=vocab, max_position_embeddings=24, hidden_size=dim, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=groups, intermediate_size=hidden,
        rms_norm_eps=float(rng.choice([1e-5, 1e-3])), tie_word_embeddings=bool(seed % 2),
        rope_parameters={"rope_theta": float(rng.choice([100.0, 10000.0])), "rope_type": "default"},
        pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model, params, ours = there_and_back(torch, transformers.LlamaForCausalLM(theirs), tmp_path, seed)
    tokens = rng.integers(0, vocab, (2, int(rng.integers(1, 25))))
    expected = model(torch.tensor(tokens)).logits.detach().numpy()
    np.testing.assert_allclose(gpt_logits(params, ours, tokens), expected, atol=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_bert_is_transformers(seed, torch, transformers, tmp_path):
    rng, heads, _, dim, layers, hidden, vocab = sizes(seed)
    theirs = transformers.BertConfig(
        vocab_size=vocab, max_position_embeddings=24, hidden_size=dim, num_hidden_layers=layers,
        num_attention_heads=heads, intermediate_size=hidden, num_labels=4 - 2 * (seed % 5 == 3),
        layer_norm_eps=float(rng.choice([1e-12, 1e-3])),
    )  # fmt: skip
    kinds = {"ForPreTraining": words, "ForSequenceClassification": b.classify, "ForTokenClassification": b.tag,
             "ForQuestionAnswering": b.spans, "Model": last_layer}  # fmt: skip
    kind = list(kinds)[seed % 5]
    model, params, ours = there_and_back(torch, getattr(transformers, "Bert" + kind)(theirs), tmp_path, seed)
    tokens, valid, segments = padded(rng, 3, int(rng.integers(1, 25)), vocab)
    given = {"input_ids": tokens, "attention_mask": valid.astype(int), "token_type_ids": segments}
    expected = model(**{name: torch.tensor(x) for name, x in given.items()})
    batch = {"tokens": tokens, "valid": valid, "segments": segments}
    compare(kind, kinds[kind], expected, params, ours, batch)
    if kind == "ForPreTraining":
        theirs = expected.seq_relationship_logits.detach().numpy()
        np.testing.assert_allclose(encoded(follows, params, ours, batch), theirs, atol=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_distilbert_is_transformers(seed, torch, transformers, tmp_path):
    rng, heads, _, dim, layers, hidden, vocab = sizes(seed)
    theirs = transformers.DistilBertConfig(
        vocab_size=vocab, max_position_embeddings=24, dim=dim, n_layers=layers, n_heads=heads, hidden_dim=hidden,
        num_labels=4 - 2 * (seed % 5 == 3),
    )  # fmt: skip
    kinds = {"ForMaskedLM": words, "ForSequenceClassification": b.classify, "ForTokenClassification": b.tag,
             "ForQuestionAnswering": b.spans, "Model": last_layer}  # fmt: skip
    kind = list(kinds)[seed % 5]
    model, params, ours = there_and_back(torch, getattr(transformers, "DistilBert" + kind)(theirs), tmp_path, seed)
    tokens, valid, _ = padded(rng, 3, int(rng.integers(1, 25)), vocab)
    expected = model(torch.tensor(tokens), attention_mask=torch.tensor(valid.astype(int)))
    compare(kind, kinds[kind], expected, params, ours, {"tokens": tokens, "valid": valid})


def compare(kind, head, expected, params, ours, batch):
    """Where the tokens count: what stands in the padding is nobody's business."""
    found, valid = encoded(head, params, ours, batch), batch["valid"]
    if kind == "ForQuestionAnswering":
        for mine, theirs in zip(found, (expected.start_logits, expected.end_logits), strict=True):
            np.testing.assert_allclose(mine[valid], theirs.detach().numpy()[valid], atol=1e-4)
        return
    names = {"Model": "last_hidden_state", "ForPreTraining": "prediction_logits"}
    theirs = getattr(expected, names.get(kind, "logits")).detach().numpy()
    if kind == "ForSequenceClassification":
        np.testing.assert_allclose(found, theirs, atol=1e-4)
    else:
        np.testing.assert_allclose(found[valid], theirs[valid], atol=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_vit_is_transformers(seed, torch, transformers, tmp_path):
    rng, heads, _, dim, layers, hidden, _ = sizes(seed)
    patch, side, channels = int(rng.integers(1, 5)), int(rng.integers(1, 5)), int(rng.choice([1, 3]))
    theirs = transformers.ViTConfig(
        image_size=patch * side, patch_size=patch, num_channels=channels, hidden_size=dim, num_hidden_layers=layers,
        num_attention_heads=heads, intermediate_size=hidden, num_labels=int(rng.integers(2, 9)),
        layer_norm_eps=float(rng.choice([1e-12, 1e-3])),
    )  # fmt: skip
    model, params, ours = there_and_back(torch, transformers.ViTForImageClassification(theirs), tmp_path, seed)
    images = rng.normal(size=(2, patch * side, patch * side, channels)).astype(np.float32)
    expected = model(torch.tensor(images.transpose(0, 3, 1, 2))).logits.detach().numpy()
    found = jax.jit(lambda params: vit(params, ours, images))(params)
    np.testing.assert_allclose(found, expected, atol=1e-4)
