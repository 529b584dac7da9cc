"""Classes, tags, answers, translations and vectors of texts: micro-batches of a few sizes, compiled at the start."""

from collections.abc import Sequence

from lmjax.decode.slots import sizes
from lmjax.errors import UserError
from lmjax.run import models
from lmjax.run.tasks import predicting
from lmjax.serve.gather import Gather

WORDS = 128  # up to this length of a text no request compiles a program, whatever the model


class Asker:
    """A model of predicting.Able that does something else than complete.

    rows: texts of a batch. queue: texts that may wait. WORDS: see above; a longer text is answered too, and the first
    of its length waits for a program.
    """

    def __init__(self, able: predicting.Able, *, rows: int, queue: int, metrics):
        self.does, self.trained, self.name = able.does, able.trained, able.name
        self.batches = sizes(1, rows, 16)
        self.one = {"classify": self._classify, "tag": self._tag, "answer": self._answer,
                    "translate": self._translate, "embed": self._embed}[able.does]  # fmt: skip
        self.gather = Gather(self.run, most=rows, queue=queue)
        metrics.waiting.set_function(lambda: len(self.gather.waiting))

    def run(self, items: list) -> Sequence:
        """The answers to some texts, in the smallest batch that holds them."""
        return list(self.one(items, next((rows for rows in self.batches if rows >= len(items)), self.batches[-1])))

    def start(self):
        for rows in self.batches:
            for length in self.lengths():
                text = " ".join([self.word()] * (length - 4))  # with a model's marks around it no more than `length`
                try:
                    self.one([("a", text) if self.does == "answer" else text] * rows, rows)
                except UserError:  # longer than the model takes
                    continue

    def word(self) -> str:
        """A word as it stands in texts."""
        return "a" + "|a" * len(self.trained.known.columns) if self.does == "tag" else "a"

    def close(self):
        self.gather.close()

    def lengths(self) -> list[int]:
        """Tokens that texts are padded to."""
        if self.does == "answer":  # those of data/reading.py
            both = [length for n in range(4, 10) for length in (2**n, 3 * 2 ** (n - 1))]
            return [length for length in both if length <= self.trained.window]
        if self.does == "classify":
            return sizes(16, self.trained.reading.longest, 2)
        return sizes(16, min(256, self.trained.model.context) if self.does == "embed" else WORDS, 2)

    def _classify(self, texts, rows):
        return predicting.classified(self.trained, texts, batch=rows, lengths=self.lengths())

    def _tag(self, texts, rows):
        return predicting.tagged(self.trained, texts, batch=rows)

    def _answer(self, pairs, rows):
        return predicting.answered(self.trained, pairs, rows=rows)

    def _translate(self, texts, rows):
        return predicting.translated(self.trained, texts, rows=rows, lengths=self.lengths())

    def _embed(self, texts, rows):
        return models.embed(self.trained, texts, batch=rows)
