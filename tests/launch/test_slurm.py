"""The SLURM recipes on a real SLURM of this one host: a time limit, requeueing, an array; the bits at the end.

Takes some ten minutes and root, so only where LMJAX_TEST_SLURM=1 asks for it and slurm-wlm is installed.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TINY = [
    "--data=text.txt", "--batch=8", "--model.context=16", "--model.layers=1", "--model.dim=16", "--model.heads=2",
    "--model.dropout=0.1", "--sample=0", "--log_every=50", "--evaluate_every=2000", "--save_every=400",
    "--strategy=pmap",
]  # fmt: skip

pytestmark = [
    pytest.mark.skipif(os.environ.get("LMJAX_TEST_SLURM") != "1", reason="LMJAX_TEST_SLURM=1 asks for it: ten minutes"),
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="needs SLURM: apt-get install slurm-wlm"),
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The folder that jobs are submitted from."""
    folder = tmp_path_factory.mktemp("slurm")
    script = ["bash", str(HERE / "slurm_one_node.sh")]
    subprocess.run([*script, "start", str(folder / "one")], check=True, timeout=60)
    (folder / "text.txt").write_text("All happy families are alike; each unhappy one is unhappy in its own way.\n" * 80)
    for name in ("launch", "experiments"):
        (folder / name).symlink_to(ROOT / name)
    environment = os.environ | {
        "SLURM_CONF": str(folder / "one" / "slurm.conf"), "LMJAX_RUN": sys.executable, "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }  # fmt: skip

    def run(*words, **more):
        done = subprocess.run(
            words, cwd=folder, env=environment | more, text=True, capture_output=True, check=True, timeout=900
        )
        return done.stdout

    run.folder, run.environment = folder, environment
    yield run
    run("scancel", "--user=root")
    subprocess.run([*script, "stop", str(folder / "one")], check=True)


ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL")


def submitted(slurm, *words):
    return slurm("sbatch", "--parsable", *words).strip()


def wait(slurm, job, seconds=1500):
    """Until every task of the job has ended; (restarts of each task, what was seen).

    A job on its way back into the queue is for a while in none of the states that squeue shows unasked, and may look
    ended: it is asked for by all states, and has to stay ended.
    """
    until, restarts, states, gone = time.monotonic() + seconds, {}, set(), 0
    while gone < 5:
        asked = ("squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", "--format=%i %T")
        lines = slurm(*asked).splitlines()
        gone = gone + 1 if all(line.split()[1] in ENDED for line in lines) else 0
        assert time.monotonic() < until, lines
        for line in lines:
            states.add(line.split()[1])
            shown = subprocess.run(
                ["scontrol", "--oneliner", "show", "job", line.split()[0]], env=slurm.environment, text=True,
                capture_output=True, check=False,
            ).stdout  # fmt: skip
            if " Restarts=" in shown:
                restarts[line.split()[0]] = int(shown.split(" Restarts=")[1].split()[0])
            if "Reason=BeginTime" in shown:  # after a requeue SLURM waits for two minutes: not here
                slurm("scontrol", "update", f"JobId={line.split()[0]}", "StartTime=now")
        time.sleep(1)
    return restarts, states


def alone(slurm, devices, *flags):
    """The log of the same run without SLURM, undisturbed."""
    slurm(
        sys.executable, "experiments/gpt_char.py", *TINY, *flags, "--workdir=alone" + "".join(flags), "--quiet=true",
        XLA_FLAGS=f"{slurm.environment['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
    )  # fmt: skip
    return (slurm.folder / ("alone" + "".join(flags)) / "metrics.jsonl").read_bytes()


def test_a_job_that_reaches_its_time_limit_is_requeued_and_ends_in_the_same_bits(slurm):
    steps = f"--steps={os.environ.get('LMJAX_SLURM_STEPS', '20000')}"
    job = submitted(
        slurm, "--nodes=1", "--ntasks-per-node=2", "--time=3", "--signal=TERM@60", "--output=limit.log",
        "launch/slurm_multinode.sbatch", "experiments/gpt_char.py", *TINY, steps, "--workdir=limit",
    )  # fmt: skip
    restarts, _ = wait(slurm, job)
    log = (slurm.folder / "limit.log").read_text()
    assert (slurm.folder / "limit" / "result.json").exists(), log
    assert restarts[job] >= 1, log
    assert log.count("going on from step") == restarts[job]
    assert (slurm.folder / "limit" / "metrics.jsonl").read_bytes() == alone(slurm, 2, steps)


def test_an_array_runs_each_line_and_a_requeued_task_ends_in_the_same_bits(slurm):
    (slurm.folder / "rates.txt").write_text("--lr=1e-3 --steps=800\n--lr=3e-3 --steps=800\n--lr=1e-2 --steps=800\n")
    job = submitted(
        slurm, "--array=1-3%2", "--time=10", "--output=array-%a.log", "launch/slurm_array.sbatch", "rates.txt",
        "experiments/gpt_char.py", *TINY,
    )  # fmt: skip
    first = slurm.folder / "runs" / "rates" / "1"
    until = time.monotonic() + 300
    while not list((first / "checkpoints").glob("[0-9]*")):
        assert time.monotonic() < until, (slurm.folder / "array-1.log").read_text()
        time.sleep(0.2)
    slurm("scontrol", "requeue", f"{job}_1")
    restarts, _ = wait(slurm, job)
    assert restarts[f"{job}_1"] == 1
    for i, _lr in enumerate(("1e-3", "3e-3", "1e-2"), 1):
        folder, log = slurm.folder / "runs" / "rates" / str(i), (slurm.folder / f"array-{i}.log").read_text()
        assert (folder / "result.json").exists(), log
    assert "going on from step" in (slurm.folder / "array-1.log").read_text()
    assert (first / "metrics.jsonl").read_bytes() == alone(slurm, 1, "--lr=1e-3", "--steps=800")
