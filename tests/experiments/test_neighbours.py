"""experiments/neighbours.py from its flags to its tables and its picture, on planted vectors."""

import io
import sys

import numpy as np
import pytest

from experiments import neighbours
from lmjax.config import Subword
from lmjax.errors import UserError
from lmjax.interop.fasttext import write_fasttext
from lmjax.interop.vectors import write_vectors
from lmjax.models.subword import ngrams
from lmjax.run import flags
from lmjax.run.tasks import vector_map


def run(*words: str):
    neighbours.main(flags.parse(neighbours.Config, argv=["neighbours.py", *words]))


@pytest.fixture
def vectors(tmp_path):
    """king - man + woman is nearest to queen; the others are round about."""
    rng = np.random.default_rng(0)
    planted = {"man": [1, 0, 0], "woman": [0, 1, 0], "king": [1, 0, 1], "queen": [0, 1, 1], "東京": [0, -1, 0.1]}
    words = [*planted, *(f"word{number}" for number in range(60))]
    table = np.vstack([list(planted.values()), rng.standard_normal((60, 3)) * [0.1, 0.1, 1] - [1, 1, 0]])
    write_vectors(tmp_path / "vectors.txt", words, table)
    return tmp_path / "vectors.txt"


def test_tables(vectors, capsys):
    run(f"--vectors={vectors}", "--words=king,Queen,man,woman,東京", "--analogy=king,man,woman", "--count=3")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{vectors}: 65 words of 3 dimensions"
    head, first = lines[2:4]
    assert head.split() == ["king", "Queen", "man", "woman"]
    assert first.split() == ["0.707", "man", "0.707", "woman", "0.707", "king", "0.707", "queen"]
    assert [first[head.index(word) :][:6].strip() for word in head.split()] == ["0.707"] * 4  # below its word
    at = lines.index("king - man + woman")
    assert lines[at + 1].split() == ["0.959", "queen"]  # (1 + √½) / √(1 + ½ + (1 - √½)²)
    assert sum("東京" in line for line in lines) == 1  # the fifth word begins a row of its own


def test_columns_stand_below_each_other_in_a_terminal():
    lines = neighbours.columns({"春眠": [("不覺曉", 0.5)], "e\u0301": [("x", -1.0)]})
    assert lines == ["", "春眠" + " " * 15 + "e\u0301", " 0.500 不覺曉" + " " * 6 + "-1.000 x"]


def test_a_run_of_word2vec(vectors, capsys):
    run(f"--workdir={vectors.parent}", "--words=king", "--limit=4", "--count=9")
    assert capsys.readouterr().out.count("0.") == 3  # queen, man and, of cosine 0, woman
    with pytest.raises(UserError, match=r"holds no vectors\.txt"):
        run("--workdir=nowhere", "--words=king")


def test_a_fasttext_model_answers_for_words_it_never_saw(tmp_path, capsys):
    words, config = ["ship", "shipping", "king"], Subword(vocab=3, dim=4, buckets=1000)
    table = np.zeros((1003, 4), np.float32)
    ids, start = ngrams(words, config)
    table[3 + ids[start[2] :], 0] = 1  # king's
    table[3 + ids[: start[2]], 1] = 1
    params = {"input": table, "output": np.zeros((3, 4), np.float32)}
    write_fasttext(tmp_path / "fasttext.bin", words, [3, 2, 1], params, config, epochs=1, min_count=1)
    run(f"--workdir={tmp_path}", "--words=Shipped,kings", "--count=1")
    head, first = capsys.readouterr().out.splitlines()[2:4]
    assert head.split() == ["Shipped", "kings"]
    assert first.split()[1::2] == ["ship", "king"]
    (tmp_path / "word-eval").mkdir()
    (tmp_path / "word-eval" / "EN-MC-30.txt").write_text("ship shipped 9\nship king 1\nking kings 8\n")
    run(f"--workdir={tmp_path}", "--evaluate", f"--data_dir={tmp_path}")
    out = capsys.readouterr().out
    assert "-                1       3" in out  # one pair has no correlation
    assert "1.000                3       3" in out.partition("with words outside the vocabulary")[2]
    with pytest.raises(UserError, match="has no vector"):
        run(f"--workdir={tmp_path}", "--words=x")  # <x> is in no bucket that was ever filled


def test_evaluation_by_section(vectors, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("LMJAX_DATA", raising=False)
    with pytest.raises(UserError, match="--evaluate needs the evaluation sets"):
        run(f"--vectors={vectors}", "--evaluate")
    (tmp_path / "word-eval").mkdir()
    (tmp_path / "word-eval" / "questions-words.txt").write_text(": family\nman king woman queen\nman king boy prince\n")
    run(f"--vectors={vectors}", "--evaluate", f"--data_dir={tmp_path}")
    assert "family                           100.0 %        1       1       2" in capsys.readouterr().out


def test_questions_at_the_terminal(vectors, capsys, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("king - man + woman\nqueen - woman man\nnobody\n- man\nking\n\nqueen\n"))
    run(f"--vectors={vectors}", "--count=1")
    out = capsys.readouterr().out
    assert out.count(" queen\n") == 1
    assert out.count(" king\n") == 1  # only the word behind a minus is taken away
    assert "nobody has no vector" in out
    assert "adds no word" in out
    assert "0.707 man" in out
    monkeypatch.setattr(sys, "stdin", Terminal("king"))  # and the end of the input ends it
    run(f"--vectors={vectors}")


@pytest.mark.parametrize("words", [[], ["--words=king,queen,KING", "--count=5"], ["--frequent=1000"]])
def test_the_map_is_a_picture(vectors, tmp_path, capsys, words):
    pytest.importorskip("matplotlib")
    run(f"--vectors={vectors}", f"--map={tmp_path / 'map.png'}", *words)
    picture = (tmp_path / "map.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000
    assert "labelled" in capsys.readouterr().out
    run(f"--vectors={vectors}", f"--map={tmp_path / 'again.png'}", *words)
    assert (tmp_path / "again.png").read_bytes() == picture


def test_labels_do_not_overlap(monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: figures.append(self))
    rng = np.random.default_rng(0)
    words = [f"word{number}" for number in range(200)]
    said = vector_map.draw(words, rng.standard_normal((200, 8)), "map.png", "title")
    labels = figures[0].axes[0].texts
    boxes = [label.get_window_extent() for label in labels]
    assert said == f"map.png: 200 words, {len(labels)} of them labelled"
    assert 50 < len(labels) < 200
    assert labels[0].get_text() == "word0"
    for at, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:at])


def test_the_plane_is_that_of_the_largest_variance():
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((300, 2)) * [0.3, 0.2]
    basis = np.linalg.qr(rng.standard_normal((10, 10)))[0]
    vectors = np.hstack([np.ones((300, 1)) * 3, hidden, 0.01 * rng.standard_normal((300, 7))]) @ basis
    plane, beyond = vector_map.components(vectors)
    for axis in (0, 1):
        ranks = [values.argsort().argsort() for values in (plane[:, axis], hidden[:, axis])]
        assert abs(np.corrcoef(ranks)[0, 1]) > 0.95
    assert plane.min() == 0
    assert plane.max() == pytest.approx(1)
    assert beyond.shape == (300, 2)
    assert np.array_equal(vector_map.components(vectors)[0], plane)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--words=king"], "give either --workdir"),
        (["--vectors=a", "--workdir=b", "--words=king"], "give either --workdir"),
        (["--vectors=FILE"], "nothing is asked"),
        (["--vectors=FILE", "--words=kingg"], "did you mean king"),
        (["--vectors=FILE", "--words=king,,queen"], "a word is empty"),
        (["--vectors=FILE", "--analogy=king,man"], "--analogy=king,man: expected three words"),
        (["--vectors=FILE", "--analogy=king,man,women"], "did you mean woman"),
        (["--vectors=FILE", "--evaluate", "--data_dir=/"], "/word-eval holds no evaluation set"),
        (["--vectors=nowhere.txt", "--words=king"], "nowhere.txt cannot be read"),
        (["--vectors=FILE", "--map=nowhere/map.png"], "--map=nowhere/map.png cannot be written: No such file"),
        (["--vectors=FILE", "--map=map.jpgg"], "--map=map.jpgg cannot be written"),
        (["--vectors=FILE", "--map=map.png", "--limit=2"], "expected at least 3"),
    ],
)
def test_what_cannot_be_answered_is_one_line(vectors, words, says, tmp_path, monkeypatch):
    if any("--map" in word for word in words):
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        run(*(word.replace("FILE", str(vectors)) for word in words))
    assert says in str(error.value)
    assert "\n" not in str(error.value)
