"""Reads a file with one JSON object a line, which may be far larger than the memory."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minitrain.errors import MinitrainError, naming_os_errors


def json_lines(path: Path, way_out: str = "get the file again") -> Iterator[dict[str, Any]]:
    """The objects of a file with one a line.

    Raises:
        MinitrainError: Names the file and the line, and `way_out`.
    """
    with naming_os_errors(f"{path}: cannot be read"), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise MinitrainError(f"{path}, line {number}: is not valid JSON ({error}); {way_out}") from error
            if not isinstance(record, dict):
                what = f"is no JSON object, as train.py writes them, but a {type(record).__name__}"
                raise MinitrainError(f"{path}, line {number}: {what}; {way_out}")
            yield record
