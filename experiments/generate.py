"""Text from a trained language model: greedy or sampled, several continuations at once.

    bash launch/run.sh experiments/generate.py --workdir=runs/gpt_char/001 --prompt="The import statement"

continues the prompt with the best checkpoint of a run of gpt_char.py or lstm_ptb.py. The whole loop is one compiled
program, and prompts of any length share a few of them. --temperature=0 takes the likeliest token each time; top_k and
top_p (Holtzman et al. 2020, nucleus sampling) cut the unlikely tail; --samples=8 draws eight at once. A GPT sees its
last `context` tokens only, an LSTM all of them through its state.
"""

from dataclasses import dataclass

from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.run import flags


@dataclass(frozen=True)
class Config:
    workdir: str = setting("", "folder of a finished or running experiment")
    prompt: str = setting("\n", "text to go on from; \\n in it is a line end")
    tokens: int = setting(400, "tokens to generate", low=1)
    samples: int = setting(1, "continuations to draw at once", low=1)
    temperature: float = setting(0.8, "below 1 safer, above 1 wilder, 0: always the likeliest token", low=0.0)
    top_k: int = setting(0, "draw among the so many likeliest tokens only; 0: all", low=0)
    top_p: float = setting(
        1.0, "draw among the likeliest tokens that together have this probability", low=0.0, high=1.0
    )
    seed: int = setting(0, "of the draws", low=0)
    checkpoint: str = setting("best", "by validation loss, or the last", choices=("best", "last"))


def main(config):
    import jax

    from lmjax.run import models

    if not config.workdir:
        raise UserError("no --workdir: give the folder of a run, such as --workdir=runs/gpt_char/001")
    trained = models.load(config.workdir, config.checkpoint)
    prompt = config.prompt.replace("\\n", "\n")
    texts = models.complete(
        trained, [prompt] * config.samples, config.tokens, key=jax.random.key(config.seed),
        temperature=config.temperature, top_k=config.top_k, top_p=config.top_p,
    )  # fmt: skip
    for number, text in enumerate(texts, 1):
        if config.samples > 1:
            print(f"--- {number} ---")
        print(prompt + text if prompt.strip() else text)


if __name__ == "__main__":
    flags.run(main, Config)
