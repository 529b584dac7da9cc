"""SeqGAN as public PyTorch implementations have it, for bench_seqgan.py: one JSON line.

One round of the adversarial game: sequences from the generator, a reward for each prefix from roll-outs that read the
prefix again and go on token by token, a step of policy gradient, an update of the roll-out policy, then rounds of the
discriminator on new sequences. An LSTM cell a token, torch.multinomial, a convolution a window. Needs torch alone.
"""

import argparse
import copy
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn


def numbers():
    parser = argparse.ArgumentParser()
    sizes = {"vocab": 5000, "length": 20, "embed": 32, "cells": 32, "start": 0, "batch": 64, "rollouts": 16,
             "judge_embed": 64, "judge_rounds": 5, "judge_epochs": 3, "judge_sequences": 640, "runs": 1,
             "threads": 2}  # fmt: skip
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--windows", default="1,2,3,4,5,6,7,8,9,10,15,20")
    parser.add_argument("--maps", default="100,200,200,200,200,100,100,100,100,100,160,160")
    parser.add_argument("--dropout", type=float, default=0.25)
    parser.add_argument("--l2", type=float, default=0.2)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


class Generator(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.a = a
        self.embed, self.cell = nn.Embedding(a.vocab, a.embed), nn.LSTMCell(a.embed, a.cells)
        self.out = nn.Linear(a.cells, a.vocab)
        for p in self.parameters():
            nn.init.normal_(p, 0.0, 0.1)

    def begin(self, rows):
        zero = torch.zeros(rows, self.a.cells, device=self.a.device)
        return torch.full((rows,), self.a.start, dtype=torch.long, device=self.a.device), (zero, zero)

    def step(self, token, state):
        state = self.cell(self.embed(token), state)
        return F.log_softmax(self.out(state[0]), dim=-1), state

    def log_likelihoods(self, tokens):
        """Of each token [B,T], given those before it."""
        token, state = self.begin(len(tokens))
        found = []
        for t in range(tokens.shape[1]):
            scores, state = self.step(token, state)
            found.append(scores.gather(1, tokens[:, t : t + 1])[:, 0])
            token = tokens[:, t]
        return torch.stack(found, dim=1)

    @torch.no_grad()
    def write(self, rows, prefix=None):
        """Sequences [rows,T] that begin with `prefix` [rows,t], which is read first."""
        token, state = self.begin(rows)
        given = 0 if prefix is None else prefix.shape[1]
        found = []
        for t in range(self.a.length):
            scores, state = self.step(token, state)
            token = prefix[:, t] if t < given else torch.multinomial(scores.exp(), 1)[:, 0]
            found.append(token)
        return torch.stack(found, dim=1)


class Discriminator(nn.Module):
    def __init__(self, a):
        super().__init__()
        windows, maps = ([int(n) for n in text.split(",")] for text in (a.windows, a.maps))
        self.embed = nn.Embedding(a.vocab, a.judge_embed)
        self.windows = nn.ModuleList(nn.Conv2d(1, m, (n, a.judge_embed)) for n, m in zip(windows, maps, strict=True))
        total = sum(maps)
        self.gate, self.transform = nn.Linear(total, total), nn.Linear(total, total)
        self.drop, self.out = nn.Dropout(a.dropout), nn.Linear(total, 2)

    def forward(self, tokens):
        x = self.embed(tokens)[:, None]
        maps = [F.relu(window(x)).squeeze(3) for window in self.windows]
        c = torch.cat([F.max_pool1d(m, m.shape[2]).squeeze(2) for m in maps], dim=1)
        gate = torch.sigmoid(self.gate(c))
        return self.out(self.drop(gate * F.relu(self.transform(c)) + (1 - gate) * c))


@torch.no_grad()
def rewards(a, tokens, policy, judge):
    """[B,T]: what the discriminator says of the sequence completed from each prefix, the mean of the roll-outs."""
    judge.eval()
    total = torch.zeros(tokens.shape, device=a.device)
    for _ in range(a.rollouts):
        for t in range(1, a.length):
            whole = policy.write(len(tokens), tokens[:, :t])
            total[:, t - 1] += F.softmax(judge(whole), dim=1)[:, 1]
        total[:, -1] += F.softmax(judge(tokens), dim=1)[:, 1]
    return total / a.rollouts


def game(a, generator, policy, judge, opt, judge_opt, true):
    tokens = generator.write(a.batch)
    values = rewards(a, tokens, policy, judge)
    opt.zero_grad(set_to_none=True)
    (-(generator.log_likelihoods(tokens) * values).sum()).backward()
    nn.utils.clip_grad_norm_(generator.parameters(), 5.0)
    opt.step()
    with torch.no_grad():
        for (name, old), (_, new) in zip(policy.named_parameters(), generator.named_parameters(), strict=True):
            old.copy_(new if name == "embed.weight" else 0.8 * old + 0.2 * new)
    judge.train()
    for _ in range(a.judge_rounds):
        made = torch.cat([generator.write(a.batch) for _ in range(-(-len(true) // a.batch))])[: len(true)]
        rows, labels = torch.cat([true, made]), torch.arange(2, device=a.device).flip(0).repeat_interleave(len(true))
        for _ in range(a.judge_epochs):
            for part in torch.randperm(len(rows), device=a.device).split(a.batch):
                loss = F.cross_entropy(judge(rows[part]), labels[part])
                loss = loss + a.l2 * 0.5 * sum(p.square().sum() for p in judge.out.parameters())
                judge_opt.zero_grad(set_to_none=True)
                loss.backward()
                judge_opt.step()
    return float(values.mean())


def main():
    a = numbers()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    generator, judge = Generator(a).to(a.device), Discriminator(a).to(a.device)
    policy = copy.deepcopy(generator)
    opt, judge_opt = torch.optim.Adam(generator.parameters(), 0.01), torch.optim.Adam(judge.parameters(), 1e-4)
    true = torch.randint(a.vocab, (a.judge_sequences // (a.batch // 2) * (a.batch // 2), a.length), device=a.device)
    less = argparse.Namespace(**vars(a) | {"rollouts": 1, "judge_epochs": 1})
    game(less, generator, policy, judge, opt, judge_opt, true)  # does not count
    seconds = []
    for _ in range(a.runs):
        began = time.perf_counter()
        game(a, generator, policy, judge, opt, judge_opt, true)
        seconds.append(time.perf_counter() - began)
    speed = {"rounds_per_hour": 3600 / statistics.median(seconds)}
    print(json.dumps(vars(a) | {"version": torch.__version__} | speed))


if __name__ == "__main__":
    main()
