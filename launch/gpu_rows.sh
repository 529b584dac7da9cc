#!/bin/sh
# launch/gpu_rows.sh [ROW ...]   runs the published rows that want a GPU, those that take longest last.
#
# A row that was stopped goes on from its checkpoint when this is started again; a finished one is skipped.
# LMJAX_RUNS (default runs/gpu) holds their workdirs, LMJAX_DATA the data sets, LMJAX_SECONDS bounds each start.
# It is experiments/reproduce.py --device=gpu: rows are named as there, and flags of it may follow.
set -eu
cd "$(dirname -- "$0")/.."
exec ${LMJAX_RUN:-bash launch/run.sh} experiments/reproduce.py --device=gpu --workdir="${LMJAX_RUNS:-runs/gpu}" \
    --each="${LMJAX_SECONDS:-86400}s" "$@"
