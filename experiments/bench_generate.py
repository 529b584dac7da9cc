"""How fast a GPT generates with its cache: lmjax beside transformers' `generate`, in turn on one machine.

    bash launch/run.sh experiments/bench_generate.py --peer=experiments/peers/generate_hf.py --peer_python=PYTHON

Greedy, random weights, fp32; what counts are new tokens a second over all rows. The peer is a script that takes
--layers, --heads, --dim, --vocab, --batch, --prompt, --new, --runs and --threads and prints one JSON line with
tokens_per_s. Takes about two minutes on two cores.

--model=FOLDER takes published weights, a Hugging Face folder such as convert.py writes; the peer is told --model too.
"""

from dataclasses import dataclass, replace

from lmjax.config import GPT, setting
from lmjax.run import flags
from lmjax.run.versus import Versus, alternate


@dataclass(frozen=True)
class Config(Versus):
    model: str = setting("", "folder of published weights, in place of random ones of the sizes below")
    layers: int = setting(6, "blocks", low=1)
    heads: int = setting(6, "attention heads a block", low=1)
    dim: int = setting(384, "width of the model", low=1)
    vocab: int = setting(5000, "token types", low=2)
    batch: int = setting(8, "rows", low=1)
    prompt: int = setting(32, "tokens of each prompt", low=1)
    new: int = setting(128, "tokens to generate", low=1)
    runs: int = setting(5, "generations of which the median counts", low=1)
    dtype: str = setting("float32", "type of the products", choices=("float32", "bfloat16"))


def main(config):
    import statistics
    import time

    import jax
    import numpy as np

    from lmjax import param
    from lmjax.decode.sample import generate
    from lmjax.models.gpt import gpt_params
    from lmjax.run.models import decoder, published

    if config.model:
        params, model, *_ = published(config.model)
        model = replace(model, dtype=config.dtype)
    else:
        model = GPT(
            vocab=config.vocab,
            context=config.prompt + config.new,
            layers=config.layers,
            heads=config.heads,
            dim=config.dim,
            dtype=config.dtype,
        )
        params = jax.jit(lambda key: param.init(gpt_params(model), key))(jax.random.key(0))
    prompts = np.random.default_rng(0).integers(0, model.vocab, (config.batch, config.prompt), np.int32)
    valid = np.ones_like(prompts, bool)

    def once():
        began = time.perf_counter()
        key = jax.random.key(0)
        new = generate(decoder(model), params, prompts, valid, key, room=config.new, count=config.new, temperature=0.0)
        new.block_until_ready()
        return time.perf_counter() - began

    def ours():
        once()
        return config.batch * config.new / statistics.median(once() for _ in range(config.runs))

    given = [f"--model={config.model}"] * bool(config.model)
    names = ("layers", "heads", "dim", "vocab", "batch", "prompt", "new", "runs")
    alternate(config, "generate", ours, given + [f"--{name}={getattr(config, name)}" for name in names])


if __name__ == "__main__":
    flags.run(main, Config)
