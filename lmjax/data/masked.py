"""Batches for masked-word and next-sentence training (Devlin et al. 2019, section 3.1 and appendix A.1).

A row is [CLS] A [SEP] B [SEP], A and B stretches of whole sentences; in one half of the rows B follows A in its
document, in the other it comes from elsewhere. Of the tokens 15 % are to be told: 80 % of these become [MASK], 10 %
another token, 10 % stay. A batch, see models/bert.py:

    tokens int32 [B,T]   valid bool [B,T]   segments int32 [B,T]
    places int32 [B,M]   targets int32 [B,M]   weights float32 [B,M]: 0 where a row has fewer
    next int32 [B]: 0 where B follows A   next_weights float32 [B]: of the batch as heavy as weights

Departure: the paper writes ten masked copies of each document's rows to disk; here every row is drawn anew, as a
function of (seed, step), from a sentence anywhere.
"""

import re
from typing import NamedTuple

import numpy as np

from lmjax.data.batches import drawn_from
from lmjax.data.tokenizers import MARKS
from lmjax.errors import UserError

LEAST = 16  # sentences of a document, where the text has no titles
SHARE, SHORT = 0.15, 0.1  # of tokens that are masked; of rows that are drawn shorter than T


class Documents(NamedTuple):
    """Sentences one after the other: tokens int32 [N]; where each begins, and the end, int64 [S+1]; the number of each
    sentence's document, int64 [S]."""

    tokens: np.ndarray
    begins: np.ndarray
    document: np.ndarray


def sentences(text: str) -> list[list[str]]:
    """The sentences of each document of a text.

    Documents are what stands between the titles of WikiText (`= Title =`, of which the text's own are left out), or,
    without such, paragraphs between blank lines, joined until they have 16 sentences. A sentence ends behind . ! or ?
    before a space (in WikiText behind one that stands alone), or with its paragraph: a line in WikiText, else what
    blank lines surround.
    """
    title = re.compile(r"^ = [^=].* = ?$", re.MULTILINE)
    if title.search(text):
        text = text.replace("<unk>", "[UNK]")
        text = re.sub(r" @([-,.])@ ", r"\1", text)
        parts = [[line for line in part.split("\n") if not re.match(r"^ = ", line)] for part in title.split(text)]
        least, end = 1, re.compile(r"(?<= [.!?]) ")
    else:
        parts, least = [[paragraph] for paragraph in re.split(r"\n\s*\n", text)], LEAST
        end = re.compile(r"(?<=[.!?]) ")
    found, now = [], []
    for part in parts:
        now += [one for paragraph in part for one in end.split(" ".join(paragraph.split())) if one]
        if len(now) >= least:
            found.append(now)
            now = []
    if now:
        found = [*found[:-1], found[-1] + now] if found else [now]
    return found


def documents(text: str, tokenizer) -> Documents:
    """The sentences of a text as tokens. UserError where they are fewer than two documents."""
    parts = sentences(text)
    if len(parts) < 2:
        raise UserError(f"the text has {len(parts)} document of {LEAST} sentences: expected two or more to draw from")
    encoded = tokenizer.encode_lines(sentence for part in parts for sentence in part)
    document = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    kept = np.array([len(sentence) > 0 for sentence in encoded])
    encoded = [sentence for sentence in encoded if len(sentence)]
    begins = np.concatenate([[0], np.cumsum([len(sentence) for sentence in encoded])])
    return Documents(np.concatenate(encoded), begins, document[kept])


def marks(tokenizer) -> dict[str, int]:
    """The ids of BERT's five marks. UserError where the tokenizer lacks one."""
    get = getattr(tokenizer, "id", lambda mark: None)
    found = {mark: get(mark) for mark in MARKS}
    if missing := [mark for mark, number in found.items() if number is None]:
        raise UserError(f"the tokenizer lacks {', '.join(missing)}: expected a WordPiece one, such as "
                        "--tokenizer=wordpiece or a folder with BERT's vocab.txt")  # fmt: skip
    return found


def held_pairs(texts: str, tokenizer, batch: int, length: int):
    """`masked_pairs` of texts to validate on: the same rows whatever a run's seed."""
    return masked_pairs(documents(texts, tokenizer), tokenizer, batch, length, 1_000_003)


def masked_pairs(found: Documents, tokenizer, batch: int, length: int, seed: int):
    """`batch(step)` of `batch` rows of `length` tokens, a pure function of (seed, step)."""
    ids = marks(tokenizer)
    most = max(round(SHARE * length), 1)
    ordinary = np.setdiff1d(np.arange(tokenizer.vocab), list(ids.values()))
    if length < 8:
        raise UserError(f"rows of {length} tokens are too short for two sentences and their marks: expected 8 or more")

    def at(step: int) -> dict:
        rng = drawn_from(seed, step)
        rows = {name: np.zeros((batch, length), np.int32) for name in ("tokens", "segments")}
        rows["tokens"] += ids["[PAD]"]
        valid = np.zeros((batch, length), bool)
        places, targets = np.zeros((batch, most), np.int32), np.zeros((batch, most), np.int32)
        weights, follows = np.zeros((batch, most), np.float32), np.zeros(batch, np.int32)
        for row in range(batch):
            first, second, follows[row] = pair(found, length - 3, rng)
            tokens = np.concatenate([[ids["[CLS]"]], first, [ids["[SEP]"]], second, [ids["[SEP]"]]]).astype(np.int32)
            chosen = choose(tokens, ids, most, rng)
            places[row, : len(chosen)], targets[row, : len(chosen)] = chosen, tokens[chosen]
            weights[row, : len(chosen)] = 1
            tokens[chosen] = hide(tokens[chosen], ids["[MASK]"], ordinary, rng)
            rows["tokens"][row, : len(tokens)], valid[row, : len(tokens)] = tokens, True
            rows["segments"][row, len(first) + 2 : len(tokens)] = 1
        share = np.full(batch, weights.sum() / batch, np.float32)
        return {**rows, "valid": valid, "places": places, "targets": targets, "weights": weights, "next": follows,
                "next_weights": share}  # fmt: skip

    return at


def pair(found: Documents, room: int, rng) -> tuple[np.ndarray, np.ndarray, int]:
    """(A, B, 0 where B follows A and 1 where it does not), together at most `room` tokens."""
    target = room if rng.random() >= SHORT else int(rng.integers(2, room + 1))
    start = int(rng.integers(len(found.document)))
    number = found.document[start]
    ends = found.begins[start + 1 :] - found.begins[start]  # of each sentence from here on
    here = int(np.searchsorted(found.document, number, side="right")) - start  # sentences left in the document
    count = min(int(np.searchsorted(ends, target)) + 1, here)
    cut = int(rng.integers(1, count)) if count > 1 else 1
    first = found.tokens[found.begins[start] : found.begins[start + cut]]
    follows = count > 1 and rng.random() < 0.5
    if follows:
        begin, end = found.begins[start + cut], found.begins[start + count]
    else:
        first = first[: max(target - 1, 1)]
        other = number
        while other == number:
            there = int(rng.integers(len(found.document)))
            other = found.document[there]
        last = int(np.searchsorted(found.document, other, side="right"))
        begin = found.begins[there]
        end = min(begin + max(target - len(first), 1), found.begins[last])
    first, second = shorten(first, found.tokens[begin:end], room, rng)
    return first, second, int(not follows)


def shorten(first, second, room: int, rng):
    """Takes tokens off the longer of the two, at its beginning or end by chance, until both fit."""
    spare = len(first) + len(second) - room
    if spare <= 0:
        return first, second
    more = max(min(abs(len(first) - len(second)), spare), 0)  # off the longer alone, then off both
    each = (spare - more) // 2
    cuts = [each, spare - more - each]
    cuts[int(len(second) > len(first))] += more
    parts = []
    for part, cut in zip((first, second), cuts):
        front = int(rng.binomial(cut, 0.5))
        parts.append(part[front : len(part) - (cut - front)])
    return parts[0], parts[1]


def choose(tokens, ids: dict[str, int], most: int, rng) -> np.ndarray:
    """The places to be told, in order: 15 % of the row, at least one, none of them a mark."""
    free = np.flatnonzero(~np.isin(tokens, list(ids.values())))
    count = min(max(round(SHARE * len(tokens)), 1), most, len(free))
    return np.sort(rng.choice(free, count, replace=False)) if count else np.zeros(0, np.int64)


def hide(tokens, mask: int, ordinary, rng) -> np.ndarray:
    """What stands in the place of tokens to be told: 80 % [MASK], 10 % any other token, 10 % themselves."""
    dice = rng.random(len(tokens))
    return np.where(dice < 0.8, mask, np.where(dice < 0.9, rng.choice(ordinary, len(tokens)), tokens))
