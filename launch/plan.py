"""Any experiment's training on paper: does it fit, on how many devices, how fast is a step and what bounds it.

    bash launch/run.sh launch/plan.py experiments/gpt_char.py --devices=1,2,4,8,64 --chip=h100 \\
        -- --preset=gpt2 --batch=512 --accumulate=8

What stands behind ` -- ` are the experiment's own flags: whatever it would train, it is planned. Nothing is trained and
no accelerator is needed: the step is compiled from its shapes for a few simulated devices, and for others computed from
that. A row each number of devices: memory of one device (state: parameters, optimizer, batch; scratch: all else), what
it sends in a step, the time of a step, what bounds it.

--strategy behind ` -- ` says how devices share the work, as in a training: pmap (whole parameters on each), or mesh
with --mesh=4,2 (4 along data, 2 along model). --devices keeps the second number and varies the first. All share the
experiment's batch; with --grow it is that of each, so that the whole batch grows with their number.

--exact=8 compiles for each number of devices up to 8, and shows by how much the estimates miss it.

What is assumed: products at half a chip's peak (--share), memory and links at 0.8 of their bandwidth (--link_share),
nothing sent while products are computed (--overlap), no latency, work split evenly. Peaks are those of
lmjax/run/plans/chips.py. MFU counts all FLOPs, recomputed blocks' too. The compiler is XLA's for CPUs, which fuses no
attention and widens bfloat16: on GPUs and TPUs scratch and bytes sent of a bfloat16 model are less.
"""

import os
from dataclasses import dataclass

from lmjax.config import setting
from lmjax.run import flags
from lmjax.run.plans.chips import CHIPS


@dataclass(frozen=True)
class Config:
    devices: tuple[int, ...] = setting((), "numbers of devices; default: 1,2,4,8, or those of --mesh", low=1)
    chip: str = setting("h100", "what each device is", choices=tuple(CHIPS))
    grow: bool = setting(False, "the batch is that of each device; else all share it")
    exact: int = setting(0, "compile for each number of devices up to this, to check the estimates", low=0, high=512)
    share: float = setting(0.5, "of the chip's peak that products attain", low=0.01, high=1.0)
    link_share: float = setting(0.8, "of the bandwidth of memory and links that is attained", low=0.01, high=1.0)
    overlap: float = setting(0.0, "share of the communication that hides behind products", low=0.0, high=1.0)
    json: str = setting("", "file to write all of it to")
    plot: str = setting("", "PNG of memory and time of a step against devices to write")

    def __post_init__(self):
        if any(n > 4096 for n in self.devices):
            raise ValueError(f"--devices={','.join(map(str, self.devices))}: expected at most 4096")


def main(config, script, rest):
    os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX is imported: devices are simulated
    from lmjax.run.plans import pages

    pages.run(config, script, rest)


if __name__ == "__main__":
    flags.run(main, Config, starts=True)
