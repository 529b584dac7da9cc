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
from lmjax.models.vit import vit, vit_params

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


# Beside transformers itself, where it is installed.


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="beside transformers: pip install torch transformers")


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
        vocab_size=vocab, n_positions=24, n_embd=dim, n_layer=layers, n_head=heads, n_inner=hidden if seed % 2 else None,
        layer_norm_epsilon=float(rng.choice([1e-5, 1e-3])), tie_word_embeddings=bool(seed % 3),
        bos_token_id=0, eos_token_id=0,
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
