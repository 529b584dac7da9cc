"""The launch scripts, with a stand-in for Python that writes down what it is asked to do and installs nothing."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parents[2] / "launch"

# `python -m venv --clear DIR` puts a copy of itself there; pip fails where the file `fail` says so.
PYTHON = """#!/bin/sh
log=$FAKE/log
case "$*" in
-V) echo "Python $(cat "$FAKE/version")" ;;
"-c import sys, venv"*) ;;
"-m venv --clear "*) echo venv >>"$log"; mkdir -p "$4/bin"; rm -f "$4/lmjax"; cp "$0" "$4/bin/python" ;;
"-m pip "*)
    echo "pip ${*##*-e }" >>"$log"
    sleep 0.3
    [ ! -e "$FAKE/fail" ] || { echo no index >&2; exit 1; } ;;
*) echo "ran $*" ;;
esac
"""


class Place:
    """A checkout of nothing but the scripts, and a PATH on which python3 is the stand-in."""

    def __init__(self, folder: Path):
        self.root, self.fake = folder / "a checkout", folder / "fake"
        shutil.copytree(LAUNCH, self.root / "launch")
        (self.root / "pyproject.toml").write_text("one")
        (self.root / "constraints.txt").write_text("jax==1")
        (self.root / "x.py").write_text("")
        self.fake.mkdir()
        (self.fake / "version").write_text("3.11.7")
        (self.fake / "python3").write_text(PYTHON)
        (self.fake / "python3").chmod(0o755)
        tools = "sh cat cksum tr mkdir rm cp dirname sleep flock echo printf env"
        for tool in tools.split():
            if found := shutil.which(tool):
                (self.fake / tool).symlink_to(found)

    def begin(self, script="run.sh", *words, **variables):
        env = {"PATH": str(self.fake), "FAKE": str(self.fake), **variables}
        command = [self.root / "launch" / script, *words]
        return subprocess.Popen(
            command, cwd=self.root, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def start(self, *words, **variables):
        process = self.begin(*words, **variables)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def did(self) -> list[str]:
        """What Python was asked to make since the last question."""
        log = self.fake / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line.replace(str(self.root), "ROOT") for line in lines]


@pytest.fixture
def place(tmp_path):
    if os.name != "posix":
        pytest.skip("shell scripts")
    return Place(tmp_path)


RUN, TEST = "pip ROOT[text,plot,tb,digits]", "pip ROOT[dev,text,plot,tb,digits,text,plot,tb,digits]"


def test_the_first_start_installs_and_the_second_does_not(place):
    status, out, err = place.start("run.sh", "x.py", "--seed=3", "--name=a b")
    assert (status, out) == (0, "ran x.py --seed=3 --name=a b\n")
    assert "installing" in err
    assert place.did() == ["venv", RUN]
    assert place.start("run.sh", "x.py") == (0, "ran x.py\n", "")
    assert place.did() == []


def test_the_tests_add_their_extra_to_the_same_environment(place):
    place.start("run.sh", "x.py")
    place.did()
    said = place.start("test.sh", "-k", "a b")[1]
    assert said == "ran -m pytest -n 2 --dist loadscope --no-loadscope-reorder -k a b\n"
    assert place.did() == [TEST]
    for words in (("run.sh", "x.py"), ("test.sh",)):
        place.start(*words)
    assert place.did() == []
    place.start("run.sh", "x.py", LMJAX_EXTRAS="cuda")
    (line,) = place.did()
    assert line.startswith("pip ROOT[text,plot,tb,digits,cuda,dev")


@pytest.mark.parametrize("file", ["pyproject.toml", "constraints.txt"])
def test_changed_requirements_are_installed_over_the_old(place, file):
    place.start("run.sh", "x.py")
    place.did()
    (place.root / file).write_text("another")
    place.start("run.sh", "x.py")
    assert [line.split("[")[0] for line in place.did()] == ["pip ROOT"]
    place.start("run.sh", "x.py")
    assert place.did() == []


def test_an_interrupted_installation_is_made_anew(place):
    (place.fake / "fail").write_text("")
    status, out, err = place.start("run.sh", "x.py")
    assert (status, out) == (1, "")
    assert "no index" in err
    assert place.did() == ["venv", RUN]
    (place.fake / "fail").unlink()
    assert place.start("run.sh", "x.py")[0] == 0
    assert place.did() == ["venv", RUN]
    (place.fake / "fail").write_text("")  # and so is one broken off as it was brought up to date
    (place.root / "pyproject.toml").write_text("another")
    assert place.start("run.sh", "x.py")[0] == 1
    (place.fake / "fail").unlink()
    place.did()
    assert place.start("run.sh", "x.py")[0] == 0
    assert place.did() == ["venv", RUN]


def test_another_python_or_place_is_made_anew(place):
    place.start("run.sh", "x.py")
    place.did()
    (place.fake / "version").write_text("3.12.1")
    place.start("run.sh", "x.py")
    assert place.did() == ["venv", RUN]
    (place.root / ".venv/bin/python").unlink()
    place.start("run.sh", "x.py")
    assert place.did() == ["venv", RUN]
    place.root = place.root.rename(place.root.with_name("moved"))
    place.start("run.sh", "x.py")
    assert place.did() == ["venv", RUN]


@pytest.mark.skipif(shutil.which("flock") is None, reason="without flock starts are not kept apart")
def test_starts_at_once_install_once(place):
    for process in [place.begin("run.sh", "x.py") for _ in range(4)]:
        assert process.communicate(timeout=60)[0] == "ran x.py\n"
        assert process.returncode == 0
    assert place.did() == ["venv", RUN]


def test_without_a_fit_python_one_line_says_so(place):
    (place.fake / "python3").write_text("#!/bin/sh\nexit 1\n")
    status, out, err = place.start("run.sh", "x.py")
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith("lmjax: found no Python >= 3.11")


@pytest.mark.parametrize(
    ("words", "says"), [((), "usage: launch/run.sh SCRIPT"), (("y.py",), "there is no script y.py")]
)
def test_a_wrong_call_is_one_line_and_installs_nothing(place, words, says):
    status, out, err = place.start("run.sh", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert place.did() == []


def test_a_module_can_be_run(place):
    assert place.start("run.sh", "-m", "lmjax.run.record")[1] == "ran -m lmjax.run.record\n"
