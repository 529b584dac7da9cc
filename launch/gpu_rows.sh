#!/bin/sh
# launch/gpu_rows.sh [ROW ...]   runs the published rows that want a GPU, those that take longest last.
#
# A row that was stopped goes on from its checkpoint when this is started again; a finished one is skipped.
# LMJAX_RUNS (default runs/gpu) holds their workdirs, LMJAX_DATA the data sets, LMJAX_SECONDS bounds each start.
set -u
cd "$(dirname -- "$0")/.."
runs=${LMJAX_RUNS:-runs/gpu}
mkdir -p "$runs"

row() { # NAME SCRIPT [flags]
    name=$1
    shift
    [ -f "$runs/$name/result.json" ] && return
    echo "== $name"
    timeout --signal=TERM "${LMJAX_SECONDS:-86400}" \
        ${LMJAX_RUN:-bash launch/run.sh} "$@" --workdir="$runs/$name" || echo "$name stopped with status $?"
}

for wanted in ${*:-nanogpt_gpu zaremba_medium zaremba_large gal_medium gal_large gal_medium_tied gal_large_tied \
    transformer_de_en tiny_en_de imdb_minilm mle seqgan relgan mnist_wgan_gp mnist_conditional stacked_dcgan \
    stacked_pacgan2 bert awd}; do
    case $wanted in
    nanogpt_gpu) row "$wanted" experiments/gpt_char.py --preset=nanogpt_gpu ;;
    zaremba_* | gal_* | awd) row "$wanted" experiments/lstm_ptb.py --preset="$wanted" ;;
    *_de_en | *_en_de) row "$wanted" experiments/translate_multi30k.py --preset="$wanted" ;;
    *_minilm | *_cnn | *_lstm) row "$wanted" experiments/classify.py --preset="$wanted" ;;
    mle) row "$wanted" experiments/seqgan.py --preset=mle ;;
    seqgan) row "$wanted" experiments/seqgan.py --preset=seqgan --start="$runs/mle" ;;
    relgan) row "$wanted" experiments/seqgan.py --preset=relgan ;;
    mnist_* | stacked_*) row "$wanted" experiments/gan_images.py --preset="$wanted" --seeds=5 ;;
    bert) row "$wanted" experiments/bert_pretrain.py --preset=gpu ;;
    *) echo "unknown row $wanted" >&2; exit 2 ;;
    esac
done
