"""Sizes and rates of every model: frozen dataclasses of plain values.

They import no JAX, so that a flag built from them is refused before JAX is loaded. What shapes the program (sizes,
counts, choices) is static; a rate (dropout) may be replaced by a traced value inside a compiled function.
"""

import dataclasses
from dataclasses import dataclass

from lmjax.errors import UserError


def setting(default, help: str, *, choices=None, low=None, high=None):
    """A dataclass field that explains itself: `help` is its line in --help, `choices`, `low` and `high` its limits."""
    metadata = {"help": help, "choices": choices, "low": low, "high": high}
    if dataclasses.is_dataclass(default):
        return dataclasses.field(default_factory=lambda: default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def sized(config, vocab: int):
    """The config with the tokenizer's number of types. UserError where it asks for another."""
    if config.vocab not in (0, vocab):
        raise UserError(f"model.vocab={config.vocab}, and the tokenizer has {vocab} types: leave it at 0")
    return dataclasses.replace(config, vocab=vocab)


def sized_pair(config, source: int, target: int):
    """The config with the two vocabularies' numbers of types. UserError where it asks for others."""
    for side, found in (("source", source), ("target", target)):
        asked = getattr(config, f"{side}_vocab")
        if asked not in (0, found):
            raise UserError(f"model.{side}_vocab={asked}, and the tokenizer has {found} types: leave it at 0")
    return dataclasses.replace(config, source_vocab=source, target_vocab=target)


@dataclass(frozen=True)
class GPT:
    """A decoder-only Transformer, pre-norm: GPT-2 (Radford et al. 2019) by default, and by its choices the Llama family
    (Touvron et al. 2023): rotary positions, RMSNorm, SwiGLU, grouped queries, no biases."""

    vocab: int = setting(0, "number of token types; 0 takes the tokenizer's", low=0)
    context: int = setting(64, "positions a token can look back over", low=1)
    layers: int = setting(4, "blocks", low=1)
    heads: int = setting(4, "attention heads a block", low=1)
    dim: int = setting(128, "width D of the residual stream; a multiple of heads", low=1)
    groups: int = setting(0, "groups of heads that share keys and values; 0: every head has its own", low=0)
    hidden: int = setting(0, "width F between the two layers of a block's MLP; 0: 4 D", low=0)
    positions: str = setting(
        "learned", "a vector a position, waves added to the words (Vaswani) or turning queries and keys (RoPE)",
        choices=("learned", "sinusoidal", "rotary"),
    )  # fmt: skip
    rotary_base: float = setting(10000.0, "longest wavelength of rotary positions, over 2 pi", low=1.0)
    norm: str = setting("layer", "LayerNorm or RMSNorm", choices=("layer", "rms"))
    epsilon: float = setting(1e-5, "added to a norm's variance", low=0.0)
    activation: str = setting("gelu", "of the MLP: GELU, or SwiGLU with a gate", choices=("gelu", "swiglu"))
    tied: bool = setting(True, "the softmax shares the embedding's matrix")
    dropout: float = setting(
        0.0, "probability of dropping a unit of the embedding, attention and residual", low=0.0, high=0.99
    )
    bias: bool = setting(True, "biases in linear layers and norms")
    scan: bool = setting(
        False, "one compiled block scanned over stacked layers: compiles faster, runs a little slower on CPU"
    )
    remat: bool = setting(False, "recompute each block in the backward pass: less memory, a third more work")
    dtype: str = setting(
        "float32", "type of activations and products; parameters stay float32", choices=("float32", "bfloat16")
    )

    def __post_init__(self):
        heads_divide(self)
        if self.groups and self.heads % self.groups:
            raise ValueError(
                f"model.groups={self.groups} does not divide model.heads={self.heads}: choose one that does"
            )
        if self.positions == "rotary" and self.dim // self.heads % 2:
            raise ValueError(
                f"model.positions=rotary turns pairs, and model.dim / model.heads is {self.dim // self.heads}: "
                "choose an even head size"
            )


def heads_divide(config):
    """ValueError where the width is no multiple of the heads."""
    if config.dim % config.heads:
        raise ValueError(
            f"model.dim={config.dim} is not a multiple of model.heads={config.heads}: choose a width the heads divide"
        )


@dataclass(frozen=True)
class Seq2Seq:
    """An encoder-decoder Transformer (Vaswani et al. 2017), post-norm, ReLU."""

    source_vocab: int = setting(0, "number of source token types; 0 takes the tokenizer's", low=0)
    target_vocab: int = setting(0, "number of target token types; 0 takes the tokenizer's", low=0)
    context: int = setting(100, "with learned positions: how many there are", low=1)
    layers: int = setting(3, "blocks of the encoder, and of the decoder", low=1)
    heads: int = setting(8, "attention heads a block", low=1)
    dim: int = setting(256, "width D of the residual stream; a multiple of heads", low=1)
    hidden: int = setting(512, "width F between the two layers of a block's MLP", low=1)
    shared: bool = setting(False, "one vocabulary and one matrix for source, target and softmax")
    positions: str = setting(
        "sinusoidal", "waves (the paper's) or a vector a position", choices=("sinusoidal", "learned")
    )
    init_words: float = setting(0.0, "standard deviation that word vectors start with; 0: 1/sqrt(D)", low=0.0)
    pre_norm: bool = setting(False, "norms before the sub-layers, and one at the end, in place of behind them")
    dropout: float = setting(0.1, "probability of dropping a unit of the embedding and residual", low=0.0, high=0.99)
    dropout_attention: float = setting(0.0, "of dropping an attention weight", low=0.0, high=0.99)
    dropout_hidden: float = setting(0.0, "of dropping a unit between an MLP's layers", low=0.0, high=0.99)
    dtype: str = setting(
        "float32", "type of activations and products; parameters stay float32", choices=("float32", "bfloat16")
    )

    def __post_init__(self):
        heads_divide(self)
        if self.shared and self.source_vocab != self.target_vocab:
            raise ValueError(
                f"model.shared with vocabularies of {self.source_vocab} and {self.target_vocab}: they must be one"
            )


@dataclass(frozen=True)
class ViT:
    """An image classifier on patches (Dosovitskiy et al. 2021). ViT-B/16: 224, 16, 3, 1000, 12, 12, 768."""

    size: int = setting(0, "rows and columns of an image, in pixels, a multiple of patch; 0 takes the data's", low=0)
    patch: int = setting(4, "rows and columns of a patch", low=1)
    channels: int = setting(1, "numbers a pixel", low=1)
    classes: int = setting(0, "kinds of images; 0 takes the data's", low=0)
    layers: int = setting(4, "blocks", low=1)
    heads: int = setting(4, "attention heads a block", low=1)
    dim: int = setting(64, "width D of the residual stream; a multiple of heads", low=1)
    hidden: int = setting(0, "width F between the two layers of a block's MLP; 0: 4 D", low=0)
    dropout: float = setting(
        0.0, "probability of dropping a unit of the embedding, attention and residual", low=0.0, high=0.99
    )
    epsilon: float = setting(1e-6, "added to a norm's variance", low=0.0)
    dtype: str = setting(
        "float32", "type of activations and products; parameters stay float32", choices=("float32", "bfloat16")
    )

    def __post_init__(self):
        heads_divide(self)
        if self.size % self.patch:
            raise ValueError(
                f"model.size={self.size} is not a multiple of model.patch={self.patch}: choose a patch that divides it"
            )


@dataclass(frozen=True)
class Pruning:
    """Which share of the weights becomes 0 in training, and when (Zhu & Gupta 2017)."""

    sparsity: float = setting(0.0, "share of the weights that are 0 at the end; 0: none is pruned", low=0.0, high=0.999)
    begin: float = setting(0.1, "share of the training before the first go", low=0.0, high=1.0)
    end: float = setting(0.5, "share of the training after which no more go", low=0.0, high=1.0)
    every: int = setting(100, "steps from one pruning to the next", low=1)

    def __post_init__(self):
        if self.begin >= self.end:
            raise ValueError(f"prune.begin={self.begin:g} is not before prune.end={self.end:g}: choose it smaller")


@dataclass(frozen=True)
class Perceptron:
    """Layers of rectified linear units that classify images: LeNet-300-100 by default."""

    hidden: tuple[int, ...] = setting((300, 100), "units of each layer but the last", low=1)
    dropout_input: float = setting(0.0, "probability of dropping a pixel", low=0.0, high=0.99)
    dropout: float = setting(0.0, "probability of dropping a unit", low=0.0, high=0.99)


@dataclass(frozen=True)
class BERT:
    """A Transformer encoder, post-norm (Devlin et al. 2019). bert-base: 30522 types, 512 positions, 12, 12, 768.

    DistilBERT (Sanh et al. 2019) is one without segments, its pooler with ReLU.
    """

    vocab: int = setting(0, "number of token types; 0 takes the tokenizer's", low=0)
    context: int = setting(128, "positions a sequence may have", low=1)
    layers: int = setting(4, "blocks", low=1)
    heads: int = setting(4, "attention heads a block", low=1)
    dim: int = setting(256, "width D of the residual stream; a multiple of heads", low=1)
    hidden: int = setting(0, "width F between the two layers of a block's MLP; 0: 4 D", low=0)
    segments: int = setting(2, "kinds of segments that are told apart; 0: none are", low=0)
    pooler: str = setting("tanh", "non-linearity between the first token and the classes", choices=("tanh", "relu"))
    dropout: float = setting(
        0.1, "probability of dropping a unit of the embedding, attention, residual and pooler", low=0.0, high=0.99
    )
    epsilon: float = setting(1e-12, "added to a norm's variance", low=0.0)
    dtype: str = setting(
        "float32", "type of activations and products; parameters stay float32", choices=("float32", "bfloat16")
    )

    def __post_init__(self):
        heads_divide(self)


@dataclass(frozen=True)
class BertTagger(BERT):
    """A BERT that tags words on their first pieces (Devlin et al. 2019, section 5.3), with a CRF over them."""

    tags: int = setting(0, "number of tags; 0 takes the data's", low=0)
    crf: bool = setting(True, "a CRF over the tags; else each is chosen by itself")


@dataclass(frozen=True)
class CNN:
    """A convolutional classifier of sentences (Kim 2014)."""

    vocab: int = setting(0, "number of word types; 0 takes the data's", low=0)
    embed: int = setting(300, "width E of a word's vector", low=1)
    windows: tuple[int, ...] = setting((3, 4, 5), "words of a window, for each kind of window", low=1)
    maps: int = setting(100, "feature maps a kind of window", low=1)
    dropout: float = setting(0.5, "probability of dropping a feature", low=0.0, high=0.99)
    init_words: float = setting(0.25, "word vectors start uniform in plus or minus this", low=0.0)
    dtype: str = setting(
        "float32", "type of activations and products; parameters stay float32", choices=("float32", "bfloat16")
    )

    def __post_init__(self):
        if not self.windows or len(set(self.windows)) < len(self.windows):
            raise ValueError(f"model.windows={self.windows}: expected widths, each once, such as 3,4,5")


@dataclass(frozen=True)
class BiLSTM:
    """A classifier of texts that reads them with LSTMs, dropout as in Gal & Ghahramani 2016."""

    vocab: int = setting(0, "number of word types; 0 takes the data's", low=0)
    embed: int = setting(100, "width E of a word's vector", low=1)
    layers: int = setting(1, "stacked LSTM layers", low=1)
    dim: int = setting(128, "cells of each layer, each way", low=1)
    both: bool = setting(True, "read from both ends")
    pool: str = setting("max", "what the classes are told from: over all words, or the state behind the last",
                        choices=("max", "mean", "last"))  # fmt: skip
    dropout: float = setting(0.5, "on word vectors, between layers and before the softmax", low=0.0, high=0.99)
    dropout_recurrent: float = setting(0.0, "on the state that a layer hands to itself", low=0.0, high=0.99)
    init_words: float = setting(0.1, "word vectors start uniform in plus or minus this", low=0.0)
    dtype: str = setting(
        "float32", "type of activations and products; parameters stay float32", choices=("float32", "bfloat16")
    )


@dataclass(frozen=True)
class Reader:
    """A reader that points at the answer to a question in a text: BiDAF (Seo et al. 2017); theirs has 100, 100, 100."""

    vocab: int = setting(0, "number of word types; 0 takes the vocabulary's", low=0)
    embed: int = setting(100, "width E of a word's vector", low=1)
    filters: int = setting(40, "features from a word's letters; 0: none", low=0)
    letter_dim: int = setting(8, "width of a letter's vector", low=1)
    dim: int = setting(64, "cells of each LSTM, each way", low=1)
    highway: int = setting(2, "layers between a word's vector and the first LSTM", low=0)
    dropout: float = setting(0.2, "probability of dropping a unit in front of a layer", low=0.0, high=0.99)
    dropout_word: float = setting(
        0.1, "of taking all occurrences of a word in a step for an unknown one", low=0.0, high=0.99
    )
    init_words: float = setting(0.1, "standard deviation that word vectors start with", low=0.0)
    dtype: str = setting(
        "float32", "type of activations and products; parameters stay float32", choices=("float32", "bfloat16")
    )


@dataclass(frozen=True)
class RNNSearch:
    """A translator of gated recurrent units that learns where to look (Bahdanau et al. 2015)."""

    source_vocab: int = setting(0, "number of source token types; 0 takes the tokenizer's", low=0)
    target_vocab: int = setting(0, "number of target token types; 0 takes the tokenizer's", low=0)
    embed: int = setting(256, "width E of a word's vector", low=1)
    dim: int = setting(512, "cells of the encoder each way, and of the decoder", low=1)
    dropout: float = setting(0.5, "probability of dropping a unit of a word's vector", low=0.0, high=0.99)
    dtype: str = setting(
        "float32", "type of activations and products; parameters stay float32", choices=("float32", "bfloat16")
    )


@dataclass(frozen=True)
class LSTM:
    """A stacked LSTM language model: Zaremba et al. 2014, Gal & Ghahramani 2016, Merity et al. 2017.

    Rates are probabilities of dropping. With `shared_masks` (Gal) one mask serves every time step of a window; without
    it (Zaremba) each step draws its own and the recurrent connection is never dropped.
    """

    vocab: int = setting(0, "number of token types; 0 takes the tokenizer's", low=0)
    layers: int = setting(2, "stacked LSTM layers", low=1)
    dim: int = setting(200, "cells of each layer", low=1)
    embed: int = setting(0, "width of the word vectors; 0 means dim", low=0)
    last: int = setting(0, "cells of the last layer; 0 means dim (embed where the softmax is tied)", low=0)
    dropout_word: float = setting(
        0.0, "drops whole word types from a window (Gal's and AWD's embedding dropout)", low=0.0, high=0.99
    )
    dropout_input: float = setting(0.0, "on the word vectors entering the first layer", low=0.0, high=0.99)
    dropout_layer: float = setting(0.0, "between layers", low=0.0, high=0.99)
    dropout_output: float = setting(0.0, "on the last layer's output", low=0.0, high=0.99)
    dropout_recurrent: float = setting(
        0.0, "on the hidden state (Gal) entering the gates; needs shared_masks", low=0.0, high=0.99
    )
    dropout_weight: float = setting(0.0, "on the recurrent weights (AWD's DropConnect)", low=0.0, high=0.99)
    shared_masks: bool = setting(False, "one dropout mask for all time steps of a window")
    gate_masks: int = setting(1, "masks for a layer's gates: 1 = Gal's tied, 4 = untied", choices=(1, 4))
    tied: bool = setting(False, "the softmax shares the embedding's matrix")
    init_range: float = setting(0.1, "parameters start uniform in [-init_range, init_range]; 0: word vectors in +-0.1, "
                                "layers of H cells in +-1/sqrt(H)", low=0.0)
    forget_bias: float = setting(0.0, "added to the forget gate's bias at the start")
    dtype: str = setting(
        "float32", "type of activations and products; parameters stay float32", choices=("float32", "bfloat16")
    )

    def __post_init__(self):
        width = self.embed or self.dim
        if self.tied and self.last not in (0, width):
            raise ValueError(f"model.last={self.last} with model.tied: the last layer is as wide as the words, {width}")
        if not self.shared_masks and self.dropout_recurrent:  # a traced rate has no truth value
            raise ValueError(
                "model.dropout_recurrent needs model.shared_masks: one mask of the state for a whole window"
            )
        if self.gate_masks > 1 and not self.shared_masks:
            raise ValueError(
                f"model.gate_masks={self.gate_masks} needs model.shared_masks: Zaremba's masks serve all gates"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Width entering the first layer, then the width of each layer's output: length layers + 1."""
        embed = self.embed or self.dim
        return (embed, *[self.dim] * (self.layers - 1), self.last or (embed if self.tied else self.dim))


@dataclass(frozen=True)
class Word2Vec:
    """Word vectors by prediction (Mikolov et al. 2013a, 2013b)."""

    vocab: int = setting(0, "number of word types; 0 takes the corpus's", low=0)
    dim: int = setting(100, "width D of a word's vector", low=1)
    window: int = setting(5, "farthest context word; each place draws its own reach from 1 to this", low=1)
    negative: int = setting(5, "noise words a predicted word is told from", low=1)
    cbow: bool = setting(False, "predict a word from the mean of its contexts, instead of each context from the word")
    hierarchical: bool = setting(False, "hierarchical softmax in place of noise words")
    sample: float = setting(1e-3, "words more frequent than this share are thinned out; 0: none is", low=0.0, high=1.0)
    block: int = setting(16, "neighbouring places that share their draw of noise words", low=1)
    shared: int = setting(32, "noise words of a block; together they weigh what `negative` a word would", low=1)
    positions: int = setting(1024, "places an update takes before vectors change; a multiple of rows x block", low=1)
    rows: int = setting(1, "parts of the corpus read side by side; a multiple of the devices", low=1)
    calm: float = setting(
        64.0, "pairs an update may give a word's vector at full weight; more share that weight; 0: no limit", low=0.0
    )

    def __post_init__(self):
        if self.positions % (self.rows * self.block):
            raise ValueError(
                f"model.positions={self.positions} is not a multiple of model.rows={self.rows} times "
                f"model.block={self.block}: choose one"
            )


@dataclass(frozen=True)
class Subword(Word2Vec):
    """Word vectors made of those of character n-grams (Bojanowski et al. 2017)."""

    min_n: int = setting(3, "letters of the shortest n-grams of a word, the marks of its ends among them", low=1)
    max_n: int = setting(6, "letters of the longest", low=1)
    buckets: int = setting(2_000_000, "rows that all n-grams share by a hash", low=1)

    def __post_init__(self):
        super().__post_init__()
        if self.min_n > self.max_n:
            raise ValueError(f"model.min_n={self.min_n} is more than model.max_n={self.max_n}: choose it smaller")
        if self.hierarchical:
            raise ValueError("model.hierarchical=true: subword vectors learn from noise words only; leave it out")


@dataclass(frozen=True)
class GloVe:
    """Word vectors from how often words stand near each other (Pennington et al. 2014)."""

    vocab: int = setting(0, "number of word types; 0 takes the corpus's", low=0)
    dim: int = setting(100, "width D of a word's vector", low=1)
    x_max: float = setting(10.0, "words seen this often together, or more, weigh 1; the paper's 100 suits billions of "
                           "words", low=1e-6)  # fmt: skip
    alpha: float = setting(0.75, "exponent of the weight below x_max", low=0.0)
    group: int = setting(16, "entries of one word's row that an update takes together", low=1)
    rows: int = setting(128, "groups an update takes before vectors change; a multiple of the devices", low=1)


@dataclass(frozen=True)
class Tagger:
    """A tagger of words: word vectors and an LSTM over each word's letters, a bidirectional LSTM over both, and a CRF
    (Lample et al. 2016), and features that go past it to the CRF (Huang et al. 2015)."""

    words: int = setting(0, "number of word types; 0 takes the data's", low=0)
    letters: int = setting(0, "number of letters; 0 takes the data's", low=0)
    columns: tuple[int, ...] = setting((), "types of each further column that is read; empty takes the data's", low=1)
    tags: int = setting(0, "number of tags; 0 takes the data's", low=0)
    word_dim: int = setting(100, "width of a word's vector", low=1)
    letter_dim: int = setting(25, "width of a letter's vector", low=1)
    letter_cells: int = setting(25, "cells of the LSTM over letters, each way; 0: letters are not read", low=0)
    column_dim: int = setting(25, "width of the vector of what a further column says", low=1)
    features: int = setting(0, "number of features that go past the LSTM to the CRF; 0 takes the data's", low=0)
    encoder: str = setting("lstm", "what reads the words of a sentence", choices=("lstm", "transformer"))
    cells: int = setting(100, "cells of the LSTM over words, each way; half the width of the Transformer", low=1)
    layers: int = setting(1, "LSTMs over words on top of each other, or blocks", low=1)
    heads: int = setting(4, "attention heads of a block", low=1)
    crf: bool = setting(True, "a CRF over the tags; else each is chosen by itself")
    dropout: float = setting(
        0.5, "probability of dropping a unit of what enters the LSTM over words", low=0.0, high=0.99
    )
    dropout_output: float = setting(0.0, "of dropping a unit of what leaves it", low=0.0, high=0.99)
    dropout_features: float = setting(0.2, "of leaving a feature out", low=0.0, high=0.99)
    dtype: str = setting(
        "float32", "type of activations and products; parameters stay float32", choices=("float32", "bfloat16")
    )

    def __post_init__(self):
        if self.encoder == "transformer" and self.cells % self.heads:  # a head turns pairs: its size is even
            raise ValueError(
                f"model.cells={self.cells} is not a multiple of model.heads={self.heads}: choose one that is"
            )


@dataclass(frozen=True)
class FeatureCRF:
    """A linear-chain CRF on features that are there or not (Lafferty et al. 2001)."""

    features: int = setting(0, "number of features; 0 takes the data's", low=0)
    tags: int = setting(0, "number of tags; 0 takes the data's", low=0)
    dropout: float = setting(0.0, "probability of leaving a feature out", low=0.0, high=0.99)


@dataclass(frozen=True)
class Generator:
    """An LSTM that writes sequences of one length (Yu et al. 2017): SeqGAN's generator, and its oracle."""

    vocab: int = setting(0, "number of token types; 0 takes the data's", low=0)
    length: int = setting(20, "tokens T of a sequence", low=1)
    embed: int = setting(32, "width E of a token's vector", low=1)
    cells: int = setting(32, "cells H", low=1)
    start: int = setting(0, "the token that is read before the first", low=0)
    init: float = setting(0.1, "standard deviation that all parameters start with", low=0.0)


@dataclass(frozen=True)
class MemoryGenerator:
    """A relational memory that writes sequences of one length: RelGAN's generator (Nie et al. 2019)."""

    vocab: int = setting(0, "number of token types; 0 takes the data's", low=0)
    length: int = setting(0, "tokens T of a sequence; 0 takes the data's", low=0)
    embed: int = setting(32, "width E of a token's vector", low=1)
    slots: int = setting(1, "rows N of the memory", low=1)
    heads: int = setting(2, "attention heads", low=1)
    head_size: int = setting(256, "numbers of a head; the memory is heads times as wide", low=1)
    start: int = setting(0, "the token that is read before the first", low=0)


@dataclass(frozen=True)
class PointGAN:
    """A generator and a discriminator of points of the plane, both perceptrons (those of Lin et al. 2018: 2; 400 four
    times, batch norm; 200 three times, of 5 pieces)."""

    latent: int = setting(2, "numbers a point is made of", low=1)
    hidden: int = setting(128, "units of a layer of the generator", low=1)
    layers: int = setting(3, "hidden layers of the generator", low=1)
    batch_norm: bool = setting(True, "batch normalization in the generator")
    critic_hidden: int = setting(128, "units of a layer of the discriminator", low=1)
    critic_layers: int = setting(2, "hidden layers of the discriminator", low=1)
    pieces: int = setting(1, "linear pieces of a maxout unit of the discriminator; 1: ReLUs with a leak", low=1)
    pack: int = setting(1, "samples the discriminator judges together (PacGAN)", low=1)


@dataclass(frozen=True)
class ImageGAN:
    """A generator and a discriminator of images, shaped as DCGAN's (Radford et al. 2016)."""

    size: int = setting(0, "rows and columns of an image, in pixels, a multiple of 4; 0 takes the data's", low=0)
    channels: int = setting(1, "numbers a pixel", low=1)
    latent: int = setting(64, "numbers an image is made of", low=1)
    width: int = setting(32, "channels at half the size, twice as many at a quarter", low=1)
    classes: int = setting(0, "kinds of images that are asked for by name; 0: none are", low=0)
    batch_norm: bool = setting(True, "batch normalization in the generator")
    critic_batch_norm: bool = setting(False, "batch normalization in the discriminator, real and made images apart")
    pack: int = setting(1, "images the discriminator judges together (PacGAN)", low=1)


@dataclass(frozen=True)
class Game:
    """What two players play for, and how they learn."""

    loss: str = setting(
        "non-saturating", "of Goodfellow 2014, either form; WGAN's; or with margins",
        choices=("minimax", "non-saturating", "wasserstein", "hinge"),
    )  # fmt: skip
    penalty: float = setting(0.0, "weight of how far the critic's slope is from 1 (WGAN-GP: 10)", low=0.0)
    spectral: bool = setting(False, "weights of the discriminator over their largest singular value")
    unroll: int = setting(0, "steps of the discriminator that the generator looks ahead (unrolled GAN)", low=0)
    critic_steps: int = setting(1, "steps of the discriminator for one of the generator", low=1)
    lr: float = setting(1e-3, "Adam's rate, the generator's", low=0.0)
    critic_lr: float = setting(1e-3, "Adam's rate, the discriminator's", low=0.0)
    decay: bool = setting(False, "both rates fall to nothing, in a straight line")
    b1: float = setting(0.5, "Adam's memory of the gradient", low=0.0, high=0.999)
    b2: float = setting(0.999, "Adam's memory of its square", low=0.0, high=0.99999)
    ema: float = setting(0.0, "memory of the generator's average, with which samples are made; 0: none is kept",
                         low=0.0, high=0.99999)  # fmt: skip

    def __post_init__(self):
        if self.unroll and (self.spectral or self.penalty):
            raise ValueError("game.unroll with a penalty or spectral norms: choose one of them")


@dataclass(frozen=True)
class TextDiscriminator:
    """A convolutional network with a highway layer that tells true sequences from made-up ones (Yu et al. 2017)."""

    vocab: int = setting(0, "number of token types; 0 takes the generator's", low=0)
    embed: int = setting(64, "width E of a token's vector", low=1)
    windows: tuple[int, ...] = setting((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20), "tokens of a window, for each kind",
                                       low=1)  # fmt: skip
    maps: tuple[int, ...] = setting((100, 200, 200, 200, 200, 100, 100, 100, 100, 100, 160, 160),
                                    "feature maps of each kind of window", low=1)  # fmt: skip
    dropout: float = setting(0.25, "probability of dropping a feature", low=0.0, high=0.99)
    l2: float = setting(0.2, "weight of the penalty on the output layer", low=0.0)

    def __post_init__(self):
        if len(self.windows) != len(self.maps) or len(set(self.windows)) < len(self.windows) or not self.windows:
            raise ValueError(
                f"windows={self.windows} with maps={self.maps}: give each window's width once, and a number of maps "
                "for each"
            )


@dataclass(frozen=True)
class ViewsDiscriminator:
    """A convolutional network that reads a sequence in several embeddings: RelGAN's discriminator (Nie et al. 2019)."""

    vocab: int = setting(0, "number of token types; 0 takes the generator's", low=0)
    views: int = setting(64, "embeddings S, each judged by itself", low=1)
    embed: int = setting(1, "width E of a token's vector in each", low=1)
    windows: tuple[int, ...] = setting((2, 3, 4, 5), "tokens of a window, for each kind", low=1)
    maps: tuple[int, ...] = setting((300, 300, 300, 300), "feature maps of each kind of window", low=1)
    hidden: int = setting(100, "units before the output", low=1)
    dropout: float = setting(0.25, "probability of dropping a feature", low=0.0, high=0.99)

    __post_init__ = TextDiscriminator.__post_init__
