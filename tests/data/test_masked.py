"""Masked-word and next-sentence rows: what Devlin et al. 2019, A.1, asks of them, row by row and over many."""

import numpy as np
import pytest

from lmjax.data import masked, tokenizers
from lmjax.errors import UserError

# A document's sentences hold its own words alone, and each word only once: where a piece of text came from shows.
PAGES = [[" ".join(f"p{page}s{s}w{w}" for w in range(3 + s % 4)) + " ." for s in range(12)] for page in range(6)]
WIKI = "".join(
    f" = Page {n} = \n \n {page[0]} {page[1]} \n = = Part = = \n \n {page[2]} \n left @-@ hand <unk> of 1 @,@ 000 \n"
    for n, page in enumerate(PAGES)
)


class Words:
    """A WordPiece in small: each word between spaces is a piece."""

    def __init__(self, text):
        self.words = [*tokenizers.MARKS, *dict.fromkeys(text.split())]
        self.ids = {word: n for n, word in enumerate(self.words)}
        self.vocab = len(self.words)

    def id(self, mark):
        return self.ids.get(mark)

    def encode_lines(self, lines):
        return [np.array([self.ids[word] for word in line.split()], np.int32) for line in lines]


TEXT = "\n\n".join("\n".join(page) for page in PAGES)
TOKENIZER = Words(TEXT)


@pytest.fixture(scope="module")
def drawn():
    found = masked.Documents(*_documents())
    at = masked.masked_pairs(found, TOKENIZER, 8, 40, seed=1)
    return [at(step) for step in range(60)]


def _documents():
    encoded = TOKENIZER.encode_lines(sentence for page in PAGES for sentence in page)
    begins = np.concatenate([[0], np.cumsum([len(one) for one in encoded])])
    return np.concatenate(encoded), begins, np.repeat(np.arange(6), 12)


def restored(batch, row):
    """The words of a row, with what was hidden put back."""
    tokens = batch["tokens"][row].copy()
    told = batch["weights"][row] > 0
    tokens[batch["places"][row][told]] = batch["targets"][row][told]
    return [TOKENIZER.words[i] for i in tokens[batch["valid"][row]]]


def test_a_wikitext_page_is_a_document_without_its_titles():
    found = masked.sentences(WIKI)
    assert found == [[*page[:3], "left-hand [UNK] of 1,000"] for page in PAGES]


def test_paragraphs_are_joined_to_documents_of_sixteen_sentences():
    found = masked.sentences("One. Two! Three? Four\nand five.\n\n" * 9)
    assert [len(one) for one in found] == [16, 20]
    assert found[0][:4] == ["One.", "Two!", "Three?", "Four and five."]
    with pytest.raises(UserError, match="1 document"):
        masked.documents("One. Two.", TOKENIZER)


def test_rows_are_two_stretches_of_text_and_their_marks(drawn):
    stream = [word for page in PAGES for line in page for word in line.split()]
    for batch in drawn[:20]:
        for row in range(8):
            words = restored(batch, row)
            assert words[0] == "[CLS]"
            assert words[-1] == "[SEP]"
            cut = words.index("[SEP]")
            first, second = words[1:cut], words[cut + 1 : -1]
            assert first
            assert second
            for part in (first, second):
                pages = {word[1] for word in part if word != "."}
                assert len(pages) <= 1
                at = [i for i in range(len(stream)) if stream[i : i + len(part)] == part]
                assert at, part
            assert batch["segments"][row].tolist() == [0] * (cut + 1) + [1] * (len(words) - cut - 1) + [0] * (
                40 - len(words)
            )


def test_the_second_follows_the_first_in_half_of_the_rows(drawn):
    text = " ".join(word for page in PAGES for line in page for word in line.split())
    labels = []
    for batch in drawn:
        for row in range(8):
            words = restored(batch, row)
            cut = words.index("[SEP]")
            pages = [{word[1] for word in part if word != "."} for part in (words[1:cut], words[cut + 1 : -1])]
            labels.append(batch["next"][row])
            if labels[-1]:
                assert not pages[0] & pages[1]
            elif len(words) < 39:  # where none was shortened
                assert " ".join([*words[1:cut], *words[cut + 1 : -1]]) in text
    assert 0.4 < np.mean(labels) < 0.65  # the last sentence of a page has none that follows


def test_fifteen_percent_are_told_and_hidden_80_10_10(drawn):
    counts, kinds = np.zeros(2), np.zeros(3)
    for batch in drawn:
        told = batch["weights"] > 0
        np.testing.assert_allclose(batch["next_weights"].sum(), told.sum(), rtol=1e-6)
        counts += told.sum(), batch["valid"].sum()
        assert (batch["targets"][told] >= len(tokenizers.MARKS)).all()  # no mark is told
        shown = np.take_along_axis(batch["tokens"], batch["places"], 1)[told]
        same, hidden = shown == batch["targets"][told], shown == TOKENIZER.ids["[MASK]"]
        kinds += hidden.sum(), same.sum(), (~same & ~hidden).sum()
        assert all(len(set(row[on])) == on.sum() for row, on in zip(batch["places"], told))
    np.testing.assert_allclose(counts[0] / counts[1], 0.15, atol=0.01)
    np.testing.assert_allclose(kinds / kinds.sum(), [0.8, 0.1, 0.1], atol=0.03)


def test_a_batch_is_a_function_of_seed_and_step(drawn):
    at = masked.masked_pairs(masked.Documents(*_documents()), TOKENIZER, 8, 40, seed=1)
    for step in (40, 3, 0):
        again = at(step)
        assert all((again[name] == drawn[step][name]).all() for name in again)
    other = masked.masked_pairs(masked.Documents(*_documents()), TOKENIZER, 8, 40, seed=2)(0)
    assert (other["tokens"] != drawn[0]["tokens"]).any()
    assert (drawn[1]["tokens"] != drawn[0]["tokens"]).any()


def test_two_long_stretches_are_shortened_alike():
    rng = np.random.default_rng(0)
    for n, m, room in ((30, 4, 20), (4, 30, 20), (15, 15, 20), (3, 50, 5), (9, 9, 18)):
        first, second = masked.shorten(np.arange(n), np.arange(m), room, rng)
        assert len(first) + len(second) == min(room, n + m)
        assert min(len(first), len(second)) == min(n, m, room // 2)
        for part in (first, second):
            assert (np.diff(part) == 1).all()


def test_refusals():
    with pytest.raises(UserError, match=r"lacks \[PAD\].*expected a WordPiece one"):
        masked.masked_pairs(masked.Documents(*_documents()), tokenizers.Character.train("abc"), 4, 16, 0)
    with pytest.raises(UserError, match="rows of 7 tokens are too short"):
        masked.masked_pairs(masked.Documents(*_documents()), TOKENIZER, 4, 7, 0)
