"""What a trained run computes, as a Program of interop/export.py: which arrays go in and which come out.

    a run of                in                                       out
    gpt_char                tokens [batch,length]                    logits [batch,length,V]
    lstm_ptb                tokens, and the state h0, c0, ...        logits, and the state behind them, new_h0, ...
    bert_pretrain           tokens, valid [batch,length]             embedding [batch,D], of length 1
    classify                tokens, valid                            probabilities [batch,K]
    tag                     what data/tag_rows.py says               scores [length,batch,K] of each word's tags
    answer                  what data/reading.py says                start, end: scores [batch,length]
    translate_multi30k      source, seen [batch,source_length] and   logits [batch,length,V] of each next token
                            tokens [batch,length]
    vit                     images [batch,Y,X,C] in 0..1             logits [batch,K]
"""

from pathlib import Path

import jax

from lmjax import config
from lmjax.data import reading, tag_rows
from lmjax.errors import UserError
from lmjax.interop.export import Input, Program
from lmjax.interop.published import load as read_published
from lmjax.models import bert, gpt, lstm_lm, rnnsearch, seq2seq, vit
from lmjax.run import models
from lmjax.run.tasks import answering, classifying, tagging, translating
from lmjax.run.weights import trained
from lmjax.run.workdir import stored, stored_network

ROW = ("batch", "length")


def of_run(workdir: str, which="best") -> Program:
    """The program of a run; `which` checkpoint: "best" or "last". UserError where it is of another kind."""
    kinds = {
        "gpt_char": written, "lstm_ptb": written, "bert_pretrain": encoded, "classify": classified, "tag": tagged,
        "answer": answered, "translate_multi30k": translated, "vit": seen,
    }  # fmt: skip
    experiment = stored(workdir)["experiment"]
    if experiment not in kinds:
        raise UserError(f"--workdir={workdir} is a run of {experiment}: expected one of {', '.join(kinds)}")
    return kinds[experiment](workdir, which)


def of_published(where: str) -> Program:
    """The program of a Hugging Face folder, a GGUF file or a package."""
    found = read_published(where)
    return {config.GPT: of_gpt, config.BERT: of_encoder, config.ViT: of_vit}[type(found.model)](*found[:2])


def of_gpt(params, model: config.GPT) -> Program:
    def function(params, given):
        return {"logits": gpt.gpt(params, model, given["tokens"])}

    return Program(function, params, {"tokens": Input(ROW, "int32", {"length": model.context})})


def of_lstm(params, model: config.LSTM) -> Program:
    names = [(f"h{n}", f"c{n}") for n in range(model.layers)]

    def function(params, given):
        carry = [tuple(given[name] for name in pair) for pair in names]
        logits, carry = lstm_lm.lstm_lm(params, model, given["tokens"], carry)
        after = {f"new_{name}": x for pair, state in zip(names, carry) for name, x in zip(pair, state)}
        return {"logits": logits} | after

    state = {name: Input(("batch", size), "float32") for pair, size in zip(names, model.sizes[1:]) for name in pair}
    return Program(function, params, {"tokens": Input(ROW, "int32")} | state)


def of_encoder(params, model: config.BERT) -> Program:
    def function(params, given):
        return {"embedding": bert.sentence_embedding(params, model, given["tokens"], given["valid"])}

    return Program(function, params["bert"], pieces(model))


def of_vit(params, model: config.ViT) -> Program:
    def function(params, given):
        return {"logits": vit.vit(params, model, given["images"])}

    return Program(function, params, {"images": Input(("batch", model.size, model.size, model.channels), "float32")})


def of_classifier(kind: str, params, model) -> Program:
    def function(params, given):
        return {"probabilities": jax.nn.softmax(classifying.FAMILIES[kind].logits(params, model, given))}

    return Program(function, params, pieces(model))


def of_tagger(params, model) -> Program:
    def function(params, given):
        return {"scores": tagging.FAMILIES[type(model)].emissions(params, model, given)}

    words = {"seen": Input(ROW, "bool")}
    if isinstance(model, config.BertTagger):
        wide = ("batch", "pieces")
        words |= {"tokens": Input(wide, "int32", {"pieces": model.context}), "valid": Input(wide, "bool")}
        return Program(function, params, words | {"piece": Input(ROW, "int32")})
    if isinstance(model, config.FeatureCRF):
        return Program(function, params, {"features": Input((*ROW, "features"), "int32")})
    words["words"] = Input(ROW, "int32")
    if model.columns:
        words["columns"] = Input((*ROW, len(model.columns)), "int32")
    if model.letter_cells:
        words["letters"] = Input(("spellings", tag_rows.LANE), "int32")
        words |= {name: Input(ROW, "int32") for name in ("lane", "first", "last")}
    return Program(function, params, words)


def of_reader(params, model) -> Program:
    def function(params, given):
        return dict(zip(("start", "end"), answering.family(model).scores(params, model, given)))

    if isinstance(model, config.BERT):
        return Program(function, params, pieces(model) | {"segments": Input(ROW, "int32")})
    asked = ("batch", "question_length")
    inputs = {
        "words": Input(ROW, "int32"), "letters": Input((*ROW, reading.LETTERS), "uint8"),
        "match": Input((*ROW, 2), "float32"), "valid": Input(ROW, "bool"), "question": Input(asked, "int32"),
        "question_letters": Input((*asked, reading.LETTERS), "uint8"), "asked": Input(asked, "bool"),
    }  # fmt: skip
    return Program(function, params, inputs)


def of_translator(params, model) -> Program:
    forward = seq2seq.seq2seq if isinstance(model, config.Seq2Seq) else rnnsearch.rnnsearch

    def function(params, given):
        return {"logits": forward(params, model, given["source"], given["seen"], given["tokens"])}

    most, source = translating.positions(model), ("batch", "source_length")
    limits = [{name: most} if most else {} for name in ("source_length", "length")]
    inputs = {"source": Input(source, "int32", limits[0]), "seen": Input(source, "bool")}
    return Program(function, params, inputs | {"tokens": Input(ROW, "int32", limits[1])})


def pieces(model) -> dict[str, Input]:
    """Rows of tokens, and which of them count; of a BERT at most so many as it has positions."""
    most = {"length": model.context} if isinstance(model, config.BERT) else {}
    return {"tokens": Input(ROW, "int32", most), "valid": Input(ROW, "bool")}


def written(workdir, which):
    found = models.load(workdir, which)
    return (of_gpt if isinstance(found.model, config.GPT) else of_lstm)(*found[:2])


def encoded(workdir, which):
    return of_encoder(*models.load(workdir, which, models.ENCODERS)[:2])


def classified(workdir, which):
    found = classifying.load(workdir)
    return of_classifier(found.kind, found.params, found.model)


def tagged(workdir, which):
    found = tagging.load(workdir, which)
    if found.params is None:
        raise UserError(f"--workdir={workdir} is a hidden Markov model, counts in hmm.json: there is nothing to export")
    return of_tagger(found.params, found.model)


def answered(workdir, which):
    return of_reader(*answering.load(workdir, which)[:2])


def translated(workdir, which):
    return of_translator(*translating.load(workdir, which)[:2])


def seen(workdir, which):
    model = stored_network(Path(workdir), config.ViT)
    return of_vit(trained(workdir, vit.vit_params(model), which), model)
