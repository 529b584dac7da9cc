"""What a translator would be trained and searched with in PyTorch, for bench_translate.py: one JSON line.

--task=train: steps of torch.nn.Transformer, post-norm, one tied matrix for both languages and the softmax, smoothed
targets, Adam, on the batches of an .npz file. --task=beam: `generate` of transformers' Marian model of the same sizes
with random weights. Needs torch, and transformers for the beam; nothing of lmjax.
"""

import argparse
import json
import math
import statistics
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def numbers():
    parser = argparse.ArgumentParser()
    sizes = {"layers": 4, "heads": 4, "dim": 128, "hidden": 256, "vocab": 10_000, "batch": 64, "length": 16, "new": 20,
             "beam": 5, "runs": 5, "threads": 2}  # fmt: skip
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--task", choices=("train", "beam"), default="train")
    parser.add_argument("--batches", default="", help="with --task=train: .npz of source_0, seen_0, tokens_0, ...")
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


class Translator(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.words = nn.Embedding(a.vocab, a.dim)
        nn.init.normal_(self.words.weight, std=a.dim**-0.5)
        self.net = nn.Transformer(a.dim, a.heads, a.layers, a.layers, a.hidden, a.dropout, batch_first=True)
        self.net.encoder.norm = self.net.decoder.norm = None  # post-norm needs none at the end
        self.drop, self.scale = nn.Dropout(a.dropout), math.sqrt(a.dim)
        angles = torch.arange(512)[:, None] * 10_000 ** (-torch.arange(0, a.dim, 2) / a.dim)
        self.register_buffer("waves", torch.cat([angles.sin(), angles.cos()], dim=1))

    def embed(self, ids):
        return self.drop(self.words(ids) * self.scale + self.waves[: ids.shape[1]])

    def forward(self, source, unseen, tokens):
        causal = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], device=tokens.device)
        y = self.net(self.embed(source), self.embed(tokens), tgt_mask=causal, tgt_is_causal=True,
                     src_key_padding_mask=unseen, memory_key_padding_mask=unseen)  # fmt: skip
        return y @ self.words.weight.T


def train(a) -> dict:
    with np.load(a.batches) as stored:
        count = sum(name.startswith("source_") for name in stored)
        names = ("source", "seen", "tokens", "targets", "weights")
        batches = [[torch.from_numpy(stored[f"{name}_{i}"]).to(a.device) for name in names] for i in range(count)]
    model = Translator(a).to(a.device).train()
    tx = torch.optim.Adam(model.parameters(), 1e-3, betas=(0.9, 0.98))

    def step(source, seen, tokens, targets, weights):
        logits = model(source.long(), ~seen, tokens.long())
        targets = targets.long().masked_fill(weights == 0, -100)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=0.1)
        tx.zero_grad(set_to_none=True)
        loss.backward()
        tx.step()
        return loss.item()

    for batch in batches:
        step(*batch)
    seconds = []
    for _ in range(a.runs):
        began = time.perf_counter()
        for batch in batches:
            step(*batch)
        seconds.append(time.perf_counter() - began)
    tokens = sum(float(batch[4].sum()) for batch in batches)
    return {"tokens_per_s": tokens / statistics.median(seconds)}


def beam(a) -> dict:
    from transformers import MarianConfig, MarianMTModel

    sizes = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in
             (("layers", a.layers), ("attention_heads", a.heads), ("ffn_dim", a.hidden))}  # fmt: skip
    config = MarianConfig(vocab_size=a.vocab, d_model=a.dim, scale_embedding=True, activation_function="relu",
                          decoder_start_token_id=1, eos_token_id=2, pad_token_id=0, forced_eos_token_id=None,
                          **sizes)  # fmt: skip
    model = MarianMTModel(config).to(a.device).eval()
    source = torch.randint(3, a.vocab, (a.batch, a.length), device=a.device)
    seconds = []
    with torch.no_grad():
        for _ in range(a.runs + 1):
            began = time.perf_counter()
            model.generate(source, attention_mask=torch.ones_like(source), num_beams=a.beam, do_sample=False,
                           max_new_tokens=a.new, min_new_tokens=a.new, length_penalty=1.0)  # fmt: skip
            seconds.append(time.perf_counter() - began)
    return {"sentences_per_s": a.batch / statistics.median(seconds[1:])}


def main():
    a = numbers()
    torch.set_num_threads(a.threads)
    print(json.dumps(vars(a) | {"version": torch.__version__} | (train(a) if a.task == "train" else beam(a))))


if __name__ == "__main__":
    main()
