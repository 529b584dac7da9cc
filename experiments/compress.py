"""Makes a trained model small, and says what that costs: bytes, quality and time, before and after.

    bash launch/run.sh experiments/compress.py --start=runs/gpt_char/001

writes the model in 8 bits a weight and in 4 to runs/compress/001/int8 and int4, which generate.py and predict.py read
like the run itself (--workdir=runs/compress/001/int4), and prints a table:

    method   what is kept                                                        bytes of a weight
    int8     a code of 8 bits, a scale for each output                           1
    int4     a code of 4 bits, a scale for each 32 inputs of an output           0.56
    prune    the largest, a share --left of them; the rest is 0                  4 --left + 0.13
    low_rank the factors of each matrix, with a share --left of its numbers      4 --left

Nothing is trained. What loses too much this way can be trained as small: in rounds of pruning, on rounded weights or
by a teacher (compress_mnist.py), with --prune.sparsity (lstm_ptb.py), with --teacher (classify.py). What was pruned in
training is stored as it is by --method=prune --left=1. --layers="blocks/*" names the weights that are made small, as a
shell names files; default: all but biases and norms.

Codes are turned into float32 as a model is loaded, so that 8 and 4 bits save disk and not time; "int8, integers" is
the time of products of integers. Factors save time too.

Runs of gpt_char, lstm_ptb, bert_pretrain, classify, tag, answer, translate_multi30k, vit and compress_mnist are read.
Quality is of test data where a run has some, else of validation data. Times are medians over rounds in which each
variant has its turn, with quartiles; they are of one batch.

Papers: Jacob et al. 2018 (8 bits), Dettmers & Zettlemoyer 2023 (4 bits in groups), Han et al. 2015 (pruning), Denton et
al. 2014 (low rank).
"""

from dataclasses import dataclass

from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.run import flags


@dataclass(frozen=True)
class Config:
    preset: str = ""
    workdir: str = setting("", "folder to write to. Default: a new one under runs/compress")
    start: str = setting("", "folder of the run whose model is made small")
    data_dir: str = setting("", "folder to look for data sets in before downloading; also the variable LMJAX_DATA")
    method: tuple[str, ...] = setting(
        ("int8", "int4"), "how, several with commas between", choices=("prune", "int8", "int4", "low_rank")
    )
    layers: tuple[str, ...] = setting((), "paths of weights, with * for any part, such as blocks/*/up/w; default: all")
    left: float = setting(0.5, "prune: share of the weights that stays; low_rank: of the numbers", low=0.0, high=1.0)
    group: int = setting(32, "int4: inputs of an output that share a scale", low=2)
    rounds: int = setting(20, "times that each variant is timed", low=2)
    quiet: bool = setting(False, "print the table alone")


_ALL = {"method": ("int8", "int4", "prune", "low_rank")}
_ROWS = {
    "gpt": ("a GPT on characters", "gpt_char/default"),
    "lstm": ("Zaremba's small LSTM on Penn Treebank", "lstm_ptb/zaremba_small"),
    "cnn": ("Kim's CNN on TREC's questions", "classify/trec_cnn"),
    "bilstm": ("a BiLSTM on Reuters R8", "classify/r8_lstm"),
    "minilm": ("MiniLM fine-tuned on TREC's questions", "classify/trec_minilm"),
    "tagger": ("a BiLSTM-CRF on the names of CoNLL-2003", "tag/conll2003_lample"),
    "bert": ("a BERT of 2 layers", "bert_pretrain/tiny"),
    "reader": ("BiDAF on SQuAD", "answer/bidaf"),
    "translator": ("a Transformer on Multi30k", "translate_multi30k/transformer_de_en"),
    "vit": ("a ViT on scikit-learn's digits", "vit/default"),
    "lenet": ("LeNet-300-100 on MNIST", "compress_mnist/lenet_300_100"),
}
PRESETS = {name: {"help": what, **_ALL} for name, (what, _) in _ROWS.items()}
NEEDS = {name: {"start": row} for name, (_, row) in _ROWS.items()} | {"": {"by_hand": "--start, a run"}}


def main(config):
    import time

    import jax

    from lmjax.compress import select, store
    from lmjax.run.tasks import compressing, small_report
    from lmjax.run.weights import is_small
    from lmjax.run.workdir import fresh, workdir

    if not config.start:
        raise UserError("no --start is given: name the folder of a run, such as --start=runs/gpt_char/001")
    if len(set(config.method)) < len(config.method) or not config.method:
        raise UserError(f"--method={','.join(config.method)}: expected each once, such as --method=int8,int4")
    if is_small(config.start):
        raise UserError(f"--start={config.start} is small already: name the run that it was made of")
    subject = compressing.open_run(config.start, config.data_dir)
    paths = select.chosen(subject.specs, config.layers)
    with workdir(config.workdir or fresh("compress"), "compress", config, ("workdir", "data_dir", "quiet")) as folder:
        if not config.quiet:
            print(f"{subject.experiment} of {config.start}, {len(paths)} arrays of weights, to {folder}", flush=True)
        began = time.perf_counter()
        trees, rows = {small_report.WHOLE: subject.params}, [small_report.whole(subject)]
        for method in config.method:
            small = store.compressed(
                subject.params, subject.specs, method, paths, left=config.left, group=config.group
            )
            about = {"method": method, "experiment": subject.experiment, "left": config.left, "group": config.group}
            size = compressing.write_small(config.start, folder / method, small, about)
            trees[method] = store.running(small, subject.specs)
            rows.append(small_report.made(subject, method, small, trees[method], size))
            if method == "int8":
                whole_numbers = store.running(small, subject.specs, integers=True)
                if jax.tree.structure(whole_numbers) != jax.tree.structure(trees[method]):  # it has linear layers
                    trees["int8, integers"] = whole_numbers
        rows = small_report.timed(rows, compressing.latencies(subject.call, trees, config.rounds))
        small_report.save(folder, config, rows, time.perf_counter() - began)
        print(small_report.table(rows, subject.batch), flush=True)


if __name__ == "__main__":
    flags.run(main, Config, PRESETS)
