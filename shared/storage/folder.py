"""A directory tree that keys cannot leave. Everything here blocks; `local.py` calls it in threads.

Each directory on the way is opened by itself and symbolic links are not followed, so nobody who can place
a link below the root can point a key at a file elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.kernel.errors import Conflict, NotFound, Refused, SpoolError, Unavailable
from shared.kernel.keys import check_key

OWN_PREFIX = ".spool"  # names that start so are the store's own: no key may have them, no walk shows them
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_Placing = Callable[[int, str], None]

_ATTEMPTS = 5  # a directory that another writer keeps removing as empty, just before we use it


class Folder:
    """The objects below one directory, by key."""

    def __init__(self, root: Path) -> None:
        """Take the directory as it is; it exists."""
        self.root = root

    def status(self, key: str) -> os.stat_result:
        """Describe the object."""
        with self._parent(key) as (directory, name):
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a regular file")
            return found

    def open(self, key: str) -> int:
        """Open the object for reading and return its descriptor."""
        with self._parent(key) as (directory, name):
            # Without O_NONBLOCK a named pipe would hold the thread until somebody writes.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=directory)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise FileNotFoundError(errno.ENOENT, "not a regular file")
            return descriptor

    def link(self, source: Path, key: str) -> None:
        """Give the finished file the name `key`, where nothing is yet. Raises Conflict."""
        self._place(key, lambda directory, name: os.link(source, name, dst_dir_fd=directory))

    def replace(self, source: Path, key: str) -> None:
        """Give the finished file the name `key`, instead of what is there. Raises Conflict."""
        self._place(key, lambda directory, name: os.replace(source, name, dst_dir_fd=directory))

    def remove(self, key: str) -> None:
        """Remove the object, and the directories that it leaves empty. One that is not there is fine."""
        with suppress(FileNotFoundError, NotADirectoryError), self._parent(key) as (directory, name):
            if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                return
            os.unlink(name, dir_fd=directory)
            os.fsync(directory)
            self._prune(key)

    def walk(self, prefix: str, after: str) -> Iterator[tuple[str, os.stat_result]]:
        """Yield every object below `prefix` whose key sorts after `after`, in the order of their UTF-8."""
        return self._walk("", prefix, after.encode())

    def _walk(self, above: str, prefix: str, after: bytes) -> Iterator[tuple[str, os.stat_result]]:
        for path, entry in self._entries(above):
            if entry.is_dir(follow_symlinks=False):
                below = path.encode()
                on_the_way = path.startswith(prefix) or prefix.startswith(path)
                if on_the_way and (below > after or after.startswith(below)):
                    yield from self._walk(path, prefix, after)
            elif path.startswith(prefix) and path.encode() > after:
                with suppress(FileNotFoundError):  # removed since it was listed
                    yield path, entry.stat(follow_symlinks=False)

    def _entries(self, above: str) -> list[tuple[str, os.DirEntry[str]]]:
        """List what may be a key, or may hold some, in the order in which a flat store sorts keys."""
        try:
            with os.scandir(self.root / above) as entries:
                # A directory sorts as its keys do, with the slash: `a-b` comes before `a/b`.
                named = [(f"{above}{entry.name}{_slash(entry)}", entry) for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted((pair for pair in named if _is_key(pair)), key=lambda pair: pair[0].encode())

    def _place(self, key: str, place: _Placing) -> None:
        for _ in range(_ATTEMPTS):
            try:
                with self._parent(key, create=True) as (directory, name):
                    place(directory, name)
                    os.fsync(directory)
                return
            except FileNotFoundError:
                continue  # another writer's delete took the empty directory away between the two calls
            except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                if self._yields(key):
                    continue
                raise Conflict(self._what_stands_at(key)) from error
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTEMPTY):
                    raise Conflict(self._what_stands_at(key)) from error
                raise
        raise Unavailable(
            f"{key} cannot be placed: its upload was aborted, or its directory vanishes each time"
        )

    def _yields(self, key: str) -> bool:
        """Remove the empty directory that stands at `key`, if that is what stands there."""
        try:
            with self._parent(key) as (directory, name):
                os.rmdir(name, dir_fd=directory)
        except OSError:
            return False
        return True

    def _what_stands_at(self, key: str) -> str:
        for parent in reversed(Path(key).parents[:-1]):
            if not stat.S_ISDIR(os.lstat(self.root / parent).st_mode):
                return f"{parent} is an object or a link, so nothing can be stored below it"
        if (self.root / key).is_dir():
            return f"there are objects below {key}/, so a directory cannot hold an object of that name"
        return f"{key} is there already"

    def _prune(self, key: str) -> None:
        # A flat store has no directories: once `a/b` is gone, `a` is a free name again.
        for parent in list(Path(key).parents)[:-1]:
            try:
                (self.root / parent).rmdir()
            except OSError:
                return

    @contextmanager
    def _parent(self, key: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """Lend the descriptor of the directory that holds `key`, and the name in it."""
        *above, name = key.split("/")
        directory = os.open(self.root, _DIRECTORY)
        try:
            for segment in above:
                below = _descend(directory, segment, create=create)
                os.close(directory)
                directory = below
            yield directory, name
        finally:
            os.close(directory)


def _descend(directory: int, segment: str, *, create: bool) -> int:
    try:
        return os.open(segment, _DIRECTORY, dir_fd=directory)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):
        os.mkdir(segment, dir_fd=directory)
        os.fsync(directory)  # or the whole branch may be missing after a power cut
    return os.open(segment, _DIRECTORY, dir_fd=directory)


def _slash(entry: os.DirEntry[str]) -> str:
    return "/" if entry.is_dir(follow_symlinks=False) else ""


def _is_key(named: tuple[str, os.DirEntry[str]]) -> bool:
    path, entry = named
    if entry.name.startswith(OWN_PREFIX) or entry.is_symlink():
        return False
    if not (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)):
        return False
    try:
        check_key(path.removesuffix("/"))
    except ValueError:
        return False  # no door would let such a key in, so it is not shown either
    return True


def etag(status: os.stat_result) -> str:
    """Return what changes with the bytes: when they were written, to the nanosecond, and how many there are.

    The inode is left out on purpose: a copy of the data directory that keeps the times keeps the ETags.
    """
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


@contextmanager
def told(subject: str) -> Iterator[None]:
    """Turn the errors of the operating system into ours; `subject` says what they are about."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise NotFound(f"{subject} does not exist") from error
    except OSError as error:
        raise _explained(subject, error) from error


def _explained(subject: str, error: OSError) -> SpoolError:
    reason = os.strerror(error.errno) if error.errno else "input or output failed"
    if error.errno == errno.ELOOP:
        return NotFound(f"{subject} is a symbolic link, which is not followed")
    if error.errno == errno.ENAMETOOLONG:
        return Refused(f"{subject} is too long a name for this file system", field="key")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(f"{subject}: {reason}", hint="free some space where the recordings are kept")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Unavailable(f"{subject}: {reason}", hint="let Spool's user read and write the directory")
    return Unavailable(f"{subject}: {reason}")
