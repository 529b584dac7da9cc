"""SIGKILL at any moment, then the same command again: the same parameters, optimizer and log, to the bit.

LMJAX_KILLS=10 kills each run ten times, every second time inside a save, and asks each to stop once before. The suite
kills each once, inside a save, and asks two.
"""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from xla_flags import QUICK

from lmjax.data.images import MNIST, write_idx
from lmjax.data.squad import facts, write_squad

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("LMJAX_KILLS", "1"))
# A start that finds its programs compiled takes half the time.
CACHE = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
COMMON = ["--evaluate_every=8", "--save_every=2", "--log_every=3", "--quiet=true"]
RUNS = {
    "gpt with accumulation": [
        "gpt_char.py", "--steps=48", "--accumulate=2", "--batch=4", "--model.context=16", "--model.layers=1",
        "--model.dim=16", "--model.heads=2", "--model.dropout=0.1", "--ema=0.9", "--sample=0",
    ],
    "lstm with dropout and its state": [
        "lstm_ptb.py", "--epochs=3", "--batch=2", "--unroll=8", "--model.dim=16", "--model.dropout_input=0.3",
        "--model.dropout_layer=0.3", "--model.dropout_output=0.3",
    ],
    "word vectors": [
        "word2vec.py", "--min_count=1", "--epochs=2", "--turns=2", "--model.positions=16", "--model.block=4",
        "--model.dim=8", "--model.sample=0.1",
    ],
    "subword vectors": [
        "subword.py", "--min_count=1", "--epochs=2", "--turns=2", "--model.positions=16", "--model.block=4",
        "--model.dim=8", "--model.sample=0.1", "--model.buckets=100",
    ],
    "word vectors by AdaGrad": [
        "glove.py", "--min_count=1", "--window=3", "--epochs=12", "--turns=1", "--model.rows=1", "--model.group=4",
        "--model.dim=8",
    ],
    "images": [
        "vit.py", "--data=twin", "--epochs=12", "--batch=6", "--model.patch=4", "--model.layers=1", "--model.dim=8",
        "--model.heads=2", "--model.dropout=0.1", "--pictures=2",
    ],
    "two players in lanes": [
        "gan_mixtures.py", "--data=ring", "--steps=48", "--frames=4", "--seeds=2", "--batch=8", "--samples=20",
        "--game.critic_steps=2", "--game.unroll=1", "--game.ema=0.9", "--model.batch_norm=true", "--model.hidden=8",
        "--model.critic_hidden=8",
    ],
    "SeqGAN's game": [
        "seqgan.py", "--seeds=2", "--batch=8", "--sequences=16", "--held_out=8", "--written=8",
        "--epochs=4", "--judge_first=4", "--rounds=24", "--rollouts=2", "--model.vocab=12", "--model.length=4",
        "--model.embed=4", "--model.cells=4", "--judge.embed=4", "--judge.windows=3", "--judge.maps=4",
    ],
    "masked words": [
        "bert_pretrain.py", "--data=pages.txt", "--steps=48", "--batch=4", "--model.context=16", "--model.layers=1",
        "--model.dim=16", "--model.heads=2", "--model.dropout=0.1", "--vocab=100", "--validation=32",
    ],
    "texts to classify, in lanes": [
        "classify.py", "--data=labelled.txt", "--network=lstm", "--epochs=6", "--batch=10", "--lstm.embed=8",
        "--lstm.dim=8", "--seeds=2", "--lanes=lr=1e-3,1e-2",
    ],
    "answers": [
        "answer.py", "--data=facts.json", "--batch=4", "--epochs=6", "--shapes=1", "--valid_articles=1",
        "--test_articles=1", "--negatives=0.3", "--crop=12", "--window=64", "--stride=16", "--question_length=12",
        "--model.embed=8", "--model.filters=0", "--model.highway=0", "--model.dim=4",
    ],
    "tagged words": [
        "tag.py", "--data=columns.txt", "--epochs=6", "--batch=10", "--shapes=1", "--forget=0.5", "--model.word_dim=8",
        "--model.letter_dim=4", "--model.letter_cells=4", "--model.cells=8",
    ],
    "translations": [
        "translate_multi30k.py", "--data=pairs", "--source=aa", "--target=bb", "--tokens=spaces", "--rows=16",
        "--shapes=1", "--epochs=6", "--average=2", "--model.layers=1", "--model.dim=16", "--model.heads=2",
        "--model.hidden=16", "--model.dropout_attention=0.1",
    ],
}  # fmt: skip


def start(name, folder):
    script, *flags = RUNS[name]
    own = script == "seqgan.py" or any(flag.startswith("--data=") for flag in flags)
    data = [] if own else ["--data=text.txt"]
    command = [sys.executable, str(ROOT / "experiments" / script), *flags, *data, *COMMON, f"--workdir={folder.name}"]
    fast = "" if KILLS > 1 else QUICK
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": fast} | CACHE
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder.parent / "cache")
    return subprocess.Popen(
        command, cwd=folder.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def end_of(process):
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out


def steps_saved(folder):
    return max((int(path.name) for path in (folder / "checkpoints").glob("[0-9]*")), default=0)


def kill_after(process, folder, step, inside):
    """Kills once a checkpoint of `step` steps is there: at once, or, `inside`, while the next is being written.

    True where the folder that the save left behind proves it was inside.
    """
    while process.poll() is None and steps_saved(folder) < step:
        time.sleep(0.001)
    while inside and process.poll() is None and not any((folder / "checkpoints").glob(".tmp-*")):
        time.sleep(0.0002)
    process.kill()
    process.communicate()
    return any((folder / "checkpoints").glob(".tmp-*"))


def asked(process, folder, step):
    """Asks a run to stop by SIGTERM once a checkpoint of `step` steps is there: it saves and leaves within seconds."""
    while process.poll() is None and steps_saved(folder) < step:
        time.sleep(0.001)
    process.terminate()
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM, out
    assert "saved at step" in out.splitlines()[-1]


def what_is_left(folder):
    """The hashes of every array of the last checkpoint, the log, and what the run decided."""
    last = max((folder / "checkpoints").glob("[0-9]*"))
    manifest = json.loads("".join((last / "manifest.json").read_text().splitlines()[:-1]))
    history = manifest["meta"]["history"]
    return manifest["step"], manifest["arrays"], history, (folder / "metrics.jsonl").read_bytes()


def digits(folder, rng):
    """A twin of MNIST's files: 30 training and 6 test images."""
    folder.mkdir()
    for file in MNIST.files:
        count = 30 if file.split.startswith("train") else 6
        shape, most = ((count, 8, 8), 256) if file.split.endswith("images") else ((count,), 3)
        values = [rng.randrange(most) for _ in range(math.prod(shape))]
        write_idx(folder / file.name, np.array(values).reshape(shape))


def pairs(folder, words):
    """Sentences of one to six words and the same turned round."""
    folder.mkdir()
    lines = [words[i : i + 1 + i % 6] for i in range(120)]
    for split, some in (("train", lines), ("valid", lines[:20]), ("test", lines[:4])):
        (folder / f"{split}.aa").write_text("".join(" ".join(line) + "\n" for line in some))
        (folder / f"{split}.bb").write_text("".join(" ".join(line[::-1]) + "\n" for line in some))


def material(folder, rng):
    """What the runs read."""
    words = [rng.choice(["the", "cat", "sat", "on", "a", "mat"]) for _ in range(600)]
    (folder / "text.txt").write_text("\n".join(" ".join(words[i : i + 6]) for i in range(0, 600, 6)))
    (folder / "pages.txt").write_text("\n\n".join(". ".join(words[i : i + 5]) for i in range(0, 600, 5)))
    digits(folder / "twin", rng)
    pairs(folder / "pairs", words)
    write_squad(folder / "facts.json", facts(articles=5, seed=0, paragraphs=6))
    tagged = ["\n".join(f"{word} {'B-X' if word[0] == 'c' else 'O'}" for word in words[i : i + 6]) for i in range(100)]
    (folder / "columns.txt").write_text("\n\n".join(tagged))
    labelled = [f"{words[i + i // 5 % 2]}\t{' '.join(words[i : i + 1 + i % 5])}\n" for i in range(100)]
    (folder / "labelled.txt").write_text("".join(labelled))


@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_ends_in_the_same_bits(name, tmp_path):
    if name == "translations":
        pytest.importorskip("sacrebleu", reason="the translate extra is absent")
    rng = random.Random(name)
    material(tmp_path, rng)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    end_of(start(name, whole))
    steps, inside = steps_saved(whole), 0
    if (whole / "tokenizer.json").exists():  # two trainings of a tokenizer may differ; a run keeps its own
        killed.mkdir()
        shutil.copy(whole / "tokenizer.json", killed)
    if KILLS > 1 or name in ("gpt with accumulation", "two players in lanes"):
        asked(start(name, killed), killed, 2)
    for n, step in enumerate(sorted(rng.sample(range(4, steps - 6), KILLS))):
        process = start(name, killed)
        inside += kill_after(process, killed, step, inside=n % 2 == 0)
        assert process.returncode == -signal.SIGKILL
    assert inside >= KILLS // 2
    end_of(start(name, killed))
    print(f"{name}: {KILLS} kills, {inside} proven inside a save")
    assert what_is_left(killed) == what_is_left(whole)
