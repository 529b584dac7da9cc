"""Analogies and similarities against a search by hand, and against gensim's figures where gensim is installed."""

import math
import os
import re
from pathlib import Path

import numpy as np
import pytest

from lmjax.errors import UserError
from lmjax.evaluate import embeddings
from lmjax.interop.vectors import write_vectors

DATA = Path(os.environ.get("LMJAX_DATA") or "/nonexistent") / "word-eval"


@pytest.fixture
def planted(monkeypatch):
    """Words, vectors [V,D] and questions: pairs of each section are an offset apart, and some words have two spellings
    or none in the vocabulary."""
    monkeypatch.setattr(embeddings, "BATCH", 17)
    rng = np.random.default_rng(0)
    words, vectors, sections = [], [], {}
    for section in ("capitals", "gram1-plural"):
        offset, pairs = rng.standard_normal(16), []
        for number in range(9):
            a = rng.standard_normal(16)
            pairs.append((f"{section[:4]}{number}", f"{section[:4]}{number}s"))
            for word, vector in zip(pairs[-1], (a, a + offset + 0.9 * rng.standard_normal(16))):
                words.append(word)
                vectors.append(vector)
                if number % 3 == 0:
                    words.append(word.capitalize())
                    vectors.append(vector + 0.4 * rng.standard_normal(16))
        pairs += [(f"unknown{section}", pairs[0][1])]
        sections[section] = [(*p, *q) for p in pairs for q in pairs if p != q]
    order = rng.permutation(len(words))
    return [words[at] for at in order], np.array(vectors, np.float32)[order], sections


def by_hand(words, vectors, sections, restrict):
    words = words[:restrict]
    vectors = [vector / np.sqrt(sum(vector.astype(float) ** 2)) for vector in vectors[:restrict]]
    capitals = [word.upper() for word in words]
    counted = {}
    for section, questions in sections.items():
        correct = asked = 0
        for question in questions:
            a, b, c, d = (word.upper() for word in question)
            if not {a, b, c, d} <= set(capitals):
                continue
            asked += 1
            query = vectors[capitals.index(b)] - vectors[capitals.index(a)] + vectors[capitals.index(c)]
            others = [at for at in range(len(words)) if capitals[at] not in (a, b, c)]
            correct += capitals[max(others, key=lambda at: vectors[at] @ query)] == d
        counted[section] = correct, asked, len(questions)
    return counted


@pytest.mark.parametrize("restrict", [1000, 30, 1])
def test_analogies_as_by_hand(planted, restrict):
    words, vectors, sections = planted
    found = embeddings.analogies(words, 7 * vectors, sections, restrict)
    assert found == by_hand(words, vectors, sections, restrict)
    if restrict == 1000:
        assert all(0 < correct < asked < total == 90 for correct, asked, total in found.values())


def test_the_length_of_a_vector_does_not_count(planted):
    words, vectors, sections = planted
    lengths = np.random.default_rng(1).uniform(0.1, 10, (len(words), 1)).astype(np.float32)
    assert embeddings.analogies(words, vectors * lengths, sections) == embeddings.analogies(words, vectors, sections)
    lengths[0] = 0  # a word that was never trained
    embeddings.analogies(words, vectors * lengths, sections)


def test_an_answer_is_never_one_of_the_questions_words():
    words, vectors = ["a", "b", "c", "d"], np.eye(4, dtype=np.float32) + np.array([0, 0, 0, 1], np.float32)
    vectors[3] = [-1, 0.1, 0.1, 0]
    assert embeddings.analogies(words, vectors, {"s": [("a", "b", "c", "d")]}) == {"s": (1, 1, 1)}
    assert embeddings.analogies(words, vectors, {"s": [("a", "b", "c", "b")]}) == {"s": (0, 1, 1)}


def test_similarity_is_the_correlation_of_ranks():
    rng = np.random.default_rng(0)
    words, vectors = [f"w{at}" for at in range(40)], rng.standard_normal((40, 8)).astype(np.float32)
    pairs = [(f"W{a}", f"w{b}", float(np.round(rng.random(), 1))) for a, b in rng.integers(0, 45, (200, 2))]
    found, used, total = embeddings.similarity(words, vectors, pairs)

    def ranks(values):  # of equals the mean
        return np.array([(values < value).sum() + ((values == value).sum() - 1) / 2 for value in values])

    known = [(int(a[1:]), int(b[1:]), score) for a, b, score in pairs if int(a[1:]) < 40 and int(b[1:]) < 40]
    cosine = np.array([vectors[a] @ vectors[b] / np.linalg.norm(vectors[a]) / np.linalg.norm(vectors[b])
                       if a != b else 1.0 for a, b, _ in known])  # fmt: skip
    expected = np.corrcoef(ranks(np.round(cosine, 6)), ranks(np.array([score for *_, score in known])))[0, 1]
    assert (used, total) == (len(known), 200)
    assert found == pytest.approx(expected, abs=1e-3)
    assert embeddings.similarity([*words, "W1"], np.r_[vectors, vectors[:1]], pairs)[0] == found  # the first spelling
    assert math.isnan(embeddings.similarity(words, vectors, [("w1", "w2", 3.0), ("w1", "no", 2.0)])[0])
    assert math.isnan(embeddings.similarity(words, vectors, [("w1", "w2", 3.0)] * 3)[0])


@pytest.fixture
def folder(tmp_path, planted):
    words, _, sections = planted
    folder = tmp_path / "word-eval"
    folder.mkdir()
    lines = [f": {name}\n" + "".join(" ".join(question) + "\n" for question in asked)
             for name, asked in sections.items()]  # fmt: skip
    (folder / "questions-words.txt").write_text("".join(lines))
    (folder / "questions-phrases.txt").write_text(": papers\nNew_York Times Boston Globe\n")
    (folder / "EN-MEN-TR-3k.txt").write_text("".join(f"{a}\t{b}\t{len(a)}\n" for a, b in zip(words, words[5:])))
    (folder / "my-own.txt").write_text("# mine\nno such 1.0\nnone here 2\n")
    (folder / "README.md").write_text("about them")
    return folder


def test_every_set_of_a_folder(planted, folder):
    words, vectors, sections = planted
    counted = by_hand(words, vectors, sections, 30_000)
    found = embeddings.evaluate_all(words, vectors, folder)
    correct, asked, total = np.sum(list(counted.values()), 0)
    assert found["analogy_accuracy"] == pytest.approx(100 * correct / asked)
    assert found["analogy_coverage"] == asked / total
    assert found["analogy_semantic"] == 100 * counted["capitals"][0] / counted["capitals"][1]
    assert found["analogy_syntactic"] == 100 * counted["gram1-plural"][0] / counted["gram1-plural"][1]
    assert -1 <= found["men"] <= 1
    assert found["men_coverage"] == 1
    assert {name: figure for name, figure in found.items() if "phrase" in name or "own" in name} == {
        "phrase_analogy_coverage": 0, "my_own_coverage": 0,
    }  # fmt: skip
    lines = embeddings.report(embeddings.score_all(words, vectors, folder))
    assert any(
        re.fullmatch(rf"  all +{100 * correct / asked:.1f} % +{correct} +{asked} +{total}", line) for line in lines
    )
    assert any(line.startswith("  gram1-plural ") for line in lines)
    assert any(line.split()[0] == "men" and f"{found['men']:.3f}" in line for line in lines if line)
    assert "phrase analogy: none of 1 questions has a vector for each word" in lines
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("read", "content", "says"),
    [
        (embeddings.read_questions, ": s\na b c\n", "line 2: 'a b c': expected four words"),
        (embeddings.read_questions, "\na b c d\n", "line 2: 'a b c d': expected a line such as ': capitals'"),
        (embeddings.read_pairs, "a b 1\na b\n", "line 2: 'a b': expected two words and a number"),
        (embeddings.read_pairs, "a b c\n", "line 1: 'a b c': expected two words and a number"),
        (embeddings.read_pairs, " \n", "is empty"),
        (embeddings.read_pairs, "\udcff", "cannot be read: it is not UTF-8"),
        (embeddings.read_pairs, None, "cannot be read: No such file"),
    ],
)
def test_bad_sets_are_one_line(tmp_path, read, content, says):
    if content is not None:
        (tmp_path / "set.txt").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=re.escape(says)) as error:
        read(tmp_path / "set.txt")
    assert "\n" not in str(error.value)


def test_a_folder_without_sets(tmp_path, planted):
    words, vectors, _ = planted
    with pytest.raises(UserError, match="holds no evaluation set"):
        embeddings.evaluate_all(words, vectors, tmp_path)


def test_neighbours_by_cosine():
    words = ["king", "queen", "man", "woman", "apple", "King"]
    vectors = np.array([[1, 1, 0], [1, -1, 0], [0.1, 1, 0], [0.1, -1, 0], [0, 0, 9], [2, 2, 0.1]], np.float32)
    found = embeddings.nearest(words, vectors, 3 * vectors[0], ["king"], 2)
    assert [word for word, _ in found] == ["King", "man"]
    assert found[0][1] == pytest.approx(8**0.5 / 8.01**0.5, abs=1e-6)
    assert len(embeddings.nearest(words, vectors, vectors[0], ["king"], 50)) == 5
    assert len(embeddings.nearest(words, vectors, vectors[0], ["king", "x", "y", "z"], 3)) == 3
    assert embeddings.analogy(words, vectors, ["king", "woman"], ["man"], 1)[0][0] == "queen"
    assert embeddings.analogy(words, vectors, ["APPLE"], count=5)[0][0] == "King"
    assert [embeddings.find(words, word) for word in ("king", "King", "KING", "Apple")] == [0, 5, 0, 4]
    with pytest.raises(UserError, match=r"quen has no vector among these 6 words: did you mean queen\?"):
        embeddings.analogy(words, vectors, ["quen"])
    with pytest.raises(UserError, match=r"zzz has no vector among these 6 words$"):
        embeddings.find(words, "zzz")


@pytest.mark.skipif(not DATA.is_dir(), reason="LMJAX_DATA has no word-eval")
def test_the_published_sets():
    """Mikolov et al. 2013a, table 1: 8,869 semantic and 10,675 syntactic questions; pairs as the sets are named."""
    questions = embeddings.read_questions(DATA / "questions-words.txt")
    grammar = sum(len(asked) for section, asked in questions.items() if section.startswith("gram"))
    assert (len(questions), grammar, sum(map(len, questions.values()))) == (14, 10_675, 19_544)
    words = sorted({word for asked in questions.values() for question in asked for word in question})
    vectors = np.random.default_rng(0).standard_normal((len(words), 20)).astype(np.float32)
    scores = embeddings.score_all(words, vectors, DATA)
    assert [sum(counts) for counts in zip(*scores.analogies["analogy"].values())][1:] == [19_544, 19_544]
    sizes = {name: total for name, (_, _, total) in scores.similarities.items()}
    assert sizes == {
        "men": 3000, "mc30": 30, "rg65": 65, "rare_words": 2034, "simlex999": 999, "wordsim353": 353, "verb143": 144,
        "wordsim353_similarity": 203, "wordsim353_relatedness": 252, "yp130": 130, "mturk287": 287, "mturk771": 771,
        "simverb3500": 3500,
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_figures_are_gensims(planted, folder, tmp_path):
    gensim = pytest.importorskip("gensim.models", reason="gensim, the peer, is not installed")
    words, vectors, _ = planted
    write_vectors(tmp_path / "vectors.txt", words, vectors)
    peer = gensim.KeyedVectors.load_word2vec_format(str(tmp_path / "vectors.txt"))
    for restrict in (1000, 30):
        _, sections = peer.evaluate_word_analogies(str(folder / "questions-words.txt"), restrict_vocab=restrict)
        found = embeddings.analogies(
            words, vectors, embeddings.read_questions(folder / "questions-words.txt"), restrict
        )
        for section in sections[:-1]:
            correct, wrong = len(section["correct"]), len(section["incorrect"])
            assert found[section["section"]][:2] == (correct, correct + wrong)
    _, spearman, _ = peer.evaluate_word_pairs(str(folder / "EN-MEN-TR-3k.txt"))
    pairs = embeddings.read_pairs(folder / "EN-MEN-TR-3k.txt")
    assert embeddings.similarity(words, vectors, pairs)[0] == pytest.approx(spearman[0], abs=1e-6)
