"""Chips by name: what their makers say they can do. Peaks are of dense products; bandwidths are of one direction."""

import os
from typing import NamedTuple


class Chip(NamedTuple):
    """One accelerator as it is commonly built in.

    bf16, f32: products, FLOP/s, of arrays of these types as JAX multiplies them by default (float32: TF32 on Ampere and
    later, a bfloat16 pass on TPUs). memory: bytes. bandwidth: of memory, bytes/s. link: bytes/s that a chip sends to
    others of its island, `island` chips that are joined by fast links (a host's GPUs, a pod's TPUs). network: bytes/s
    that it sends out of the island.
    """

    bf16: float
    f32: float
    memory: float
    bandwidth: float
    link: float
    island: int
    network: float
    source: str

    def peak(self, dtype: str) -> float:
        return self.bf16 if dtype in ("bfloat16", "float16") else self.f32


def _machine() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


T, G, GB = 1e12, 1e9, 1e9
CHIPS = {
    "h100": Chip(989.4 * T, 494.7 * T, 80 * GB, 3350 * G, 450 * G, 8, 50 * G,
                 "NVIDIA H100 SXM5 datasheet; DGX H100: a 400 Gb/s port a GPU"),
    "h200": Chip(989.4 * T, 494.7 * T, 141 * GB, 4800 * G, 450 * G, 8, 50 * G,
                 "NVIDIA H200 SXM datasheet; DGX H200: a 400 Gb/s port a GPU"),
    "a100": Chip(312 * T, 156 * T, 80 * GB, 2039 * G, 300 * G, 8, 25 * G,
                 "NVIDIA A100 80GB SXM datasheet; DGX A100: a 200 Gb/s port a GPU"),
    # No bfloat16 in its tensor cores (125 TFLOP/s are of float16): XLA multiplies it as float32.
    "v100": Chip(15.7 * T, 15.7 * T, 32 * GB, 900 * G, 150 * G, 8, 6.25 * G,
                 "NVIDIA V100 SXM2 32GB datasheet; DGX-1: four 100 Gb/s ports for eight GPUs"),
    "rtx4090": Chip(165.2 * T, 82.6 * T, 24 * GB, 1008 * G, 32 * G, 8, 1.5625 * G,
                    "NVIDIA Ada architecture whitepaper; PCIe 4.0 x16; assumed: eight a host behind 100 Gb/s"),
    "tpu_v4": Chip(275 * T, 275 * T, 32 * 2**30, 1200 * G, 300 * G, 4096, 6.25 * G,
                   "Google Cloud's TPU v4 page; links: Jouppi et al. 2023, six of 50 GB/s; network assumed as v5p's"),
    "tpu_v5e": Chip(197 * T, 197 * T, 16 * GB, 819 * G, 200 * G, 256, 3.125 * G,
                    "Google Cloud's TPU v5e page; 6.4 Tb/s a pod of 256"),
    "tpu_v5p": Chip(459 * T, 459 * T, 95 * GB, 2765 * G, 600 * G, 8960, 6.25 * G,
                    "Google Cloud's TPU v5p page; 50 Gb/s a chip"),
    "tpu_v6e": Chip(918 * T, 918 * T, 32 * GB, 1638 * G, 400 * G, 256, 12.5 * G,
                    "Google Cloud's TPU v6e page; 25.6 Tb/s a pod of 256"),
    "cpu": Chip(87 * G, 87 * G, _machine(), 10 * G, 10 * G, 8, 1.25 * G,
                "one core of a server as measured, 87 GFLOP/s in float32; the rest assumed; this machine's memory"),
}  # fmt: skip
