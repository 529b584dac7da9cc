"""What a reader's workdir answers: the best stretch over all windows, from long documents and folders, or one line."""

import json
import math
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from lmjax import config, param
from lmjax.data import reading, squad
from lmjax.data.squad import Example
from lmjax.models import reader
from lmjax.run import flags
from lmjax.run.settings import to_json
from lmjax.run.tasks import answering, retrieval
from lmjax.run.tasks.retrieval import Passage
from lmjax.train.checkpoint import Checkpoints

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

import answer

FACTS = squad.facts(articles=2, seed=0, paragraphs=3)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of a reader that has learnt nothing, as training leaves it."""
    folder = tmp_path_factory.mktemp("answer") / "run"
    folder.mkdir()
    rng, tokenizer = np.random.default_rng(0), reading.vocabulary([example.context for example in FACTS], 1)
    model = config.Reader(vocab=tokenizer.vocab, embed=8, filters=0, highway=0, dim=4)
    params = param.map_params(
        lambda _, spec: (0.3 * rng.normal(size=spec.shape)).astype(np.float32), reader.reader_params(model)
    )
    settings = answer.Config(model=config.Reader(embed=8, filters=0, highway=0, dim=4), window=64, stride=16,
                             question_length=20, answer_length=4)  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"experiment": "answer", "config": to_json(settings)}))
    (folder / "network.json").write_text(json.dumps(to_json(model)))
    tokenizer.save(folder / "tokenizer.json")
    with Checkpoints(folder / "checkpoints", best="min") as checkpoints:
        checkpoints.save(1, {"params": params}, score=1.0)
    return folder


@pytest.fixture(scope="module")
def asked(workdir):
    return answering.load(str(workdir))


def main(*arguments):
    config = flags.parse(answer.Config, answer.PRESETS, argv=["", *arguments])
    return answer.main(config)


def every(asked, scores, question, context):
    """All stretches of a text with their probabilities, window by window in plain loops: {(start, end): p}."""
    found = reading.windows([Example("", "", context, question)], asked.cutter, 64, 16, 20)
    weights, spans = {}, found.texts[0].spans
    for w in range(len(found.first)):
        batch = reading.padded(found.take(np.array([w])), 32, 64)
        start, end = (np.asarray(x[0], np.float64) for x in scores(asked.params, batch))
        none = start[0] + end[0]
        for i in range(*found.mine[w]):
            for j in range(i, min(i + asked.answer_length, found.first[w] + found.size[w])):
                a, b = i - found.first[w] + 1, j - found.first[w] + 1  # behind the place of no answer
                weights[int(spans[i, 0]), int(spans[j, 1])] = math.exp(start[a] + end[b] - none)
    total = 1 + sum(weights.values())
    return {span: weight / total for span, weight in weights.items()}


@pytest.fixture(scope="module")
def scores(asked):
    return jax.jit(lambda params, batch: reader.reader(params, asked.model, batch))


def test_the_answer_is_the_best_of_all_stretches_of_all_windows(asked, scores):
    context = " ".join(example.context for example in FACTS[::2])[:600]
    question = FACTS[0].question
    want = sorted(every(asked, scores, question, context).items(), key=lambda item: -item[1])[:16]
    assert len(context.split()) > 100  # several windows
    ((*found,),) = answering.answers(asked, [(question, context)], 16)
    assert [(one.start, one.end) for _, one in found] == [span for span, _ in want]
    np.testing.assert_allclose([one.probability for _, one in found], [p for _, p in want], rtol=1e-4)
    assert all(one.text == context[one.start : one.end] for _, one in found)


def test_ten_thousand_words_are_read_by_strides(asked):
    words = np.random.default_rng(0).choice(FACTS[0].context.split(), 10_000)
    text = " ".join(words)
    (found,) = answering.answer(asked, [("Who lives in it?", text)])
    assert text[found.start : found.end] == found.text != ""
    assert 0 < found.probability < 1


def test_of_a_text_without_words_there_is_no_answer(asked):
    pairs = [("Who?", " \n"), (FACTS[0].question, FACTS[0].context), ("", FACTS[1].context)]
    nothing, *others = answering.answer(asked, pairs)
    assert nothing == ("", 0.0, 0, 0)
    assert all(one.text for one in others)
    assert answering.answer(asked, []) == []
    assert others == answering.answer(asked, pairs[1:])  # whatever stands in the batch beside it


def test_passages_cover_a_text_in_sentences():
    text = "One two three. Four five!\n\nSix seven eight nine ten eleven twelve.  Thirteen? 東京は大きい。都市だ。\n"
    found = retrieval.passages([("a.txt", text)], longest=9)
    assert [part.text for part in found] == [
        "One two three. Four five!", "Six seven eight nine ten eleven twelve.", "Thirteen? 東京は大きい。", "都市だ。"
    ]  # fmt: skip
    found = retrieval.passages([("a.txt", text)], longest=5)
    assert [part.text for part in found][2:5] == ["Six seven eight nine ten", "eleven twelve.  Thirteen?", "東京は大き"]
    for part in found:
        assert text[part.start : part.start + len(part.text)] == part.text
        assert len(reading.words_of(part.text)) <= 5
    joined = [word for part in found for word, *_ in reading.words_of(part.text)]
    assert joined == [word for word, *_ in reading.words_of(text)]  # nothing is lost, nothing twice


def test_several_passages_are_one_long_text_to_a_question(asked, scores):
    parts = [Passage(f"{n}.txt", 7 + 10 * n, example.context) for n, example in enumerate(FACTS[::2])]

    def search(questions, count):
        return np.tile(np.arange(count)[::-1], (len(questions), 1)), np.zeros((len(questions), count))

    questions = [example.question for example in FACTS[:4]]
    for question, found in zip(questions, retrieval.ask(asked, parts, search, questions, count=2, read=2)):
        weights = {}
        for part in parts[:2]:
            one = every(asked, scores, question, part.text)
            none = 1 - sum(one.values())
            weights |= {(part.source, part.start + a, part.start + b): p / none for (a, b), p in one.items()}
        best, total = max(weights, key=weights.get), 1 + sum(weights.values())
        assert (found[0].source, found[0].start, found[0].end) == best
        assert found[0].probability == pytest.approx(weights[best] / total, rel=1e-4)


def test_of_answers_that_overlap_the_best_is_given(monkeypatch):
    parts = [Passage("a", 0, "one two"), Passage("a", 8, "three"), Passage("b", 0, "one")]
    said = [(0, "one two", 0, 7), (0, "two", 4, 7), (2, "one", 0, 3), (1, "three", 0, 5), (0, "one", 0, 3)]
    found = [[(n, answering.Found(text, 0.1, start, end)) for n, text, start, end in said]]
    monkeypatch.setattr(answering, "answers", lambda *given, **settings: found)
    search = lambda questions, count: (np.arange(3)[None], None)  # noqa: E731
    (got,) = retrieval.ask(None, parts, search, ["?"], count=4, read=3)
    assert [(one.source, one.start, one.end) for one in got] == [("a", 0, 7), ("b", 0, 3), ("a", 8, 13)]


def test_bm25_finds_the_passage_with_the_rare_word(tmp_path):
    pytest.importorskip("bm25s", reason="pip install 'lmjax[search]'")
    texts = ["the cat sat on the mat", "the dog sat on the log", "the cat and the dog", ""]
    numbers, scores = retrieval.bm25(texts)(["Which LOG?", "the mat", "zebra", "?"], 2)
    assert numbers[:2, 0].tolist() == [1, 0]
    assert numbers[2:].tolist() == [[0, 1], [0, 1]]  # of equals the first
    assert (scores[0, 0] > 0, scores[2, 0], scores[3, 0]) == (True, 0, 0)
    assert retrieval.recall(retrieval.bm25(texts), ["log", "log"], [1, 0], at=(1, 4)) == {1: 50.0, 4: 100.0}


def test_a_folder_is_asked_from_the_command_line(workdir, tmp_path, capsys):
    pytest.importorskip("bm25s", reason="pip install 'lmjax[search]'")
    (tmp_path / "docs" / "in").mkdir(parents=True)
    for n, example in enumerate(FACTS[::2]):
        (tmp_path / "docs" / "in" / f"{n}.txt").write_text(example.context)
    (tmp_path / "docs" / "empty.md").write_text("\n")
    (tmp_path / "q.txt").write_text(f"{FACTS[0].question}\n\n{FACTS[4].question}\n")
    given = [f"--workdir={workdir}", f"--documents={tmp_path / 'docs'}"]
    main(*given, f"--questions={tmp_path / 'q.txt'}", f"--output={tmp_path / 'a.jsonl'}", "--answers=2")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["question"] for line in lines] == [FACTS[0].question, FACTS[4].question]
    for line in lines:
        first, second = line["answers"]
        assert first["probability"] >= second["probability"]
        text = (tmp_path / "docs" / first["source"]).read_text()
        assert text[first["start"] : first["end"]] == first["text"]
    squad.write_squad(tmp_path / "asked.json", [FACTS[0], FACTS[4]])
    main(*given, f"--evaluate={tmp_path / 'asked.json'}", f"--output={tmp_path / 'p.json'}")
    said = squad.read_predictions(tmp_path / "p.json")
    assert said == {FACTS[n].id: line["answers"][0]["text"] for n, line in zip((0, 4), lines)}
    capsys.readouterr()
    main(*given, f"--question={FACTS[0].question}", "--answers=2")
    assert lines[0]["answers"][0]["text"] in capsys.readouterr().out


def test_a_run_is_scored_on_another_file_and_so_are_predictions(workdir, tmp_path, capsys, asked):
    squad.write_squad(tmp_path / "other.json", FACTS)
    main(f"--workdir={workdir}", f"--evaluate={tmp_path / 'other.json'}", f"--output={tmp_path / 'p.json'}")
    first = capsys.readouterr().out
    said = squad.read_predictions(tmp_path / "p.json")
    found = answering.answer(asked, [(example.question, example.context) for example in FACTS])
    assert said == {example.id: one.text for example, one in zip(FACTS, found)}
    main(f"--predictions={tmp_path / 'p.json'}", f"--data={tmp_path / 'other.json'}")
    assert capsys.readouterr().out == first
    (tmp_path / "p.json").write_text(json.dumps({FACTS[0].id: FACTS[0].answers[0].text}))
    main(f"--predictions={tmp_path / 'p.json'}", f"--data={tmp_path / 'other.json'}")
    assert f"exact_match {100 / len(FACTS):.3f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--question=Who?"], "expected --documents=FOLDER"),
        (["--documents=.", "--question=a", "--questions=b"], "one of the two"),
        (["--documents=nowhere", "--question=Who?", "--workdir=RUN"], "is neither a folder nor a file"),
        (["--documents=EMPTY", "--question=Who?", "--workdir=RUN"], "holds no text"),
        (["--documents=EMPTY", "--question=Who?"], "no --workdir"),
        (["--documents=EMPTY", "--question=Who?", "--workdir=EMPTY"], "holds no run"),
        (["--evaluate=nowhere.json", "--workdir=RUN"], "is no file and no set of ours"),
        (["--predictions=nowhere.json"], "squad: dev-v1.1.json is not in"),
        (["--network=bert", "--workdir=NEW"], "--network=bert needs --start"),
        (["--valid_articles=140", "--workdir=NEW"], "has 150 articles"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments, says, workdir, tmp_path, monkeypatch):
    monkeypatch.delenv("LMJAX_DATA", raising=False)
    (tmp_path / "empty").mkdir()
    for name, path in (("RUN", workdir), ("EMPTY", tmp_path / "empty"), ("NEW", tmp_path / "new")):
        arguments = [argument.replace(name, str(path)) for argument in arguments]
    with pytest.raises(ValueError, match=says) as found:
        main(*arguments)
    assert "\n" not in str(found.value)


def test_the_reader_starts_from_a_files_vectors_and_knows_their_words(tmp_path):
    (tmp_path / "v.txt").write_text("lives 1 2\nzebra 3 4\nCAPITAL 5 6\n")
    given = answer.Config(vectors=str(tmp_path / "v.txt"), model=config.Reader(embed=2))
    _, words, weights = answer.beginning(given, FACTS)
    (lives, zebra) = words.encode("lives zebra")
    assert weights["words"][[lives, zebra]].tolist() == [[1, 2], [3, 4]]
    assert "CAPITAL" not in words.words
    specs = param.begin_with(reader.reader_params(config.Reader(vocab=words.vocab, embed=2)), weights)
    np.testing.assert_array_equal(specs["words"].init(None, None, np.float32), weights["words"])
    with pytest.raises(ValueError, match=r"has 2 numbers a word, and --model\.embed is 100"):
        answer.beginning(answer.Config(vectors=str(tmp_path / "v.txt")), FACTS)


def test_a_damaged_run_is_one_line(workdir, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((workdir / "config.json").read_bytes())
    with pytest.raises(ValueError, match=r"holds no network\.json"):
        answering.load(str(broken))
    (broken / "config.json").write_text(json.dumps({"experiment": "gpt_char", "config": {}}))
    with pytest.raises(ValueError, match="is a run of gpt_char: expected one of answer"):
        answering.load(str(broken))
