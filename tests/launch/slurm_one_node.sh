#!/bin/bash
# slurm_one_node.sh start DIR | stop DIR   a SLURM of this one host, for tests: controller, node and munge, as root.
#
# Needs Debian's slurm-wlm (apt-get install slurm-wlm). Works in a container without systemd and cgroups. DIR holds its
# configuration, logs and state; `export SLURM_CONF=DIR/slurm.conf` is all that sbatch and srun need.
set -eu
what=$1
dir=$2

start() {
    mkdir -p "$dir/state" "$dir/spool" /run/munge
    chown munge /run/munge
    [ -s /etc/munge/munge.key ] || mungekey --create
    munge -n >/dev/null 2>&1 || runuser -u munge -- munged
    host=$(hostname -s)
    node=$(slurmd -C | head -1) # NodeName=... CPUs=... RealMemory=...
    cat >"$dir/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=30
OverTimeLimit=0
JobRequeue=1
$node NodeAddr=127.0.0.1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES OverSubscribe=FORCE:4 MaxTime=60 State=UP
CONF
    export SLURM_CONF=$dir/slurm.conf
    slurmctld
    slurmd
    for _ in $(seq 100); do
        sinfo -h -o %t 2>/dev/null | grep -q idle && return
        sleep 0.2
    done
    echo "slurm_one_node.sh: the node does not come up; see $dir/slurmctld.log and slurmd.log" >&2
    exit 1
}

stop() {
    for daemon in slurmd slurmctld; do
        [ -s "$dir/$daemon.pid" ] && kill "$(cat "$dir/$daemon.pid")" || true
    done
}

"$what"
