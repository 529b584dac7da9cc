"""How fast a GPT trains: lmjax beside a PyTorch GPT of the same shape, in turn on one machine.

    bash launch/run.sh experiments/bench_gpt.py --peer=SCRIPT --peer_python=PYTHON

Tokens a second of whole training steps: forward, backward, clipping by the global norm, AdamW, the loss read at
every step. Without --dim it takes nanoGPT's CPU size (4 layers of 128 over 64 tokens) and then 4 layers of 256 over
256, three minutes on two cores. --compile=true compares with torch.compile; --dtype=bfloat16 is bf16. On a GPU,
--layers=12 --heads=12 --dim=768 --context=1024 --batch=32 --vocab=50304 is GPT-2, and the share of the chip's peak is
printed, by 6 N + 12 L D T FLOPs a token (Chowdhery et al. 2022, appendix B).

The peer is a script that takes --layers, --heads, --dim, --context, --batch, --vocab, --steps, --threads, --device and
the switches --bf16 and --compile, and prints one JSON line with tokens_per_s.
"""

from dataclasses import dataclass

from lmjax.config import GPT, setting
from lmjax.run import flags
from lmjax.run.versus import Versus, alternate, seconds_a_step


@dataclass(frozen=True)
class Config(Versus):
    dim: int = setting(0, "width of the model; 0: 128 over 64 tokens, then 256 over 256", low=0)
    context: int = setting(64, "tokens of a row, where --dim is given", low=1)
    layers: int = setting(4, "blocks", low=1)
    heads: int = setting(4, "attention heads a block", low=1)
    vocab: int = setting(65, "token types", low=2)
    batch: int = setting(12, "rows", low=1)
    steps: int = setting(20, "training steps a run, of which the median counts", low=1)
    dtype: str = setting("float32", "type of the products", choices=("float32", "bfloat16"))
    compile: bool = setting(False, "let the peer use torch.compile")
    peak_tflops: float = setting(0.0, "dense bf16 peak of the chip; 0: known for H100, H200, A100", low=0.0)


PEAK = {"H100": 989.0, "H200": 989.0, "A100": 312.0}  # TFLOP/s, dense bf16, from the makers' data sheets


def main(config):
    for dim, context in [(config.dim, config.context)] if config.dim else [(128, 64), (256, 256)]:
        compare(config, dim, context)


def compare(config, dim: int, context: int):
    import jax
    import numpy as np

    from lmjax import param
    from lmjax.models.gpt import gpt_loss, gpt_params
    from lmjax.train import optim, parallel
    from lmjax.train.state import new_state
    from lmjax.train.step import make_step

    model = GPT(config.vocab, context, config.layers, config.heads, dim, dtype=config.dtype)
    tokens = np.random.default_rng(0).integers(0, config.vocab, (config.batch, context + 1), np.int32)
    batch = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "weights": np.ones(tokens[:, 1:].shape, np.float32)}

    def loss(params, batch, key, carry):
        return gpt_loss(params, model, batch, None, carry)

    strategy, tx, key = parallel.local(), optim.adamw(1e-3, weight_decay=0.01), jax.random.key(0)
    specs = gpt_params(model)
    start = jax.jit(lambda key: new_state(param.init(specs, key), tx))
    step = strategy.compile(make_step(loss, tx, clip=1.0))

    def ours():
        state = strategy.place(start(key))
        seconds = seconds_a_step(step, state, lambda: strategy.batch(batch), key, config.steps)
        return config.batch * context / seconds

    names = ("layers", "heads", "vocab", "batch", "steps")
    peer = [f"--{name}={getattr(config, name)}" for name in names] + [f"--dim={dim}", f"--context={context}"]
    peer += ["--compile"] * config.compile + ["--bf16"] * (config.dtype == "bfloat16")
    device = jax.devices()[0]
    peer += ["--device=cuda"] * (device.platform == "gpu")
    alternate(config, f"gpt {config.layers}x{dim}x{context}", ours, peer)
    peak = config.peak_tflops or next((peak for name, peak in PEAK.items() if name in device.device_kind), 0.0)
    if peak:
        a_token = 6 * param.count(specs) + 12 * config.layers * dim * context
        print(f"model FLOPs utilisation {ours() * a_token / (peak * 1e12):.1%} of {peak:g} TFLOP/s")


if __name__ == "__main__":
    flags.run(main, Config)
