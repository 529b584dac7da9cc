"""Checkpoints: asynchronous, atomic, verified before they are read.

A checkpoint is a folder `checkpoints/<step>/` that comes into being by one rename, once all that is in it is on disk:

    arrays/        the arrays as orbax writes them: a flat dict from path ("params/blocks/attn/wq") to array
    manifest.json  step, score, the caller's `meta`, path, shape, dtype and sha256 of every array, size and sha256 of
                   every file; the last line is the sha256 of all lines before it

Orbax commits atomically too, but restores a flipped bit in silence, so nothing reaches it here before every file has
been hashed, and what it returns is compared with the hashes of the arrays that were handed in. A folder whose name
begins with a dot is work in progress: `.tmp-` is being written or deleted, `.old-` makes way for its replacement.
"""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import threading
import time
from pathlib import Path

import jax
import numpy as np

from lmjax.errors import Diverged, UserError
from lmjax.train import processes

FORMAT = 1
MANIFEST = "manifest.json"
ARRAYS = "arrays"
REMEDY = "use another --workdir, or the flags in this one's config.json"

# Names the temporary folders of this process: a process id alone comes back, in a container every time.
_LIFE = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns():x}"
_WORK = re.compile(r"\.(?P<kind>tmp|old)-(?P<name>\d{8,})-(?P<life>(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]+)")
_DAY = 86400  # seconds


class NonFinite(Diverged):
    """A floating array of the state holds a NaN or an infinity; nothing was written."""


class Damaged(Exception):
    """A checkpoint that is not, byte for byte, what was saved."""


class Checkpoints:
    """The checkpoints of one run.

    folder: usually `<workdir>/checkpoints`; made at the first save.
    keep: how many of the last checkpoints stay.
    best: "min" or "max": the one with the lowest or highest `score` stays as well.
    log: has `.warning(text)`; `logging.getLogger("lmjax")` if not given.

    In a run of several processes the first one saves, and reads for all: the others need not see the folder. Leave by
    `close()`, or use it as a context manager: a save that is under way when the interpreter ends without it is lost
    (and its remains removed at the next start). Methods may be called from any thread.
    """

    def __init__(self, folder, keep=2, best=None, log=None):
        if keep < 1:
            raise ValueError(f"keep={keep}: at least 1 checkpoint has to stay")
        if best not in (None, "min", "max"):
            raise ValueError(f'best={best!r}: expected None, "min" or "max"')
        self.folder = Path(os.path.abspath(folder))
        self.keep, self.best = keep, best
        self.log = log or logging.getLogger("lmjax")
        self._lock = threading.RLock()
        self._thread, self._error = None, None
        _clean(self.folder)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        try:
            self.close()
        except Exception as late:
            if error is None:
                raise
            self.log.warning(str(late))  # the error that is under way says more

    def save(self, step, state, meta=None, *, score=None):
        """Copies `state` to the host and returns; a background thread writes it.

        state: a tree of numpy or JAX arrays, whose buffers may be donated as soon as this returns.
        meta: a dict that JSON can hold; given back by `restore`.
        score: what `best` compares, or None; a NaN counts as None.
        Waits for the save before, and raises its error if it failed: `UserError` where the disk refused.
        Raises `NonFinite` rather than save a NaN. A step that is there already is replaced.
        """
        if jax.process_index() != 0:
            return
        with self._lock:
            self.wait()
            arrays = _host(state)
            _check_finite(step, arrays)
            score = None if score is None or np.isnan(score) else float(score)
            head = {"format": FORMAT, "step": int(step), "score": score, "best": self.best, "meta": meta or {}}
            head = json.loads(json.dumps(head))  # a copy, like the arrays; what cannot be written fails here
            self._thread = threading.Thread(target=self._run, args=(head, arrays), name="checkpoint")
            self._thread.start()

    def wait(self):
        """Returns when nothing is being written any more; raises the error of the last save, once."""
        with self._lock:
            if self._thread is not None:
                self._thread.join()
            self._thread, error, self._error = None, self._error, None
            if error is not None:
                raise error

    close = wait

    def steps(self):
        """The steps that have a checkpoint, ascending; damaged ones too."""
        return json.loads(processes.from_first(lambda: json.dumps(sorted(_committed(self.folder))).encode()))

    def restore(self, like, *, step=None, which="last", part=None):
        """The newest intact checkpoint as (step, state, meta), or None where there is none at all.

        like: a tree of arrays or `jax.ShapeDtypeStruct`; the result has its structure and numpy leaves, bit by bit.
        step: this one and no other. which: "last" or "best" (by score; those without one come after).
        part: only this branch of the saved tree, for example "params"; `like` is that branch.
        A damaged checkpoint is passed over with a warning. Raises `UserError` if all are damaged, or if the one found
        holds another model; neither changes anything on the disk.
        """
        like_arrays, structure = _named(like), jax.tree.structure(like)
        prefix = f"{part}/" if part else ""

        def read(folder):
            manifest = _read_manifest(folder)
            saved = {a["path"]: a for a in manifest["arrays"] if a["path"].startswith(prefix) or a["path"] == part}
            wanted = {_join(part, path): _form(x) for path, x in like_arrays.items()}
            _match(folder, saved, wanted)
            _verify(folder, manifest)
            arrays = _read_arrays(folder, saved)
            leaves = [arrays[path] for path in wanted]
            return manifest["step"], leaves, manifest["meta"]

        found = []

        def headline():
            found.extend(self._first(read, step, which) or ())
            return json.dumps([found[0], found[2]] if found else None).encode()

        head = json.loads(processes.from_first(headline))
        if head is None:
            return None
        forms = [np.broadcast_to(np.zeros((), dtype), shape) for shape, dtype in map(_form, like_arrays.values())]
        leaves = processes.arrays_from_first(found[1] if found else forms)
        return head[0], jax.tree.unflatten(structure, leaves), head[1]

    def restore_params(self, like, *, step=None, which="last"):
        """`restore` of the branch "params" alone, for who need not know the optimizer."""
        return self.restore(like, step=step, which=which, part="params")

    def read_meta(self, *, step=None, which="last"):
        """(step, meta) of the newest checkpoint whose manifest is intact, or None; the arrays are not looked at."""

        def read(folder):
            manifest = _read_manifest(folder)
            return manifest["step"], manifest["meta"]

        said = processes.from_first(lambda: json.dumps(self._first(read, step, which)).encode())
        return None if json.loads(said) is None else tuple(json.loads(said))

    def _first(self, read, step, which):
        """`read(folder)` of the first candidate that is not damaged."""
        self.wait()
        folders = self._candidates(step, which)
        reasons = []
        for folder in folders:
            try:
                return read(folder)
            except Damaged as damage:
                reasons.append(f"{folder.name}: {damage}")
                if folder is not folders[-1]:
                    self.log.warning(f"checkpoint {reasons[-1]}; falling back to the next")
        if not folders:
            return None
        raise UserError(
            f"{self.folder}: no checkpoint can be restored ({'; '.join(reasons)}); nothing was changed;"
            " bring a copy back, or use another --workdir to start afresh"
        )

    def _candidates(self, step, which):
        folders = _committed(self.folder)
        if step is not None:
            if step not in folders:
                raise UserError(f"{self.folder}: no checkpoint of step {step}; there are {sorted(folders) or 'none'}")
            return [folders[step]]
        newest = [folders[s] for s in sorted(folders, reverse=True)]
        if which == "last":
            return newest
        if which != "best":
            raise ValueError(f'which={which!r}: expected "last" or "best"')
        scored = sorted(_scores(newest).items(), key=lambda item: item[1])
        ranked = [folders[s] for s, _ in scored]
        return ranked + [folder for folder in newest if folder not in ranked]

    def _run(self, head, arrays):
        """The background thread."""
        name = f"{head['step']:08d}"
        temporary = self.folder / f".tmp-{name}-{_LIFE}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            _write(temporary, head, arrays)
            _commit(temporary, self.folder / name)
            self._prune()
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            self._error = _explain(error, self.folder, head["step"])

    def _prune(self):
        """Deletes what is neither among the last `keep` nor the best. Only called once the new one is committed.

        What is visibly damaged (a file missing or of another size) does not count among those kept, and is itself
        deleted only when it is older than they are.
        """
        folders = _committed(self.folder)
        intact = [s for s in sorted(folders) if _looks_intact(folders[s])]
        stay = set(intact[-self.keep :])
        if self.best and (scores := _scores([folders[s] for s in intact])):
            stay.add(min(scores, key=scores.get))
        for step, folder in folders.items():
            if step not in stay and (step in intact or step < min(stay)):
                gone = self.folder / f".tmp-{folder.name}-{_LIFE}"
                os.rename(folder, gone)  # so that a kill in the middle leaves no half checkpoint under its name
                shutil.rmtree(gone, ignore_errors=True)


# Trees as flat dicts


def _join(part, path):
    return path if not part else f"{part}/{path}" if path else part


def _named(tree):
    """Path ("params/blocks/0/w") to leaf, in the order of `jax.tree.leaves`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    if len(named) != len(leaves):
        raise ValueError("two arrays of the state have the same path: no key may hold a '/', nor 1 stand beside '1'")
    return named


def _form(x):
    """Shape and dtype of an array, a struct or a Python number."""
    return tuple(np.shape(x)), str(x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype)


def _host(tree):
    """A copy of every array in host memory: what `jax.device_get` gives on a CPU is a view of a buffer soon donated."""
    named = _named(tree)
    for x in named.values():
        if isinstance(x, jax.Array):
            x.copy_to_host_async()
    arrays = {path: np.array(x, order="C", copy=True) for path, x in named.items()}
    for path, x in arrays.items():
        if x.dtype.hasobject or x.dtype.kind in "US":
            raise ValueError(f"{path}: expected an array of numbers, got {x.dtype}")
    return arrays


def _check_finite(step, arrays):
    # numpy's own issubdtype does not count bfloat16 as floating
    bad = [p for p, x in arrays.items() if jax.dtypes.issubdtype(x.dtype, np.inexact) and not np.isfinite(x).all()]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise NonFinite(
            f"step {step}: {', '.join(bad[:3])}{more} not finite: not saved, the checkpoint before is kept; "
            "lower the learning rate or clip the gradient"
        )


def _match(folder, saved, wanted):
    """Raises `UserError` at the first path where the model saved differs from the one wanted."""
    saved = {path: (tuple(a["shape"]), a["dtype"]) for path, a in saved.items()}
    show = "{0[0]} {0[1]}".format
    for path in [*wanted, *saved]:
        if path not in saved:
            raise UserError(f"{folder} has no {path}, which here is {show(wanted[path])}: {REMEDY}")
        if path not in wanted:
            raise UserError(f"{folder} has {path} {show(saved[path])}, which is not in this model: {REMEDY}")
        if saved[path] != wanted[path]:
            raise UserError(f"{folder}: {path} is {show(saved[path])} there and {show(wanted[path])} here: {REMEDY}")


# Writing


def _orbax():
    """Orbax and a checkpointer that writes from this process alone.

    Imported late: it takes a third of a second, which the background thread can spend beside the first steps.
    Uncompressed: float weights shrink by a tenth at best, and the compressor takes cores from the training.
    """
    import orbax.checkpoint as ocp

    logging.getLogger("absl").addFilter(_not_orbax)  # a full disk alone is 200 lines of tracebacks; we raise one
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=here, active_processes={here})
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True, use_compression=False, multiprocessing_options=alone)
    return ocp, ocp.Checkpointer(handler, multiprocessing_options=alone)


def _not_orbax(record):
    return f"{os.sep}orbax{os.sep}" not in record.pathname


def _write(folder, head, arrays):
    """Everything of a checkpoint into `folder`, durable when this returns."""
    described = [
        {"path": path, "shape": list(x.shape), "dtype": str(x.dtype), "sha256": _digest(x)}
        for path, x in arrays.items()
    ]
    full = {path: x for path, x in arrays.items() if x.size}  # orbax refuses empty arrays: the manifest holds them
    if full:
        _, checkpointer = _orbax()
        with checkpointer:
            checkpointer.save(folder / ARRAYS, full)
    files = {n: {"size": (folder / n).stat().st_size, "sha256": _file_digest(folder / n)} for n in _files(folder)}
    text = json.dumps({**head, "arrays": described, "files": files}, indent=1)
    (folder / MANIFEST).write_text(_seal(text), encoding="utf-8")
    _sync(folder)


def _seal(text):
    return f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}\n"


def _digest(x):
    return hashlib.sha256(np.ascontiguousarray(x).reshape(-1).view(np.uint8)).hexdigest()


def _file_digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder):
    """Relative names of all files under `folder`."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir() or p.is_symlink())


def _sync(folder):
    for directory, _, names in os.walk(folder, topdown=False):
        for name in names:
            _fsync(os.path.join(directory, name))
        _fsync(directory)


def _fsync(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _commit(temporary, final):
    """One rename. A step that is there steps aside first: `_clean` brings it back if the process dies between."""
    old = final.with_name(f".old-{final.name}-{_LIFE}")
    replaces = final.exists()
    if replaces:
        os.rename(final, old)
    os.rename(temporary, final)
    _fsync(final.parent)
    _fsync(final.parent.parent)  # the first time, that is where the new entry is
    if replaces:
        shutil.rmtree(old, ignore_errors=True)


def _clean(folder):
    """Removes what killed saves left; brings back a checkpoint whose replacement never came."""
    for path in folder.glob(".*-*"):
        left = _WORK.fullmatch(path.name)
        if not left or _alive(path, left["life"], left["host"], int(left["pid"])):
            continue
        if left["kind"] == "old" and not (folder / left["name"]).exists():
            os.rename(path, folder / left["name"])
        else:
            shutil.rmtree(path, ignore_errors=True)


def _alive(path, life, host, pid):
    """Whether the process that wrote `path` may still be at it."""
    if host != socket.gethostname():  # a shared disk: its processes cannot be asked, so let a day go by
        return time.time() - path.stat().st_mtime < _DAY
    if pid == os.getpid():
        return life == _LIFE
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _explain(error, folder, step):
    """What the disk refused becomes one line; anything else stays as it is."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
    said = [os.strerror(code) for code in codes if os.strerror(code) in str(error)]  # tensorstore raises ValueError
    if isinstance(error, OSError) and error.strerror:
        said = [error.strerror]
    if not said:
        return error
    refusal = UserError(
        f"{folder}: step {step} could not be saved: {said[0]}; earlier checkpoints are unharmed;"
        " make room there or use another --workdir"
    )
    refusal.__cause__ = error
    return refusal


# Reading


def _committed(folder):
    """Step to folder of what bears a checkpoint's name, damaged or not."""
    return {int(p.name): p for p in folder.glob("*") if re.fullmatch(r"\d{8,}", p.name)}


def _scores(folders):
    """Step to score, lower is better, of those that have one. The direction is the one the newest was saved with."""
    found, direction = {}, None
    for folder in sorted(folders, reverse=True):
        try:
            manifest = _read_manifest(folder)
        except Damaged:
            continue
        direction = direction or manifest["best"]
        if manifest["score"] is not None:
            found[manifest["step"]] = manifest["score"]
    sign = -1 if direction == "max" else 1
    return {step: sign * found[step] for step in sorted(found)}


def _read_manifest(folder):
    try:
        raw = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise Damaged(f"{MANIFEST} cannot be read ({error.strerror})") from error
    text = raw[: raw.rstrip(b"\n").rfind(b"\n")].decode("utf-8", "replace")
    if raw != _seal(text).encode():
        raise Damaged(f"{MANIFEST} is not what was written")
    manifest = json.loads(text)
    if manifest["format"] != FORMAT:
        raise UserError(f"{folder}: format {manifest['format']}, expected {FORMAT}: use the lmjax that wrote it")
    if f"{manifest['step']:08d}" != folder.name:
        raise Damaged(f"holds step {manifest['step']}")
    return manifest


def _check_sizes(folder, manifest):
    present, expected = set(_files(folder)), {MANIFEST, *manifest["files"]}
    if present != expected:
        name = min(present ^ expected)
        raise Damaged(f"{name} {'is missing' if name in expected else 'does not belong there'}")
    for name, file in manifest["files"].items():
        if (folder / name).stat().st_size != file["size"]:
            raise Damaged(f"{name} has {(folder / name).stat().st_size} bytes instead of {file['size']}")


def _verify(folder, manifest):
    """Raises `Damaged` unless exactly the files of the manifest are there, each byte as written."""
    try:
        _check_sizes(folder, manifest)
        for name, file in manifest["files"].items():
            if _file_digest(folder / name) != file["sha256"]:
                raise Damaged(f"{name} is not what was written")
    except OSError as error:
        raise Damaged(f"{error.filename} cannot be read ({error.strerror})") from error


def _looks_intact(folder):
    try:
        _check_sizes(folder, _read_manifest(folder))
    except (Damaged, UserError, OSError):
        return False
    return True


def _read_arrays(folder, saved):
    """Path to array. `saved`: path to its entry in the manifest."""
    shapes = {path: tuple(a["shape"]) for path, a in saved.items()}
    arrays = {path: np.empty(shape, saved[path]["dtype"]) for path, shape in shapes.items() if 0 in shape}
    full = [path for path in saved if path not in arrays]
    if full:
        ocp, checkpointer = _orbax()
        item = dict.fromkeys(full, 0)
        how = {path: ocp.RestoreArgs(restore_type=np.ndarray) for path in full}
        args = ocp.args.PyTreeRestore(item=item, restore_args=how, partial_restore=True)
        try:
            with checkpointer:
                arrays |= checkpointer.restore(folder / ARRAYS, args=args)
        except (ValueError, KeyError, OSError) as error:
            raise Damaged(f"orbax cannot read it ({str(error).splitlines()[0]})") from error
    for path, a in saved.items():
        x = arrays[path]
        if x.shape != shapes[path] or str(x.dtype) != a["dtype"] or _digest(x) != a["sha256"]:
            raise Damaged(f"{path} does not come back as it was saved")
    return arrays
