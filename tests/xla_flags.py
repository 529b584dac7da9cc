"""XLA's flags for programs that run once: most of the suite's time is their compilation.

LLVM's optimizations (level 3 for users) would double it, and XLA's newer emitters of fused loops add half.
LMJAX_TEST_OPTIMIZATION=3 runs the tests with both, as users run.
"""

import os
from importlib import metadata

LEVEL = os.environ.get("LMJAX_TEST_OPTIMIZATION", "0")
QUICK = f"--xla_backend_optimization_level={LEVEL}"
if LEVEL != "3" and metadata.version("jaxlib").startswith("0.10."):  # later ones have no such choice
    QUICK += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
