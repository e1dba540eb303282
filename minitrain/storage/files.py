"""Small files, read strictly and written whole: a reader never sees half of one."""

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from minitrain.errors import MinitrainError, shown


def read_json(path: Path, infinite: bool = False) -> dict[str, Any]:
    """Read a JSON object as strictly as `strict_json`, or with NaN and Infinity where they are `infinite`.

    Raises MinitrainError naming the file and what is wrong with it.
    """
    try:
        value = strict_json(path.read_bytes(), infinite)
    except OSError as error:
        raise MinitrainError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise MinitrainError(f"{path}: {error}; mend it, or get the file again") from error
    if not isinstance(value, dict):
        raise MinitrainError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


class _Fault(ValueError):
    """What is wrong with JSON that Python's own parser takes."""


def strict_json(content: bytes, infinite: bool = False) -> Any:
    """Parse JSON: UTF-8, no key twice, no half of a surrogate pair, which no file can hold, no NaN or Infinity.

    infinite: take these two, as Python's own parser does.

    Raises ValueError, whose message goes on from the name of a file: "is not valid JSON (...)".
    """
    try:
        text = content.decode("utf-8")
        constant = float if infinite else _no_constant
        value = json.loads(text, parse_constant=constant, object_pairs_hook=_no_duplicates)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except _Fault:
        raise
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise _Fault(f"is not valid JSON (it holds {half!r}, half of a surrogate pair)") from error
    except (ValueError, RecursionError) as error:
        raise _Fault(f"is not valid JSON ({error})") from error
    return value


def _no_constant(name: str) -> None:
    raise _Fault(f"holds {name}, which is no JSON number; finite ones are")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise _Fault(f"the key {shown(twice)} stands twice in it")
    return table


def json_text(value: Any) -> str:
    """Indented JSON with a final newline; keys in the order given, text as it is."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@contextmanager
def whole_files(directory: Path, last: str | None = None) -> Iterator[Path]:
    """A temporary folder inside `directory` whose files move into it, one rename each, when the block succeeds.

    A block that fails leaves `directory` as it was. `last` names the file to move after all others. Files get the
    mode that the umask gives, whatever the library that wrote them chose.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".writing-") as temporary:
        yield Path(temporary)
        for file in sorted(Path(temporary).iterdir(), key=lambda file: file.name == last):
            os.chmod(file, 0o666 & ~_umask())
            os.replace(file, directory / file.name)


def is_device(path: str | Path) -> bool:
    """Whether a path is written to or read as it is: a pipe, a terminal, /dev/stdout whatever that stands for."""
    return (
        os.path.exists(path)
        and not os.path.isdir(path)
        and (not os.path.isfile(path) or str(path).startswith("/dev/"))
    )


@contextmanager
def whole_text_file(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 file for writing that appears, or replaces an older one, when the block succeeds.

    A link is followed, and what is no regular file (/dev/stdout, a pipe) is written to as it is.
    """
    if is_device(path):
        with path.open("w", encoding="utf-8") as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    with whole_files(path.parent) as folder, (folder / path.name).open("w", encoding="utf-8") as file:
        yield file


def write_whole(path: Path, text: str) -> None:
    """Write a UTF-8 text file in one rename."""
    with whole_text_file(path) as file:
        file.write(text)


def _umask() -> int:
    mask = os.umask(0)  # it can only be read by setting it
    os.umask(mask)
    return mask


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
