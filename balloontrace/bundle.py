# SPDX-License-Identifier: Apache-2.0
"""One file for any guest: a zip that Python runs, with the verbs for guests, and no more.

In it are the modules that these import, found in their source, those of pyroute2 among them, and
the compiled BPF programs. Each module is there as source, for any Python; ours, and all that a
recorder imports, also compiled, for the one version that made the file: in a guest that has the
same, a recording begins earlier by what compiling takes. The same tree, Python, pyroute2 and zlib
make the same bytes.
"""

from __future__ import annotations

import ast
import importlib.util
import io
import marshal
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from importlib.machinery import PathFinder
from importlib.util import resolve_name
from pathlib import Path, PurePosixPath

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.one_file import RECORDERS, UNCHECKED, compiled_recorders

NAME = "balloontrace-record.pyz"

ENTRIES = (
    "balloontrace.cli.bundled",
    "balloontrace.tracers.record.session",
    "balloontrace.tracers.record.netlink",
    "balloontrace.watch.session",
    "balloontrace.watch.record_last",
)
"""Where a process of the bundle begins: the command line, the recorder, who reads delays, the
watcher, and who records the last part only."""

PROGRAMS = "tracers/bpf/bytecode/*.json"

_MAIN = """\
import os, sys
sys.path[0] = os.path.abspath(sys.path[0])
if sys.version_info < (3, 9):
    sys.exit("balloontrace: this is Python %d.%d; it takes 3.9 or newer" % sys.version_info[:2])
try:
    import ctypes, mmap
except ImportError as error:  # Debian's python3-minimal
    sys.exit(
        "balloontrace: this Python has no %s: install all of its standard library"
        " (Debian's libpython3-stdlib)" % error.name
    )
from balloontrace.cli.bundled import main
main()
"""

_COMPILE = """\
import marshal, sys
sources = marshal.load(sys.stdin.buffer)
codes = {name: compile(text, name, "exec", dont_inherit=True) for name, text in sources.items()}
marshal.dump({name: marshal.dumps(code) for name, code in codes.items()}, sys.stdout.buffer)
"""

_DEBIANS_LICENCE = Path("/usr/share/common-licenses/Apache-2.0")
"""Where a package of Debian's has it."""

_SHEBANG = b"#!/usr/bin/env python3\n"
_NO_DATE = (1980, 1, 1, 0, 0, 0)
_REGULAR = 0o100644 << 16


def made() -> bytes:
    """The file. Raises UserError without pyroute2."""
    recorders = sorted(_files(ENTRIES[1:]))
    sources = contents()
    compiled = _compiled({name: text for name, text in sources.items() if name.endswith(".py")})
    files = {
        **sources,
        **{name: code for name, code in compiled.items() if name.startswith("balloontrace/")},
        "LICENSE": _licence(Path(__file__).parents[1]),
        "__main__.py": _MAIN.encode(),
        RECORDERS: "\n".join(recorders).encode(),
        compiled_recorders(): _zipped({f"{name}c": compiled[f"{name}c"] for name in recorders}),
    }
    return _SHEBANG + _zipped(files)


def _zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip of name -> content."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as zipped:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _NO_DATE)
            entry.external_attr = _REGULAR
            entry.create_system = 3  # Unix, wherever it is made
            how = zipfile.ZIP_STORED if name.endswith(".zip") else zipfile.ZIP_DEFLATED
            zipped.writestr(entry, content, how, compresslevel=9)
    return held.getvalue()


def _compiled(sources: Mapping[str, bytes]) -> dict[str, bytes]:
    """Name of a .pyc -> its content for this Python, of name -> source.

    By a process of its own, for what a process has done before, and its hashes, are to be seen in
    what it marshals.
    """
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") or name == "PYTHONHOME"  # which says where it is
    }
    done = subprocess.run(
        [sys.executable, "-S", "-c", _COMPILE],
        input=marshal.dumps(dict(sorted(sources.items()))),
        stdout=subprocess.PIPE,
        env={**plain, "PYTHONHASHSEED": "0"},
        check=True,
    )
    head = importlib.util.MAGIC_NUMBER + UNCHECKED
    codes: dict[str, bytes] = marshal.loads(done.stdout)  # noqa: S302 - of our own making
    return {f"{name}c": head + code for name, code in codes.items()}


def unpack(directory: Path) -> None:
    """Write what is imported from the zip below a directory: the Debian package's. Raises UserError
    without pyroute2."""
    for name, content in contents().items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def contents() -> dict[str, bytes]:
    """Name -> content of what the verbs run from. Raises UserError without pyroute2."""
    ours = Path(__file__).parent
    programs = {
        path.relative_to(ours.parent).as_posix(): path.read_bytes() for path in ours.glob(PROGRAMS)
    }
    return {**_files(ENTRIES), **programs, **_described("pyroute2")}


def _files(entries: Iterable[str]) -> dict[str, bytes]:
    """Name -> content of some of ENTRIES and of all that they import."""
    roots = {"balloontrace": Path(__file__).parent, "pyroute2": _pyroute2()}
    files = {
        path.relative_to(roots[package].parent).as_posix(): path.read_bytes()
        for package, path in _modules(roots, entries)
    }
    # A folder in a zip is a package by this alone. pyroute2's own would load all of pyroute2, and
    # is never executed (samplers/delays.py).
    folders = {str(place) for name in files for place in list(PurePosixPath(name).parents)[:-1]}
    return {**{f"{folder}/__init__.py": b"" for folder in folders}, **files}


def _pyroute2() -> Path:
    """Where pyroute2 is, loaded or not. Raises UserError if it is not there."""
    spec = PathFinder.find_spec("pyroute2")
    if spec is None or spec.origin is None:
        raise UserError(
            "pyroute2, which is packed into the bundle, is not installed for this Python",
            "pip install 'balloontrace[bundle]', or apt install python3-pyroute2",
            EXIT_UNSUPPORTED,
        )
    return Path(spec.origin).parent


def _modules(roots: Mapping[str, Path], entries: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """(package, path) of entries and of all that they import, anywhere in a file."""
    waiting, seen = list(entries), set()
    while waiting:
        name = waiting.pop()
        package = name.partition(".")[0]
        if name in seen or package not in roots:
            continue
        seen.add(name)
        path = _path(roots[package].parent, name)
        if path is None:  # the name of something in a module
            continue
        if name == "pyroute2":
            continue
        yield package, path
        waiting.append(name.rpartition(".")[0])
        waiting += _imported(path, name)


def _path(root: Path, module: str) -> Path | None:
    place = root.joinpath(*module.split("."))
    paths = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in paths if path.is_file()), None)


def _imported(path: Path, module: str) -> Iterator[str]:
    """What a file imports: modules, and what may be one."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            origin = resolve_name(name, package)
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _described(distribution: str) -> dict[str, bytes]:
    """What tells the version and the licence of what is packed, where importlib.metadata looks."""
    told = metadata.metadata(distribution)
    version = told["Version"]
    headers = ["Metadata-Version", "Name", "Version", "Author", "Author-email", "License"]
    headers += ["License-Expression"]
    # By `in`: a later Python's, and the package importlib_metadata, raise KeyError.
    lines = [f"{header}: {told[header]}\n" for header in headers if header in told]
    return {f"{distribution}-{version}.dist-info/METADATA": "".join(lines).encode()}


def _licence(tree: Path) -> bytes:
    """The Apache License 2.0: of all that is packed, for pyroute2 is under it, too."""
    try:
        installed = metadata.files("balloontrace") or []
    except metadata.PackageNotFoundError:
        installed = []
    found = [Path(str(file.locate())) for file in installed if file.name == "LICENSE"]
    found += [tree / "LICENSE", _DEBIANS_LICENCE]
    try:
        return next((path for path in found if path.is_file()), tree / "LICENSE").read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the licence to pack: {error}") from None
