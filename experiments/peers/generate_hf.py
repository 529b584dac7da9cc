"""Greedy `generate` of transformers with its cache, for bench_generate.py: one JSON line with new tokens per second.

--model=FOLDER: published weights, else a GPT-2 of random ones of the sizes given. Needs torch and transformers.
"""

import argparse
import json
import statistics
import time

import torch
import transformers


def numbers():
    parser = argparse.ArgumentParser()
    sizes = {"layers": 6, "heads": 6, "dim": 384, "vocab": 5000, "batch": 8, "prompt": 32, "new": 128, "runs": 5,
             "threads": 2}  # fmt: skip
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--model", default="")
    return parser.parse_args()


def main():
    a = numbers()
    torch.set_num_threads(a.threads)
    if a.model:
        model = transformers.AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)
    else:
        sizes = {"vocab_size": a.vocab, "n_positions": a.prompt + a.new, "n_embd": a.dim, "n_layer": a.layers,
                 "n_head": a.heads}  # fmt: skip
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=None))
    model = model.eval()
    model.generation_config.eos_token_id = None  # every row is as long as ours
    prompt = torch.randint(0, model.config.vocab_size, (a.batch, a.prompt))
    seconds = []
    with torch.no_grad():
        for _ in range(a.runs + 1):
            began = time.perf_counter()
            model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=a.new, min_new_tokens=a.new,
                           do_sample=False, pad_token_id=0)  # fmt: skip
            seconds.append(time.perf_counter() - began)
    figures = {"version": transformers.__version__, "tokens_per_s": a.batch * a.new / statistics.median(seconds[1:])}
    print(json.dumps(vars(a) | figures))


if __name__ == "__main__":
    main()
