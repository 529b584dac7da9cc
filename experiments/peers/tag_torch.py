"""What a BiLSTM-CRF would be trained with in PyTorch, for bench_tag.py: one JSON line.

Steps of Lample et al. 2016's tagger on the batches of an .npz file: nn.LSTM over each word's letters and over words,
both packed, pytorch-crf, Adam, gradients clipped at 5. Needs torch and pytorch-crf; nothing of lmjax.
"""

import argparse
import json
import statistics
import time

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torchcrf import CRF


def numbers():
    parser = argparse.ArgumentParser()
    sizes = {"word_dim": 100, "letter_dim": 25, "letter_cells": 25, "cells": 100, "words": 0, "letters": 0, "tags": 0,
             "runs": 5, "threads": 2}  # fmt: skip
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--batches", required=True, help=".npz of words_0, seen_0, tags_0, letters_0, counts_0, ...")
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


class Tagger(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.words, self.letters = nn.Embedding(a.words, a.word_dim), nn.Embedding(a.letters, a.letter_dim)
        self.spell = nn.LSTM(a.letter_dim, a.letter_cells, bidirectional=True, batch_first=True)
        self.lstm = nn.LSTM(a.word_dim + 2 * a.letter_cells, a.cells, bidirectional=True, batch_first=True)
        self.drop, self.out, self.crf = nn.Dropout(a.dropout), nn.Linear(2 * a.cells, a.tags), CRF(a.tags, True)

    def forward(self, words, seen, tags, letters, counts):
        packed = pack_padded_sequence(self.letters(letters), counts.cpu(), batch_first=True, enforce_sorted=False)
        _, (last, _) = self.spell(packed)
        x = self.words(words)
        spelled = x.new_zeros(*words.shape, 2 * last.shape[-1])
        spelled[seen] = torch.cat([last[0], last[1]], dim=-1)
        x = self.drop(torch.cat([x, spelled], dim=-1))
        packed = pack_padded_sequence(x, seen.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=words.shape[1])
        return -self.crf(self.out(y), tags, seen, reduction="token_mean")


def train(a) -> dict:
    names = ("words", "seen", "tags", "letters", "counts")
    with np.load(a.batches) as stored:
        count = sum(name.startswith("words_") for name in stored)
        batches = [[torch.from_numpy(stored[f"{name}_{i}"]).to(a.device) for name in names] for i in range(count)]
    for batch in batches:
        full = batch[1][:, 0]  # pytorch-crf takes no empty sentence
        batch[0], batch[1], batch[2] = batch[0][full].long(), batch[1][full], batch[2][full].long()
        batch[3], batch[4] = batch[3].long(), batch[4].long()
    model = Tagger(a).to(a.device).train()
    tx = torch.optim.Adam(model.parameters(), 1e-3)
    seconds = []
    for _ in range(a.runs + 1):
        began = time.perf_counter()
        for batch in batches:
            loss = model(*batch)
            tx.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            tx.step()
            loss.item()
        seconds.append(time.perf_counter() - began)
    return {"sentences_per_s": sum(len(batch[0]) for batch in batches) / statistics.median(seconds[1:])}


def main():
    a = numbers()
    torch.set_num_threads(a.threads)
    print(json.dumps(vars(a) | {"version": torch.__version__} | train(a)))


if __name__ == "__main__":
    main()
