"""Questions and texts as windows of pieces, and their batches: for a BERT and for a reader of words.

A text longer than a window is read in several, `stride` pieces apart, so that what stands at one's edge stands inside
another (Devlin et al. 2019's code). Of a piece that is in two windows the one counts where it has more on both sides.
Place 0 of a window stands for "the answer is not here".

A batch has, B rows of T places and questions of Q:

    context bool [B,T]   places of the text       mine bool [B,T]   those that count in this window
    start, end int32 [B] the answer's first and last place, 0 where it is not in the window
    weights float32 [B]  0 for a row that only fills the batch
    BERT:   tokens int32 [B,T], valid bool [B,T], segments int32 [B,T], 1 on the text
    words:  words int32 [B,T], letters uint8 [B,T,16], match float32 [B,T,2] (the word, or its first letters, stand in
            the question), valid bool [B,T]; question int32 [B,Q], question_letters uint8 [B,Q,16], asked bool [B,Q]
"""

import re
import zlib
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lmjax.data.batches import cut_lengths, drawn_from, in_buckets
from lmjax.data.masked import marks
from lmjax.data.tokenizers import Word
from lmjax.errors import UserError

LETTERS = 16  # of a word that are read
STEM = 4  # letters that a word must share with another to be its like
PAD, NONE, UNKNOWN = "<pad>", "<none>", "<unk>"
_HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_HAN}]|[^\W{_HAN}]+|[^\w\s]")


class Pieces(NamedTuple):
    """A text cut up: ids int32 [N], and where each piece stands, int32 [N,2], first character and the one behind.

    Of words also letters uint8 [N,16], and numbers for the word and for its beginning, int64 [N,2], 0 for a sign.
    """

    ids: np.ndarray
    spans: np.ndarray
    letters: np.ndarray | None = None
    kinds: np.ndarray | None = None


class Cutter(NamedTuple):
    """cut(texts) -> Pieces of each. before: the places in front of the text in a window over a question of so many
    pieces; after: those behind. rows(windows, rows, length): what a batch holds of them."""

    cut: Callable
    before: Callable
    after: int
    rows: Callable


def words_of(text: str) -> list[tuple[str, int, int]]:
    """(word, first character, the one behind) of each word and sign; a Chinese or Japanese sign is a word."""
    return [(one.group(), *one.span()) for one in _WORD.finditer(text)]


def vocabulary(texts, least: int) -> Word:
    """The words, in lower case, that occur `least` times or more."""
    counts = Counter(word.lower() for text in texts for word, *_ in words_of(text))
    words = sorted((word for word, n in counts.items() if n >= least), key=lambda word: (-counts[word], word))
    if not words:
        raise UserError(f"no word occurs {least} times in the texts: give more text, or lower --min_count")
    return Word((PAD, NONE, UNKNOWN, *words))


def word_cutter(tokenizer: Word) -> Cutter:
    """For the reader of words: the text stands behind the place of no answer, the question by itself."""

    def cut(texts) -> list[Pieces]:
        return [_words(words_of(text), tokenizer) for text in texts]

    return Cutter(cut, lambda question: 1, 0, _word_rows)


def _words(found, tokenizer: Word) -> Pieces:
    lower = [word.lower() for word, *_ in found]
    letters, kinds = np.zeros((len(found), LETTERS), np.uint8), np.zeros((len(found), 2), np.int64)
    for n, (word, *_) in enumerate(found):
        points = np.frombuffer(word[:LETTERS].encode("utf-32-le", "surrogatepass"), "<u4")
        letters[n, : len(points)] = np.where(points < 128, points, 128 + points % 128)
        if word[0].isalnum():
            kinds[n] = [1 + zlib.crc32(part.encode("utf-8", "surrogatepass")) for part in (lower[n], lower[n][:STEM])]
    ids = tokenizer.encode(" ".join(lower)) if lower else np.zeros(0, np.int32)
    return Pieces(ids, np.array([span for _, *span in found], np.int32).reshape(-1, 2), letters, kinds)


def bert_cutter(tokenizer) -> Cutter:
    """For a BERT: [CLS] question [SEP] text [SEP]."""
    ids = marks(tokenizer)

    def cut(texts) -> list[Pieces]:
        return [Pieces(*found) for found in tokenizer.encode_spans(texts)]

    return Cutter(
        cut, lambda question: question + 2, 1, lambda windows, rows, length: _bert_rows(windows, rows, length, ids)
    )


class Windows(NamedTuple):
    """What is read. W windows over texts [C] and questions [N].

    question, text: int [W], which. first, size: int [W], the pieces of the text. mine: int [W,2], of these the first
    that counts here and the one behind the last. answer: int [W,2], first and last piece of the answer in the text,
    -1 where it is not wholly in the window.
    """

    texts: list[Pieces]
    questions: list[Pieces]
    question: np.ndarray
    text: np.ndarray
    first: np.ndarray
    size: np.ndarray
    mine: np.ndarray
    answer: np.ndarray
    cutter: Cutter

    def take(self, at) -> "Windows":
        of_windows = ("question", "text", "first", "size", "mine", "answer")
        return self._replace(**{name: getattr(self, name)[at] for name in of_windows})


def strides(length: int, size: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of `size` over `length` pieces: (first int [W], mine int [W,2]). The last one ends with the text.

    mine: the pieces that have more on their poorer side here than in any other window, of equals the first.
    """
    firsts = np.arange(0, max(length - size, 0) + stride, stride)
    firsts = np.minimum(firsts, max(length - size, 0))
    firsts = firsts[: np.argmax(firsts) + 1]
    middle = (firsts[:-1] + size - 1 + firsts[1:]) // 2 + 1  # between the last of one and the first of the next
    return firsts, np.stack([np.append(0, middle), np.append(middle, length)], axis=1)


def windows(examples, cutter: Cutter, window: int, stride: int, question: int) -> Windows:
    """The windows of questions in their order. window: places of a row, question and marks included. stride: pieces
    from one window of a text to the next. question: the most pieces of a question, of a longer one the beginning.

    UserError where a question leaves no room for a stride of text.
    """
    numbers = {}
    texts = [numbers.setdefault(example.context, len(numbers)) for example in examples]
    cut_texts = cutter.cut(list(numbers))
    questions = [_shorter(pieces, question) for pieces in cutter.cut([example.question for example in examples])]
    rows = []
    for n, example in enumerate(examples):
        pieces = cut_texts[texts[n]]
        room = window - cutter.before(len(questions[n].ids)) - cutter.after
        if room < stride:
            raise UserError(f"--window={window} leaves room for {room} pieces of text beside a question of "
                            f"{len(questions[n].ids)}, fewer than --stride={stride}: widen it, or lower "
                            "--question_length or --stride")  # fmt: skip
        answer = places(pieces.spans, example.answers[0]) if example.answers else (-1, -1)
        for first, mine in zip(*strides(len(pieces.ids), room, stride)):
            size = min(room, len(pieces.ids) - first)
            inside = first <= answer[0] and answer[1] < first + size
            rows.append((n, texts[n], first, size, *mine, *(answer if inside else (-1, -1))))
    table = np.array(rows, np.int64).reshape(-1, 8)
    return Windows(cut_texts, questions, *table[:, :4].T, table[:, 4:6], table[:, 6:8], cutter)


def _shorter(pieces: Pieces, longest: int) -> Pieces:
    return Pieces(*(None if part is None else part[:longest] for part in pieces))


def places(spans, answer) -> tuple[int, int]:
    """The first and the last piece that an answer touches; (-1, -1) where it touches none."""
    touched = np.flatnonzero((spans[:, 1] > answer.start) & (spans[:, 0] < answer.end))
    return (int(touched[0]), int(touched[-1])) if len(touched) else (-1, -1)


class Reading(NamedTuple):
    """`batch(step)`, the steps of an epoch, the places that batches are padded to, and the places of a mean step."""

    batch: Callable[[int], dict]
    steps: int
    lengths: tuple[int, ...]
    tokens: float


def training(windows: Windows, rows: int, seed: int, *, crop: int = 0, negatives: float = 0.0, titles=(), shapes=4):
    """Every window once an epoch, among windows of like length, in few shapes: a `Reading`, a function of (seed, step).

    crop: of a text with more pieces so many are read, around the answer, from a place drawn anew each epoch; 0: all.
    negatives: share of the rows that read another text of the article, to learn that the answer is not there; titles:
    each text's article.
    """
    before = np.array([windows.cutter.before(len(pieces.ids)) for pieces in windows.questions])[windows.question]
    most = crop or windows.size.max()
    lengths = np.minimum(windows.size, most) + before + windows.cutter.after
    ends = cut_lengths(lengths, shapes)
    turn, steps, members = in_buckets(lengths, ends, [rows] * len(ends), seed)
    siblings = _siblings(titles) if negatives else None
    known = {}  # of the last epoch asked for: only a memory of f(seed, epoch)

    def read(epoch: int) -> Windows:
        if epoch not in known:
            known.clear()
            known[epoch] = _drawn(windows, drawn_from(seed + 1_000_003, epoch), most, negatives, siblings)
        return known[epoch]

    def at(step: int) -> dict:
        b, who = turn(step)
        return padded(read(step // steps).take(who), rows, int(ends[b]))

    tokens = sum(-(-len(who) // rows) * rows * int(end) for who, end in zip(members, ends)) / steps
    return Reading(at, steps, tuple(map(int, ends)), tokens)


def _siblings(titles) -> list[np.ndarray]:
    """The other texts of each text's article."""
    titles = np.array(titles)
    return [np.flatnonzero((titles == title) & (np.arange(len(titles)) != n)) for n, title in enumerate(titles)]


def _drawn(windows: Windows, rng, most: int, negatives: float, siblings) -> Windows:
    """The windows as an epoch reads them: cropped, and some of them on a text that holds no answer."""
    share, where, other = rng.random((3, len(windows.first)))
    text, first, size, answer = (getattr(windows, name).copy() for name in ("text", "first", "size", "answer"))
    if negatives:
        swapped = [n for n in np.flatnonzero(share < negatives) if len(siblings[text[n]])]
        for n in swapped:
            text[n] = siblings[text[n]][int(other[n] * len(siblings[text[n]]))]
            first[n], answer[n] = 0, -1
            size[n] = min(size[n], len(windows.texts[text[n]].ids))
    new = np.minimum(size, most)
    has = answer[:, 0] >= 0
    low = np.where(has, np.clip(answer[:, 1] + 1 - new, first, answer[:, 0].clip(first)), first)
    high = np.where(has, np.minimum(first + size - new, answer[:, 0]), first + size - new)
    first = low + (where * (np.maximum(high - low, 0) + 1)).astype(np.int64)
    answer = np.where(has[:, None], np.minimum(answer, (first + new - 1)[:, None]), -1)  # longer than the window: cut
    return windows._replace(text=text, first=first, size=new, answer=answer, mine=np.stack([first, first + new], 1))


def evaluation(windows: Windows, rows: int, shapes: int = 0):
    """Every window once, by length: an iterator of (numbers of the windows int [n], batch).

    shapes: the lengths that are padded to, at most so many, fitted to these windows; 0: lengths that all windows share,
    16, 24, 32, 48, ..., for texts that come a few at a time.
    """
    before = np.array([windows.cutter.before(len(pieces.ids)) for pieces in windows.questions])[windows.question]
    lengths = windows.size + before + windows.cutter.after
    shared = np.sort(np.outer(2 ** np.arange(4, 21), [2, 3]).reshape(-1) // 2)
    ends = cut_lengths(lengths, shapes) if shapes else shared
    bucket = np.searchsorted(ends, lengths)
    for b in np.unique(bucket):
        who, end = np.flatnonzero(bucket == b), ends[b]
        for begin in range(0, len(who), rows):
            at = who[begin : begin + rows]
            yield at, padded(windows.take(at), rows, int(end))


def padded(windows: Windows, rows: int, length: int) -> dict:
    """The batch of all `windows`, filled to `rows` rows of `length` places, rounded up to a multiple of 8."""
    n, length = len(windows.first), -(-length // 8) * 8
    begins = np.array([windows.cutter.before(len(windows.questions[q].ids)) for q in windows.question])
    place, at = np.arange(length)[None], begins[:, None]
    batch = {"context": np.zeros((rows, length), bool), "mine": np.zeros((rows, length), bool)}
    batch["context"][:n] = (place >= at) & (place < at + windows.size[:, None])
    mine = windows.mine - windows.first[:, None] + at
    batch["mine"][:n] = batch["context"][:n] & (place >= mine[:, :1]) & (place < mine[:, 1:])
    answer = np.where(windows.answer >= 0, windows.answer - windows.first[:, None] + at, 0)
    for column, name in enumerate(("start", "end")):
        batch[name] = np.zeros(rows, np.int32)
        batch[name][:n] = answer[:, column]
    batch["weights"] = (np.arange(rows) < n).astype(np.float32)
    return batch | windows.cutter.rows(windows, rows, length)


def _bert_rows(windows: Windows, rows: int, length: int, ids: dict[str, int]) -> dict:
    tokens, valid = np.full((rows, length), ids["[PAD]"], np.int32), np.zeros((rows, length), bool)
    segments = np.zeros((rows, length), np.int32)
    for n, (q, t, first, size) in enumerate(_each(windows)):
        question, text = windows.questions[q].ids, windows.texts[t].ids[first : first + size]
        row = np.concatenate([[ids["[CLS]"]], question, [ids["[SEP]"]], text, [ids["[SEP]"]]])
        tokens[n, : len(row)], valid[n, : len(row)] = row, True
        segments[n, len(question) + 2 : len(row)] = 1
    return {"tokens": tokens, "valid": valid, "segments": segments}


def _word_rows(windows: Windows, rows: int, length: int) -> dict:
    longest = max((len(pieces.ids) for pieces in windows.questions), default=1)
    wide = max(-(-longest // 16) * 16, 16)
    batch = {
        "words": np.zeros((rows, length), np.int32), "letters": np.zeros((rows, length, LETTERS), np.uint8),
        "match": np.zeros((rows, length, 2), np.float32), "valid": np.zeros((rows, length), bool),
        "question": np.zeros((rows, wide), np.int32), "question_letters": np.zeros((rows, wide, LETTERS), np.uint8),
        "asked": np.zeros((rows, wide), bool),
    }  # fmt: skip
    batch["words"][:, 0], batch["valid"][:, 0], batch["asked"][:, 0] = 1, True, True  # no row is empty
    for n, (q, t, first, size) in enumerate(_each(windows)):
        question, text, here = windows.questions[q], windows.texts[t], slice(first, first + size)
        at, asked = slice(1, 1 + size), slice(len(question.ids))
        batch["words"][n, at], batch["letters"][n, at] = text.ids[here], text.letters[here]
        batch["valid"][n, at] = True
        kinds = text.kinds[here]
        batch["match"][n, at] = (kinds > 0) & (kinds[:, None] == question.kinds[None]).any(1)
        batch["question"][n, asked], batch["question_letters"][n, asked] = question.ids, question.letters
        batch["asked"][n, asked] = True
    return batch


def _each(windows: Windows):
    return zip(*(getattr(windows, name).tolist() for name in ("question", "text", "first", "size")))
