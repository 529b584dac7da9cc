#!/bin/sh
# launch/tpu_pod.sh NAME ZONE EXPERIMENT flags   runs one experiment on all hosts of a TPU pod slice, NAME in ZONE.
#
# Each host needs a checkout in ~/lmjax (`gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=all --command='git
# clone ...'`). JAX reads from the TPU's metadata how many hosts there are. Host 0 alone needs the workdir: put it on a
# disk that outlives the slice, and start the same command again after a preemption. One host (v5e-8, v6e-8) needs none
# of this: launch/run.sh uses all its chips.
#
# Not run: no TPU was at hand.
set -eu
name=$1
zone=$2
shift 2
words=
for word; do # quoted once more for the shell over there
    words="$words '$(printf %s "$word" | sed "s/'/'\\\\''/g")'"
done
exec gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
    --command="cd lmjax && LMJAX_EXTRAS=tpu bash launch/run.sh launch/multiprocess.py --detect=true$words"
