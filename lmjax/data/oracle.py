"""The true distribution of SeqGAN's experiment on made-up data (Yu et al. 2017, section 4): an LSTM with weights drawn
from N(0, 1). The published one comes in a file, others from a seed.

An oracle is a tree of numpy arrays, the parameters of models/seqgan.py's generator.
"""

import io
import zipfile

import numpy as np

from lmjax.data import files
from lmjax.data.files import File, Source
from lmjax.errors import UserError

# The arrays of save/target_params.pkl at that commit, in a form that executes nothing.
PUBLISHED = Source("seqgan-oracle", "https://arxiv.org/abs/1609.05473", (
    File("params", "target_params.npz", "https://github.com/LantaoYu/SeqGAN/tree/"
         "e2b52fb6309851b14765290e8a972ccac09f1bec/save", 1_237_956,
         "9232f7a6cc63fe34bcfdac2d44f123ac66f60bb7b723b518f7cca189f318c1d1"),
))  # fmt: skip

NOWHERE = "your folder (no --data_dir or LMJAX_DATA is given)"
GATES = ("i", "f", "c", "og")  # in the file's letters, in our order: input, forget, cell, output


def load_oracle(name: str, vocab: int, embed: int, cells: int, seed: int = 0, data_dir=None) -> dict:
    """The oracle `name`: "published", "generated" (from `seed`, of these sizes), or the path of an .npz like the
    published one. UserError where the file is no oracle, or has other sizes."""
    if name == "generated":
        return generated(vocab, embed, cells, seed)
    if name == "published":
        content = published(data_dir)
    else:
        content = files.read_bytes(name)
    return parse(content, name, vocab, embed, cells)


def published(data_dir=None) -> bytes:
    """The published oracle's file, from the user's folder: its authors offer it as a pickle alone."""
    file, folder = PUBLISHED.files[0], files.own_dir(data_dir)
    if files.locate(file, PUBLISHED.name, folder) is None:
        raise UserError(
            f"{file.name} of {PUBLISHED.name} is not in {folder or NOWHERE}: "
            f"save the 15 arrays of {file.url} there as .npz, or choose --oracle=generated"
        )
    return files.read(PUBLISHED, data_dir)["params"]


def generated(vocab: int, embed: int, cells: int, seed: int) -> dict:
    """An oracle whose every weight and bias is drawn from N(0, 1)."""
    rng = np.random.default_rng([seed, 20])

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    return {
        "embed": normal(vocab, embed),
        "lstm": {"w": normal(embed, 4, cells), "u": normal(cells, 4, cells), "b": normal(4, cells)},
        "softmax": {"w": normal(cells, vocab), "b": normal(vocab)},
    }


def parse(content: bytes, name: str, vocab: int, embed: int, cells: int) -> dict:
    """The oracle in an .npz of the published one's arrays: for each gate W, U and b, and emb, Wo, bo."""
    gates = {f"{kind}{gate}": shape for gate in GATES
             for kind, shape in (("W", (embed, cells)), ("U", (cells, cells)), ("b", (cells,)))}  # fmt: skip
    expected = {"emb": (vocab, embed), **gates, "Wo": (cells, vocab), "bo": (vocab,)}
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in expected}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        reason = str(error).strip("'\"").splitlines()[0]
        raise UserError(
            f"--oracle={name} is no oracle: {reason}; expected an .npz with the arrays {', '.join(expected)}"
        ) from None
    for key, shape in expected.items():
        array = arrays[key]
        if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise UserError(
                f"--oracle={name} holds {key} {array.dtype}{list(array.shape)}, expected finite floats {list(shape)}: "
                "set model.vocab, model.embed and model.cells to the file's"
            )
    arrays = {key: array.astype(np.float32) for key, array in arrays.items()}

    def gathered(kind):
        return np.stack([arrays[f"{kind}{gate}"] for gate in GATES], axis=-2)

    return {
        "embed": arrays["emb"],
        "lstm": {"w": gathered("W"), "u": gathered("U"), "b": gathered("b")},
        "softmax": {"w": arrays["Wo"], "b": arrays["bo"]},
    }
