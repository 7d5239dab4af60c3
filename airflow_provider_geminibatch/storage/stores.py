"""The stores: a local folder, any fsspec file system, and memory."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from airflow_provider_geminibatch.core.errors import StoreUnreadable, StoreUnwritable
from airflow_provider_geminibatch.storage.store import Store, Writer, checked

_TEMPORARY = ".tmp-"
_BUFFER_BYTES = 1 << 20
# Mounts without hard links answer one of these; there ``open("xb")`` is the exclusive create.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class LocalStore:
    """A folder on a disk. Objects appear whole: temporary file, fsync, then link (create) or replace (write)."""

    def __init__(self, root: str, uri: str | None = None) -> None:
        self._root = os.path.abspath(root)
        self.uri = (uri or self._root).rstrip("/") or "/"

    @property
    def root(self) -> str:
        """The folder."""
        return self._root

    def _path(self, path: str) -> str:
        return os.path.join(self._root, *checked(path).split("/"))

    def read(self, path: str) -> bytes | None:
        try:
            with open(self._path(path), "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreUnreadable(f"{self.uri}/{path}", _reason(error)) from error

    def create(self, path: str, data: bytes) -> bool:
        with self._writing(path) as target:
            temporary = self._temporary(target, data)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                if not self._create_exclusively(target, data):
                    return False
            finally:
                os.unlink(temporary)
            _sync_folder(target)
            return True

    @staticmethod
    def _create_exclusively(target: str, data: bytes) -> bool:
        try:
            with open(target, "xb") as file:
                _write_through(file, data)
        except FileExistsError:
            return False
        return True

    def write(self, path: str, data: bytes) -> None:
        with self._writing(path) as target:
            os.replace(self._temporary(target, data), target)
            _sync_folder(target)

    def list(self, folder: str) -> Iterator[str]:
        top = self._path(folder) if folder else self._root
        found = []
        for where, _, names in os.walk(top):
            found += [os.path.join(where, name) for name in names if not name.startswith(_TEMPORARY)]
        yield from sorted(os.path.relpath(name, self._root).replace(os.sep, "/") for name in found)

    def delete(self, path: str) -> None:
        try:
            os.unlink(self._path(path))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise StoreUnwritable(f"{self.uri}/{path}", _reason(error)) from error

    def open(self, path: str) -> BinaryIO:
        try:
            return open(self._path(path), "rb")
        except OSError as error:
            raise StoreUnreadable(f"{self.uri}/{path}", _reason(error)) from error

    @contextmanager
    def writer(self, path: str) -> Iterator[Writer]:
        with self._writing(path) as target:
            handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=os.path.dirname(target))
            # Small, so that blocks go to the disk as they come and only what is small is gathered.
            file = os.fdopen(handle, "wb", buffering=1 << 16)
        try:
            yield _Stream(file.write, f"{self.uri}/{path}")
            with self._writing(path):
                _write_through(file)
                file.close()
                os.replace(temporary, target)
        except BaseException:
            # What is left in the buffer of a full disk cannot be flushed, and need not be.
            with contextlib.suppress(OSError):
                file.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        _sync_folder(target)

    @contextmanager
    def _writing(self, path: str) -> Iterator[str]:
        target = self._path(path)
        try:
            _make_folder(os.path.dirname(target))
            yield target
        except OSError as error:
            raise StoreUnwritable(f"{self.uri}/{path}", _reason(error)) from error

    @staticmethod
    def _temporary(target: str, data: bytes) -> str:
        handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=os.path.dirname(target))
        try:
            with os.fdopen(handle, "wb") as file:
                _write_through(file, data)
        except BaseException:
            os.unlink(temporary)
            raise
        return temporary


def _write_through(file: BinaryIO, data: bytes = b"") -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _make_folder(folder: str) -> None:
    """A folder and those above it, each of them durable before the next."""
    if os.path.isdir(folder):
        return
    _make_folder(os.path.dirname(folder))
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
    _sync_folder(folder)


def _sync_folder(target: str) -> None:
    """A new name is durable only when its folder is; some systems cannot sync one, and then the file's own sync has to do."""
    with contextlib.suppress(OSError):
        handle = os.open(os.path.dirname(target), os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class _Stream:
    """The writing end of an object: what fails here is the store's; what else fails in the body of a ``with`` is not."""

    def __init__(self, write: Callable[[bytes], object], uri: str) -> None:
        self._write, self._uri = write, uri

    def write(self, data: bytes, /) -> object:
        try:
            return self._write(data)
        except Exception as error:
            raise StoreUnwritable(self._uri, _reason(error)) from error


class FsspecStore:
    """A folder of any fsspec file system (S3, GCS, Azure …). One complete PUT per object, exclusive creates by mode ``xb``.

    The implementations raise their client libraries' own errors, which share no base class; that is why this class, the one
    place that talks to them, catches ``Exception``. Nothing of ours runs inside those blocks.
    """

    def __init__(self, fs: Any, root: str, uri: str) -> None:
        self._fs, self._root, self.uri = fs, root.rstrip("/"), uri.rstrip("/")

    @property
    def file_system(self) -> Any:
        """The fsspec file system."""
        return self._fs

    @property
    def root(self) -> str:
        """The folder in it."""
        return self._root

    def _path(self, path: str) -> str:
        return f"{self._root}/{checked(path)}"

    def read(self, path: str) -> bytes | None:
        target = self._path(path)
        try:
            return bytes(self._fs.cat_file(target))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:
            raise StoreUnreadable(f"{self.uri}/{path}", _reason(error)) from error

    def create(self, path: str, data: bytes) -> bool:
        target = self._path(path)
        try:
            return self._put_new(target, data)
        except Exception as error:
            # A conflict that the client library does not name, or a lost reply: what lies there now decides.
            there = self.read(path)
            if there is None:
                raise StoreUnwritable(f"{self.uri}/{path}", _reason(error)) from error
            return there == data

    def write(self, path: str, data: bytes) -> None:
        target = self._path(path)
        try:
            self._put(target, data, "wb")
        except Exception as error:
            raise StoreUnwritable(f"{self.uri}/{path}", _reason(error)) from error

    def _reader(self, target: str) -> Any:
        return self._fs.open(target, "rb")

    def _put_new(self, target: str, data: bytes) -> bool:
        try:
            self._put(target, data, "xb")
        except FileExistsError:
            return False
        return True

    def _put(self, target: str, data: bytes, mode: str) -> None:
        # A folder is only a name on an object store; file systems need it made.
        self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        file = self._fs.open(target, mode)
        try:
            file.write(data)
            file.close()
        except BaseException:
            _abandon(file)
            raise

    def list(self, folder: str) -> Iterator[str]:
        top = self._path(folder) if folder else self._root
        try:
            self._fs.invalidate_cache()
            found = sorted(self._fs.find(top))
            # Those of a provider's own making keep what they listed, sizes too, and would answer the next open from it.
            self._fs.invalidate_cache()
        except FileNotFoundError:
            return
        except Exception as error:
            raise StoreUnreadable(f"{self.uri}/{folder}", _reason(error)) from error
        below = self._fs._strip_protocol(self._root).rstrip("/") + "/"  # noqa: SLF001 - fsspec's own way to say how it names
        yield from (name[len(below) :] if name.startswith(below) else name.lstrip("/") for name in found)

    def delete(self, path: str) -> None:
        target = self._path(path)
        try:
            self._fs.rm_file(target)
        except FileNotFoundError:
            return
        except Exception as error:
            raise StoreUnwritable(f"{self.uri}/{path}", _reason(error)) from error

    def open(self, path: str) -> BinaryIO:
        target = self._path(path)
        try:
            file = self._reader(target)
        except Exception as error:
            raise StoreUnreadable(f"{self.uri}/{path}", _reason(error)) from error
        # Bare, the files of object stores ask the service for each line (gcsfs: a call a line).
        return cast(BinaryIO, file if isinstance(file, io.BufferedIOBase) else io.BufferedReader(file, _BUFFER_BYTES))

    @contextmanager
    def writer(self, path: str) -> Iterator[Writer]:
        target = self._path(path)
        try:
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            file = self._fs.open(target, "wb")
        except Exception as error:
            raise StoreUnwritable(f"{self.uri}/{path}", _reason(error)) from error
        try:
            yield _Stream(file.write, f"{self.uri}/{path}")
        except BaseException:
            _abandon(file)
            raise
        try:
            file.close()
        except Exception as error:
            _abandon(file)
            raise StoreUnwritable(f"{self.uri}/{path}", _reason(error)) from error


def _abandon(file: Any) -> None:
    """Drop an unfinished upload. Closing would commit the half that was written, and so would the finalizer."""
    # Best effort: what is left is an unfinished upload, never an object.
    with contextlib.suppress(Exception):
        file.discard()
    with contextlib.suppress(AttributeError):
        file.closed = True


class MemoryStore:
    """Objects in this process: for tests and for trying things out. ``memory://name`` gives the same store each time."""

    _named: dict[str, MemoryStore] = {}  # noqa: RUF012 - the registry is the point

    def __init__(self, uri: str = "memory://store") -> None:
        self.uri = uri.rstrip("/")
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @classmethod
    def named(cls, uri: str) -> MemoryStore:
        return cls._named.setdefault(uri.rstrip("/"), cls(uri))

    def read(self, path: str) -> bytes | None:
        return self._objects.get(checked(path))

    def create(self, path: str, data: bytes) -> bool:
        with self._lock:
            if checked(path) in self._objects:
                return False
            self._objects[path] = data
            return True

    def write(self, path: str, data: bytes) -> None:
        self._objects[checked(path)] = data

    def list(self, folder: str) -> Iterator[str]:
        below = checked(folder) + "/" if folder else ""
        yield from sorted(path for path in tuple(self._objects) if path.startswith(below))

    def delete(self, path: str) -> None:
        self._objects.pop(checked(path), None)

    def open(self, path: str) -> BinaryIO:
        data = self.read(path)
        if data is None:
            raise StoreUnreadable(f"{self.uri}/{path}", "it is not there")
        return io.BytesIO(data)

    @contextmanager
    def writer(self, path: str) -> Iterator[Writer]:
        buffer = io.BytesIO()
        yield buffer
        self.write(path, buffer.getvalue())


def open_store(uri: str, **options: Any) -> Store:
    """The store at a path or URI. ``options`` go to the fsspec file system (credentials, endpoint).

    Raises StoreUnreadable for a scheme whose file system is not installed.
    """
    if uri.startswith("memory://"):
        return MemoryStore.named(uri)
    if "://" not in uri or uri.startswith("file://"):
        return LocalStore(uri.removeprefix("file://"), uri)
    try:
        fs, root = _file_system(uri, options)
    except (ImportError, ValueError) as error:
        raise StoreUnreadable(uri, _reason(error)) from error
    return store_on(fs, root, uri)


def store_on(fs: Any, root: str, uri: str) -> FsspecStore:
    """The store in a folder of an fsspec file system."""
    from airflow_provider_geminibatch.storage.google_store import SCHEMES, GoogleStore

    named = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    return (GoogleStore if named & set(SCHEMES) else FsspecStore)(fs, root, uri)


def _file_system(uri: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    from airflow_provider_geminibatch.storage.google_store import google_file_system, is_google, path_of

    if is_google(uri):
        return google_file_system(**options), path_of(uri)
    import fsspec  # not at Dag-parse time

    fs, root = fsspec.core.url_to_fs(uri, use_listings_cache=False, **options)
    return fs, root


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
