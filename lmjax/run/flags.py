"""Command-line flags from a frozen dataclass, read before JAX is imported.

An experiment declares its settings once, and its flags, its help page and its config.json follow:

    @dataclass(frozen=True)
    class Config:
        seed: int = setting(0, "start of all randomness", low=0)
        model: GPT = setting(GPT(), "the network")  # its fields are --model.dim=128, ...

    PRESETS = {"small": {"help": "row 1 of table 2", "model.dim": 200}}

    if __name__ == "__main__":
        flags.run(main, Config, PRESETS)

What wins, weakest first: the defaults, --preset, --flagfile, the command line. A Config with a field `preset` receives
the preset's name in it. Bad input raises UserError: one line, and at the command line exit status 2.
"""

import os
import sys
import traceback

from absl import flags

from lmjax.errors import UserError
from lmjax.run import runtime
from lmjax.run.processes import distributed
from lmjax.run.settings import Leaf, build, leaves, similar, value_of


def parse(Config, presets: dict[str, dict] | None = None, doc: str = "", argv: list[str] | None = None):
    """The Config that the command line asks for.

    presets: name -> {dotted setting: value}; the key "help" is its line in --help, which `doc` opens. `argv` includes
    the program's name, as sys.argv does. Raises UserError for bad input, SystemExit(0) after --help.
    """
    program, *args = sys.argv if argv is None else argv
    presets, known = presets or {}, leaves(Config)
    if {"--help", "-h", "-help", "--helpfull"} & set(args):
        from lmjax.run.page import page

        print(page(Config, presets, doc, program), flush=True)
        raise SystemExit(0)
    named = {name: _preset(name, preset, known) for name, preset in presets.items()}
    asked = known | ({"preset": Leaf("preset", str, choices=tuple(presets))} if presets else {})

    lines, rest = _flagfiles(args)
    given = _read(lines, asked) | _read(rest, asked)
    defaults = {name: leaf.default for name, leaf in known.items()}
    values = defaults | (named[given["preset"]] if presets and "preset" in given else {}) | given
    return build(Config, {name: values[name] for name in known})


def _preset(name: str, preset: dict, known: dict[str, Leaf]) -> dict:
    settings = {key: value for key, value in preset.items() if key != "help"}
    for key in settings:
        if key not in known:
            raise UserError(f"preset {name} sets {key}, which is no setting{similar(key, list(known))}")
    return {key: value_of(known[key], value, f"preset {name}: --") for key, value in settings.items()}


def _read(args: list[str], known: dict[str, Leaf]) -> dict:
    """The values that `args` gives, by dotted name."""
    words = flags.FlagValues()  # holds each flag's text; our own settings check it
    words.set_gnu_getopt(True)  # read past a stray word, so that an unknown flag behind it is named first
    for name, leaf in known.items():
        switch = leaf.type is bool and not leaf.many
        words[name] = flags.Flag(flags.ArgumentParser(), None, name, None, "", boolean=switch, allow_overwrite=False)
    try:
        _, *stray = words(["", *args])
    except flags.UnrecognizedFlagError as error:
        name = error.flagname
        hint = similar(name, list(known), "--") or similar(name.removeprefix("no"), list(known), "--no")
        raise UserError(f"unknown flag --{name}{hint or '; --help lists all flags'}") from None
    except flags.IllegalFlagValueError as error:  # only allow_overwrite raises it here
        raise UserError(f"{str(error).partition('=')[0].removeprefix('flag ')} is given twice; keep one") from None
    except flags.Error:  # the last word's value is missing
        raise UserError(f"{args[-1]} has no value; write {args[-1]}=VALUE") from None
    except ValueError as error:  # --noname=value
        raise UserError(f"{error}; write --name=true or --name=false") from None
    if stray:
        at = args.index(stray[0])
        switch = args[at - 1].lstrip("-") if at else ""
        remedy = f"write --{switch}={stray[0]}" if switch in known else "settings are given as --name=value"
        raise UserError(f"stray argument {stray[0]!r}: {remedy}; --help lists all flags")
    return {name: value_of(known[name], words[name].value, "--") for name in known if words[name].present}


def _flagfiles(args: list[str]) -> tuple[list[str], list[str]]:
    """Splits --flagfile=PATH off `args`: (the flags in those files, the other arguments)."""
    lines, rest, words = [], [], iter(args)
    for word in words:
        name, equals, path = word.partition("=")
        if name not in ("--flagfile", "-flagfile"):
            rest.append(word)
            continue
        path = path if equals else next(words, "")
        try:
            if not path:
                raise OSError
            lines += flags.FlagValues().read_flags_from_files([f"--flagfile={path}"])
        except (flags.Error, OSError, UnicodeDecodeError):
            expected = "expected a text file with one --name=value a line"
            raise UserError(f"cannot read --flagfile={path}: {expected}") from None
    return lines, rest


def split(argv: list[str]) -> tuple[list[str], str, list[str]]:
    """The command line of a script that starts another: (argv of its own, the other script, the flags for that).

    `launch/sweep.py experiments/X.py --trials=4 -- --steps=300`: the script is the first word that ends in .py (""
    where there is none), its flags stand behind `--`.
    """
    at = argv.index("--") if "--" in argv else len(argv)
    words = argv[1:at]
    script = next((word for word in words if word.endswith(".py") and not word.startswith("-")), "")
    if script:
        words.remove(script)
    return [argv[0], *words], script, argv[at + 1 :]


def named(argv: list[str], name: str) -> list[str]:
    """argv with its words that are neither flags nor stand behind one gathered as --name=word,word: for programs whose
    arguments are named by their place, such as a list of folders."""
    words, kept = [], argv[:1]
    for word, before in zip(argv[1:], argv):
        flag_before = before is not argv[0] and before.startswith("--") and "=" not in before
        (kept if word.startswith("-") or flag_before else words).append(word)
    return kept + ([f"--{name}={','.join(words)}"] if words else [])


def run(main, Config, presets: dict[str, dict] | None = None, starts: bool = False) -> None:
    """Reads the command line and calls main(config): what stands under an experiment's `if __name__ == "__main__"`.

    starts: the command starts another script, and main is main(config, script, its flags), see `split`. A UserError
    ends as one line on stderr and its status, ^C with status 130, a reader that left (`| head`) with 141.
    Where launch/multiprocess.py started this program, it joins the others first.
    """
    name = os.path.basename(sys.argv[0])
    try:
        argv, *other = split(sys.argv) if starts else (sys.argv,)
        config = parse(Config, presets, sys.modules[main.__module__].__doc__ or "", argv)
        runtime.prepare()
        distributed.join()
        main(config, *other)
        sys.stdout.flush()
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        distributed.leave(error.status)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        distributed.leave(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains as it flushes
        distributed.leave(141)
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        distributed.leave(end.code)
    except BaseException:
        if not distributed.asked():
            raise
        traceback.print_exc()
        distributed.leave(1)
    else:
        if distributed.asked():
            distributed.leave(0)
