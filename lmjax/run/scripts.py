"""The file of an experiment as a module: for what starts experiments, plans them, or lists their rows."""

import importlib.util
import sys
from pathlib import Path

from lmjax.errors import UserError


def load(script):
    """The module of the experiment in that file, read where it lies, once. UserError where there is none, or it has no
    Config."""
    path = Path(script)
    if not path.is_file() or path.suffix != ".py":
        raise UserError(f"there is no script {script}: expected one such as experiments/gpt_char.py")
    name = f"lmjax_experiment_{path.stem}"
    if getattr(sys.modules.get(name), "__file__", None) == str(path.resolve()):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for the types of their fields
    sys.path.insert(0, str(path.resolve().parent))  # as where it is run
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    if not hasattr(module, "Config"):
        raise UserError(f"{script} is no experiment: it has no Config, see experiments/gpt_char.py")
    return module
