"""Exported programs: StableHLO to the bit at sizes it was not made for, ONNX through onnxruntime.

The suite exports three families; LMJAX_TEST_EXPORT=1 all, and writes ONNX too (some minutes; needs the onnx extra).
"""

import json
import os

import jax
import numpy as np
import pytest

pytest.importorskip("flatbuffers", reason="the export extra")

from lmjax import config, param
from lmjax.errors import UserError
from lmjax.interop import export
from lmjax.interop.export import Input, Program
from lmjax.models import bert, bilstm, cnn, gan, gpt, lstm_lm, reader, rnnsearch, seq2seq, tagger, vit
from lmjax.run.tasks import exporting

V = 48
SIZES = {"batch": 3, "length": 11, "source_length": 7, "pieces": 13, "spellings": 5, "question_length": 6}
SMALL = {"layers": 1, "heads": 2, "dim": 16}


def made(specs):
    return param.init(specs, jax.random.key(0))


def of_gpt(**changes):
    model = config.GPT(vocab=V, context=32, **SMALL, **changes)
    return exporting.of_gpt(made(gpt.gpt_params(model)), model)


def of_lstm():
    model = config.LSTM(vocab=V, layers=1, dim=16)
    return exporting.of_lstm(made(lstm_lm.lstm_params(model)), model)


def of_encoder():
    model = config.BERT(vocab=V, context=32, **SMALL)
    return exporting.of_encoder({"bert": made(bert.bert_params(model))}, model)


def of_vit():
    model = config.ViT(size=8, patch=4, channels=1, classes=3, **SMALL)
    return exporting.of_vit(made(vit.vit_params(model)), model)


def of_classifier(kind):
    model, params = {
        "cnn": (config.CNN(vocab=V, embed=8, maps=4), cnn.cnn_params),
        "lstm": (config.BiLSTM(vocab=V, embed=8, dim=8), bilstm.bilstm_params),
        "bert": (config.BERT(vocab=V, context=32, **SMALL), bert.classifier_params),
    }[kind]
    return exporting.of_classifier(kind, made(params(model, 3)), model)


def of_tagger():
    model = config.Tagger(words=V, letters=20, tags=5, word_dim=8, letter_dim=4, letter_cells=4, cells=8)
    return exporting.of_tagger(made(tagger.tagger_params(model)), model)


def of_reader():
    model = config.Reader(vocab=V, embed=8, filters=4, letter_dim=4, dim=8)
    return exporting.of_reader(made(reader.reader_params(model)), model)


def of_translator(kind):
    if kind == "rnn":
        model = config.RNNSearch(source_vocab=V, target_vocab=V, embed=8, dim=8)
        return exporting.of_translator(made(rnnsearch.rnnsearch_params(model)), model)
    model = config.Seq2Seq(source_vocab=V, target_vocab=V, hidden=32, **SMALL)
    return exporting.of_translator(made(seq2seq.seq2seq_params(model)), model)


def of_generator():
    pair = gan.image_pair(config.ImageGAN(size=8, channels=1, latent=4, width=4, batch_norm=False))

    def function(params, given):
        return {"images": pair.generate(params, given["z"])[0]}

    return Program(function, made(pair.specs["generator"]), {"z": Input(("batch", 4), "float32")})


FAMILIES = {
    "gpt": of_gpt,
    "llama": lambda: of_gpt(groups=1, positions="rotary", norm="rms", activation="swiglu", tied=False, bias=False),
    "lstm": of_lstm, "encoder": of_encoder, "vit": of_vit, "cnn": lambda: of_classifier("cnn"),
    "bilstm": lambda: of_classifier("lstm"), "bert": lambda: of_classifier("bert"), "tagger": of_tagger,
    "reader": of_reader, "seq2seq": lambda: of_translator("transformer"), "rnnsearch": lambda: of_translator("rnn"),
    "generator": of_generator,
}  # fmt: skip


EVERY = bool(os.environ.get("LMJAX_TEST_EXPORT"))


@pytest.mark.parametrize("name", FAMILIES if EVERY else ["gpt", "cnn", "bilstm"])
def test_stablehlo_is_the_model_to_the_bit(name, tmp_path):
    program = FAMILIES[name]()
    export.save(tmp_path, program)
    given = export.example(program, SIZES)
    wanted, found = jax.jit(program.function)(program.params, given), export.load(tmp_path)(given)
    assert wanted.keys() == found.keys()
    for part in wanted:
        np.testing.assert_array_equal(wanted[part], found[part])
    assert json.loads((tmp_path / export.FACTS).read_text())["platforms"] == ["cpu", "cuda", "tpu"]


@pytest.mark.skipif(not EVERY, reason="LMJAX_TEST_EXPORT=1 writes ONNX files")
@pytest.mark.parametrize("name", FAMILIES)
def test_onnx_is_the_model(name, tmp_path):
    pytest.importorskip("jax2onnx", reason="the onnx extra")
    batch = 2 if name in ("bilstm", "tagger", "reader") else 0
    refused = {"rnnsearch": "Reverse scan is not supported", "reader": "onnxruntime refuses"}
    if name in refused:
        with pytest.raises(UserError, match=refused[name]):
            export.written(FAMILIES[name](), tmp_path, "onnx", 11, batch)
        return
    _, missed = export.written(FAMILIES[name](), tmp_path, "onnx", 11, batch)
    assert missed < 1e-5


def test_a_limit_holds_for_every_input_that_shares_the_dimension(tmp_path):
    inputs = {"x": Input(("batch", "length"), "float32", {"length": 4}), "valid": Input(("batch", "length"), "bool")}

    def function(w, given):
        if isinstance(length := given["x"].shape[1], int) and length > 4:
            raise UserError(f"{length} places")
        return {"y": jax.numpy.where(given["valid"], given["x"] * w["w"][None], 0)}

    program = Program(function, {"w": np.ones(1, np.float32)}, inputs)
    assert program.open == {"batch": None, "length": 4}
    assert export.written(program, tmp_path, "stablehlo", 64)[1] == 0


def linear():
    return Program(lambda w, given: {"y": given["x"] @ w["w"][0]}, {"w": [np.ones((3, 2), np.float32)]},
                   {"x": Input(("batch", 3), "float32", {"batch": 64})})  # fmt: skip


def test_weights_are_their_own_file_and_lists_come_back(tmp_path):
    size, missed = export.written(linear(), tmp_path, "stablehlo", 8)
    assert (size > 0, missed) == (True, 0)
    from safetensors.numpy import load_file

    assert {name: x.shape for name, x in load_file(tmp_path / export.WEIGHTS).items()} == {"w/[0]": (3, 2)}
    np.testing.assert_array_equal(export.load(tmp_path)({"x": np.ones((5, 3), np.float32)})["y"], np.full((5, 2), 3.0))
    with pytest.raises(ValueError, match="refining shapes"):
        export.load(tmp_path)({"x": np.ones((65, 3), np.float32)})


def test_a_damaged_or_missing_program_is_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no exported program"):
        export.load(tmp_path)
    export.save(tmp_path, linear())
    (tmp_path / export.STABLEHLO).write_bytes(b"nothing")
    with pytest.raises(UserError, match="is damaged"):
        export.load(tmp_path)


def test_a_program_that_misses_the_model_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "load", lambda folder: lambda given: {"y": given["x"][:, :2] + 0.1})
    with pytest.raises(UserError, match="stablehlo misses the model by"):
        export.written(linear(), tmp_path, "stablehlo", 8)
