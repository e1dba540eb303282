"""Reads a file with one JSON object a line, which may be far larger than the memory."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minitrain.errors import MinitrainError


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file with one a line. Raises MinitrainError naming the file and the line."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise MinitrainError(_damaged(path, number, f"is not valid JSON ({error})")) from error
            if not isinstance(record, dict):
                raise MinitrainError(_damaged(path, number, f"is a {type(record).__name__}, not an object"))
            yield record


def _damaged(path: Path, line: int, what: str) -> str:
    return f"{path}, line {line}: {what}; get the file again, or take it away to go without what it says"
