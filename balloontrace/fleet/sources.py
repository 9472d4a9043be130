# SPDX-License-Identifier: Apache-2.0
"""Where recordings are: files, directories and patterns here, and objects in a store.

A store is opened from its URL alone, by whoever reads from it: credentials come from that process's
own environment or role, and are never passed on. What is on this disk needs no obstore.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

from balloontrace.errors import EXIT_UNSUPPORTED, EXIT_USAGE, UserError
from balloontrace.escape import visible

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SUFFIX = ".btrace"
"""Of what counts as a recording in a directory, or below a prefix."""

_STORES = ("s3", "gs", "az")
"""Schemes; the word after it is a bucket, or a container of the account that the environment
names."""

_HTTP = ("http", "https")

_WILD = re.compile(r"[*?\[]")

_AS_IT_IS = "/ !$&'()*+,-.:;=@_~"
"""Characters of a key that are not quoted; a space is no trouble in a name."""

_REASON_CHARS = 300
"""Of what a store says is wrong."""


class Unreachable(UserError):
    """A file could not be fetched, or is no longer the one that was found. It may be next time."""


@dataclass(frozen=True)
class Source:
    """One file. name: fit to print, and enough to find it again; version: its ETag, or when it was
    written; written: that day, UTC."""

    name: str
    size_bytes: int
    version: str
    written: date


class _Place(NamedTuple):
    """A URL taken apart. store: as far as the bucket; key: in it, perhaps a pattern."""

    store: str
    key: str


def found(words: Iterable[str]) -> list[Source]:
    """The recordings that `words` name, each once, in the order of their names.

    A word is a file, a directory (all of *.btrace in it, and below), a pattern (* ? [], and ** for
    any directories), or a URL of one of these. Raises UserError if one names nothing.
    """
    all_found: dict[str, Source] = {}
    for word in words:
        sources = list(_objects(word) if "://" in word else _files(word))
        if not sources:
            raise UserError(f"there is no recording at {visible(word)}", "", EXIT_USAGE)
        all_found |= {source.name: source for source in sources}
    return [all_found[name] for name in sorted(all_found)]


def named(name: str) -> Source:
    """What a dataset calls so, as it is now. Raises Unreachable if it is not there."""
    if _is_here(name):
        path = path_of(name)
        try:
            return _described(path, os.stat(path))
        except OSError as error:
            raise Unreachable(f"cannot read {visible(path)}: {error.strerror}") from None
    _require()
    place = _taken_apart(name)
    with _failures(visible(name), Unreachable):
        import obstore

        return _object(place.store, obstore.head(_store(place.store), unquote(place.key)))


@contextlib.contextmanager
def local(source: Source) -> Iterator[str]:
    """The path of a file with the content of `source`, as long as the block lasts.

    Raises Unreachable if it cannot be fetched, or has changed since it was found.
    """
    if not _is_here(source.name):
        with _fetched(source) as path:
            yield path
        return
    path = path_of(source.name)
    _check(source, path)
    yield path
    _check(source, path)


# Files


_FILE_URL = "file://"


def _is_here(name: str) -> bool:
    """Whether what a dataset calls so is on this machine."""
    return name.startswith(("/", _FILE_URL))


def name_of(path: str) -> str:
    """The path without symbolic links, so that one file has one name, if that is fit to print;
    else its file URL."""
    path = os.path.realpath(path)
    return path if visible(path) == path else _FILE_URL + quote(os.fsencode(path))


def path_of(name: str) -> str:
    """The path of what `name_of` named."""
    if name.startswith(_FILE_URL):
        return unquote(name.removeprefix(_FILE_URL), errors="surrogateescape")
    return name


def _files(word: str) -> Iterator[Source]:
    """What a word names on this machine."""
    if os.path.lexists(word) or not _WILD.search(word):
        try:
            mode = os.stat(word).st_mode
        except OSError as error:
            raise UserError(
                f"cannot read {visible(word)}: {error.strerror}", "", EXIT_USAGE
            ) from None
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise UserError(f"{visible(word)} is neither file nor directory", "", EXIT_USAGE)
        paths: Iterable[str] = _below(word) if stat.S_ISDIR(mode) else [word]
    else:
        paths = (
            path
            for match in glob.iglob(word, recursive=True)
            for path in (_below(match) if os.path.isdir(match) else [match])
        )
    for path in paths:
        try:
            described = os.stat(path)
        except FileNotFoundError:  # it went meanwhile
            continue
        except OSError as error:
            raise _refused(error) from None
        if stat.S_ISREG(described.st_mode):
            yield _described(path, described)


def _refused(error: OSError) -> UserError:
    """What is not looked into would be left out without a word."""
    where = visible(os.fsdecode(error.filename or "a directory"))
    return UserError(f"cannot look into {where}: {error.strerror}", "", EXIT_USAGE)


def _below(directory: str) -> Iterator[str]:
    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise _refused(error)

    for where, _, names in os.walk(directory, onerror=fail):
        yield from (os.path.join(where, name) for name in names if name.endswith(SUFFIX))


def _described(path: str, described: os.stat_result) -> Source:
    seconds = described.st_mtime_ns // 1_000_000_000
    return Source(name_of(path), described.st_size, f"mtime:{described.st_mtime_ns}", _day(seconds))


def _day(seconds: float) -> date:
    """Of a file's time; one that cannot be is the first there is."""
    try:
        return datetime.fromtimestamp(seconds, UTC).date()
    except (OverflowError, ValueError, OSError):
        return date(1970, 1, 1)


def _check(source: Source, path: str) -> None:
    try:
        with open(path, "rb") as file:
            now = _described(path, os.fstat(file.fileno()))
    except OSError as error:
        raise Unreachable(f"cannot read it: {error.strerror}") from None
    if (now.size_bytes, now.version) != (source.size_bytes, source.version):
        raise Unreachable("it changed while it was read")


# Objects


def _objects(url: str) -> Iterator[Source]:
    """What a URL names. Raises UserError if the store does not answer."""
    _require()
    place = _taken_apart(url)
    with _failures(visible(url), UserError):
        store = _store(place.store)
        wild = None if place.store.startswith(_HTTP) else _WILD.search(place.key)
        if wild is None and place.key and not place.key.endswith("/"):
            import obstore

            http = place.store.startswith(_HTTP)
            with contextlib.suppress(*[] if http else [FileNotFoundError]):
                key = unquote(place.key) if http else place.key
                yield _object(place.store, obstore.head(store, key))
                return
        matches = _matches(place.key if wild else f"{place.key.rstrip('/')}/**{SUFFIX}".lstrip("/"))
        prefix = place.key[: wild.start()] if wild else place.key
        prefix = prefix.rpartition("/")[0] if wild else prefix.rstrip("/")
        for batch in store.list(prefix=prefix or None):
            for meta in batch:
                if matches(meta["path"]):
                    yield _object(place.store, meta)


def _require() -> None:
    from importlib.util import find_spec

    if find_spec("obstore") is None:
        raise UserError(
            "recordings in a store need obstore, which is not installed here",
            "pip install 'balloontrace[fleet]'",
            EXIT_UNSUPPORTED,
        )


def _taken_apart(url: str) -> _Place:
    """Raises UserError for a URL that is none of ours, or holds what must not be kept."""
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme not in _STORES and scheme not in _HTTP:
        known = ", ".join((*_STORES, *_HTTP))
        raise UserError(f"no store is known by {visible(scheme)}://", f"known: {known}", EXIT_USAGE)
    if "@" in bucket or (scheme in _HTTP and "?" in rest):
        raise UserError(
            "credentials do not belong in a URL, which is kept in the dataset",
            "let the environment or the role of this machine have them",
            EXIT_USAGE,
        )
    if not bucket:
        raise UserError(f"{visible(url)} names no store", "", EXIT_USAGE)
    return _Place(f"{scheme}://{bucket}", key)


@functools.cache
def _store(url: str) -> ObjectStore:
    """The store, with what this process's environment says."""
    from obstore.store import HTTPStore, from_url

    if url.startswith(_HTTP):
        options: Any = {"allow_http": True}  # http:// was asked for by name
        return HTTPStore.from_url(url, client_options=options)
    return from_url(url)


def _object(store: str, meta: Any) -> Source:
    """A source of what a store says of an object."""
    written = meta["last_modified"]
    etag = meta.get("e_tag")
    version = f"etag:{etag.strip(chr(34))}" if etag else f"written:{written.isoformat()}"
    name = f"{store}/{quote(meta['path'], safe=_AS_IT_IS)}"
    return Source(name, int(meta["size"]), visible(version), written.astimezone(UTC).date())


def _matches(pattern: str) -> Any:
    """Whether a key is one of a pattern's: * and ? within a directory, ** across them."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^]]+\])", pattern)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    said = "".join(
        known.get(part) or (_class(part) if number % 2 else re.escape(part))
        for number, part in enumerate(parts)
    )
    try:
        return re.compile(said, re.DOTALL).fullmatch
    except re.error:
        raise UserError(f"{visible(pattern)} is not a pattern", "", EXIT_USAGE) from None


def _class(part: str) -> str:
    inside = part[1:-1].replace("\\", r"\\").replace("[", r"\[")
    inside = inside.replace("^", r"\^")
    return f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"


@contextlib.contextmanager
def _fetched(source: Source) -> Iterator[str]:
    """A copy of an object: that version of it, and no more than its size."""
    import obstore

    place = _taken_apart(source.name)
    with contextlib.ExitStack() as kept:
        with _failures("it", Unreachable):
            # Without a name: whatever ends this process, nothing of it stays.
            file = kept.enter_context(tempfile.TemporaryFile())
            answer = obstore.get(_store(place.store), unquote(place.key))
            same = _object(place.store, answer.meta)
            if (same.size_bytes, same.version) != (source.size_bytes, source.version):
                raise Unreachable("it changed since it was found")
            for chunk in answer.stream():
                file.write(chunk)
                if file.tell() > source.size_bytes:
                    raise Unreachable("more comes than the store said")
            file.flush()
        if file.tell() != source.size_bytes:
            raise Unreachable("less came than the store said")
        yield f"/proc/self/fd/{file.fileno()}"


@contextlib.contextmanager
def _failures(what: str, kind: type[UserError]) -> Iterator[None]:
    """What a store refuses, as one line."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        # What comes after the first line is for who debugs obstore.
        said = visible(" ".join(str(error).partition("\n")[0].split())[:_REASON_CHARS])
        raise kind(f"cannot read {what}: {said or type(error).__name__}") from None
