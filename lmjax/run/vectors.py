"""What an experiment tells of the word vectors it made: neighbours of a few words, and scores."""

from collections.abc import Sequence

from lmjax.data.corpus import Corpus
from lmjax.data.files import own_dir
from lmjax.evaluate import embeddings

COVERED = 0.3  # share of a test set whose words must have vectors for its figure to be told
SHOWN = 6  # words whose neighbours are printed


def show(corpus: Corpus, vectors, asked: Sequence[str] = ()):
    """Prints the neighbours of the words asked for, else of a few frequent ones that are no function words.

    vectors: [V,D], in the order of corpus.words. UserError for a word that has none.
    """
    asked = asked or [word for word in corpus.words[100:] if len(word) > 3][:SHOWN]
    for word in asked or corpus.words[:SHOWN]:
        i = embeddings.find(corpus.words, word)
        near = embeddings.nearest(corpus.words, vectors, vectors[i], exclude=[corpus.words[i]], count=6)
        print(f"{word:14} {', '.join(other for other, _ in near)}")


def score(run, corpus: Corpus, vectors) -> dict[str, float]:
    """Prints what the test sets of word-eval say, where they are; returns their figures. run: a Session."""
    folder = own_dir(run.config.data_dir or None)
    if folder is None or not (folder / "word-eval").is_dir():
        return {}
    scores = embeddings.covered(embeddings.score_all(corpus.words, vectors, folder / "word-eval"), COVERED)
    print("", *embeddings.report(scores), "", sep="\n", flush=True)
    return {name: value for name, value in embeddings.metrics(scores).items() if not name.endswith("_coverage")}
