"""Counting language models on the Penn Treebank: the first rows of Mikolov's table, in seconds on a laptop.

Mikolov 2012, "Statistical language models based on neural networks" (PhD thesis), table 4.1, counted there by SRILM:
Katz with Good-Turing discounts (GT3, GT5), modified Kneser-Ney (KN3, KN5), and KN5 with a unigram cache.

    launch/run.sh experiments/ngram_ptb.py                       all five rows
    launch/run.sh experiments/ngram_ptb.py --preset=kn5          one of them
    launch/run.sh experiments/ngram_ptb.py --data=wikitext-2     other text; --data=FILE for yours
    launch/run.sh experiments/ngram_ptb.py --order=4 --smoothing=single --cache

Expected, test perplexity: GT3 165.2, GT5 162.3, KN3 148.3, KN5 141.2, KN5 + cache 125.2 (published 125.7). About 5
seconds on two cores, all rows together.

A sentence is a line; its end is predicted, its beginning is not, and no context reaches into the line before. Words are
those of the training text, any other is <unk>. Kneser-Ney drops no n-gram (SRILM's -kndiscount -interpolate with
-gtNmin 1 for every order); Katz drops those of three words and more that were seen once (SRILM's defaults).

How the thesis made its cache is not known to us. Here its form (the last words alike, or fading exponentially), length
and weight are those that make the validation text likeliest; the test text is read with these only.
"""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

from lmjax.config import setting
from lmjax.run import flags

SMOOTHINGS = ("modified", "single", "katz")
CACHE_LENGTHS = (30, 50, 75, 100, 125, 150, 200, 250, 300, 400, 500, 700, 1000)  # tried on the validation text


class Row(NamedTuple):
    """A model to count, and what was published for it on PTB's test text."""

    title: str
    order: int
    smoothing: str = "modified"
    cache: bool = False
    published: float | None = None
    mark: str = ""  # as in run/record.py


TABLE = {
    "gt3": Row("GT3", 3, "katz", published=165.2, mark="R"),
    "gt5": Row("GT5", 5, "katz", published=162.3, mark="R"),
    "kn3": Row("KN3", 3, published=148.3, mark="V"),
    "kn5": Row("KN5", 5, published=141.2, mark="V"),
    "kn5_cache": Row("KN5 + cache", 5, cache=True, published=125.7, mark="V"),
}
SOURCE = "Mikolov 2012 (thesis), table 4.1"
PUBLISHED = {name: {"test_perplexity": (row.published, SOURCE, row.mark)} for name, row in TABLE.items()}
PUBLISHED[""] = {f"{name}_{metric}": figure for name, row in PUBLISHED.items() for metric, figure in row.items()}
PRESETS = {
    name: {"help": f"published {row.published}", "order": row.order, "smoothing": row.smoothing, "cache": row.cache}
    for name, row in TABLE.items()
}
NEEDS = {name: {"minutes": 0.2} for name in PRESETS}


@dataclass(frozen=True)
class Config:
    preset: str = setting("", "the preset's name")
    data: str = setting("ptb", "ptb, wikitext-2, another set of lmjax.data, or the path of a text")
    data_dir: str = setting("", "folder to look for data sets in before downloading; also the variable LMJAX_DATA")
    workdir: str = setting("", "folder that gets the record of this run (result.json); default: none is written")
    vocab: int = setting(0, "keep this many most frequent words, the others become <unk>; 0: keep all", low=0)
    order: int = setting(0, "words of an n-gram; 0: all rows of the table", low=0, high=100)
    smoothing: str = setting(
        "modified", "Kneser-Ney with three discounts (modified) or one (single), or Katz", choices=SMOOTHINGS
    )
    cache: bool = setting(False, "interpolate with a unigram cache of the recent words")
    sentences: int = setting(3, "sentences to sample from each model", low=0)
    seed: int = setting(0, "start of the sampling's randomness", low=0)

    def __post_init__(self):
        if self.order == 0 and (self.cache or self.smoothing != "modified"):
            raise ValueError("--smoothing and --cache need a model to work on: add --order=N")


def rows(config: Config) -> dict[str, Row]:
    """What to measure, by name; the published figures stand only where data and model are the thesis's."""
    asked = TABLE
    if config.order:
        row = Row(f"{config.smoothing} {config.order}-gram", config.order, config.smoothing, config.cache)
        same = {name: known for name, known in TABLE.items() if known[1:4] == row[1:4]}
        asked = same or {"": row._replace(title=row.title + " + cache" * row.cache)}
    if config.data != "ptb" or config.vocab:
        asked = {name: row._replace(published=None) for name, row in asked.items()}
    return asked


def count(row: Row, tokens, words):
    """The NGram of a row of the table; `words` is the text's Word tokenizer."""
    from lmjax.models import ngram

    if row.smoothing == "katz":
        return ngram.katz(tokens, row.order, words.vocab, boundary=words.eos)
    modified = row.smoothing == "modified"
    return ngram.kneser_ney(tokens, row.order, words.vocab, boundary=words.eos, modified=modified)


def with_cache(log_p: dict, tokens: dict) -> tuple[dict, str]:
    """The log probabilities of each split mixed with the cache that is best on validation, and which one that is."""
    from lmjax.models import ngram

    tried = []
    for form, kind in ((ngram.window_cache, "all alike"), (ngram.decaying_cache, "fading exponentially")):
        for length in CACHE_LENGTHS:
            cache = form(tokens["validation"], length)
            weight = ngram.mixture_weight(log_p["validation"], cache)
            mixed = ngram.interpolate(log_p["validation"], cache, weight)
            tried.append((ngram.perplexity(mixed), length, weight, kind, form))
    _, length, weight, kind, form = min(tried, key=lambda choice: choice[0])
    mixed = {split: ngram.interpolate(p, form(tokens[split], length), weight) for split, p in log_p.items()}
    return mixed, f"cache: {length} words, {kind}, weight {weight:.3f}; best on validation of {len(tried)} tried"


def write_sentences(model, words, config: Config) -> list[str]:
    import numpy as np

    from lmjax.models import ngram

    rng, sentences = np.random.default_rng(config.seed), []
    for _ in range(config.sentences):
        sentence = ngram.sample(model, rng, [], 40).tolist()
        end = sentence.index(words.eos) if words.eos in sentence else len(sentence)
        sentences.append(words.decode(sentence[:end]))
    return sentences


def main(config: Config):
    from lmjax.data.text import load_text
    from lmjax.data.tokenizers import Word
    from lmjax.models import ngram
    from lmjax.run import record
    from lmjax.run.workdir import workdir

    began = time.perf_counter()
    with workdir(config.workdir, "ngram_ptb", config) if config.workdir else nullcontext() as folder:
        text = load_text(config.data, config.data_dir or None)
        words = Word.train(text.train, config.vocab or None)
        tokens = {"train": words.encode(text.train), "validation": words.encode(text.valid)}
        tokens |= {"test": words.encode(text.test)} if text.test else {}
        sizes = ", ".join(f"{split} {len(ids):,}" for split, ids in tokens.items())
        print(f"{text.name}: {sizes} tokens of {words.vocab:,} types", end="\n\n")
        print(f"{'perplexity':24}{'validation':>12}{'test':>10}{'published':>11}")

        asked, counted, metrics, published, notes, samples = rows(config), {}, {}, {}, [], []
        for name, row in asked.items():
            if (kind := (row.order, row.smoothing)) not in counted:  # KN5 and KN5 + cache are counted once
                model = count(row, tokens["train"], words)
                counted[kind] = {s: ngram.log_probabilities(model, tokens[s]) for s in tokens if s != "train"}
                lines = write_sentences(model, words, config)
                samples += [f"{row.title.removesuffix(' + cache')}: {line}" for line in lines]
            log_p = counted[kind]
            if row.cache:
                log_p, note = with_cache(log_p, tokens)
                notes.append(note)
            figures = {split: ngram.perplexity(p) for split, p in log_p.items()}
            before = f"{name}_" if len(asked) > 1 else ""
            metrics |= {f"{before}{split}_perplexity": [figure] for split, figure in figures.items()}
            if row.published:
                published[f"{before}test_perplexity"] = record.Published(row.published, SOURCE, row.mark)
            test = f"{figures['test']:10.2f}" if "test" in figures else f"{'-':>10}"
            beside = f"{row.published:11.1f}" if row.published else ""
            print(f"{row.title:24}{figures['validation']:12.2f}{test}{beside}", flush=True)
        seconds = time.perf_counter() - began
        print("", *notes, f"{seconds:.1f} seconds", "", *samples, sep="\n", flush=True)

        if folder:
            asked = config.preset, [config.seed], metrics, published
            result = record.result("ngram_ptb", *asked, wall_seconds=seconds, notes="; ".join(notes))
            record.save(folder, result)
            print(f"\n{result['verdict']}; the record is {folder / 'result.json'}")


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
