"""--label_map: new names for labels, as pairs, as JSON, or in a .json file; and the pairs of other flags.

Only parsed here; `data/labels/values.py` applies the map to the labels of every split.
"""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minitrain.errors import MinitrainError, shown

EXPECTED = "expected old=new,... (a name with a comma, '=' or outer blanks in double quotes), or a .json file"
_NAME = r'\s*("(?:[^"\\]|\\.)*"|[^",=][^,=]*?)\s*'
_PAIR = re.compile(f"{_NAME}={_NAME}(,|$)")


def read_label_map(given: str | Path | Mapping[Any, Any] | None) -> dict[str, str] | None:
    """Parse a label map, {old label: new name}; None if none is given.

    Args:
        given: `0=good,1=bad`, a JSON object, the name of a .json file, or a dict.

    Raises:
        MinitrainError: The map is malformed, is empty, or names a label twice.

    >>> read_label_map('0=good, " bad"=bad')
    {'0': 'good', ' bad': 'bad'}
    """
    return None if given is None else _checked(read_pairs(given, "--label_map", EXPECTED, '{"old": "new", ...}'))


def read_pairs(
    given: str | Path | Mapping[Any, Any], flag: str, expected: str, expected_json: str
) -> list[tuple[Any, Any]]:
    """Parse a flag of pairs: `a=b,c=d`, a JSON object, the name of a .json file, or a dict.

    Raises:
        MinitrainError: Says what is wrong with the value of `flag` and what was `expected`.
    """
    if isinstance(given, Mapping):
        return list(given.items())
    text = str(given)
    if text.endswith(".json"):
        return _pairs_of_json(_file(text, flag), f"{flag} {text}", expected_json)
    if text.lstrip().startswith("{"):
        return _pairs_of_json(text, flag, expected_json)
    return _pairs(text, flag, expected)


def as_flag(pairs: Mapping[str, str]) -> str:
    """The map as a flag that a shell takes; what is too long for a message belongs in a file.

    >>> print(as_flag({" bad": "bad"}))
    --label_map '" bad"=bad'
    """
    text = shlex.quote(",".join(f"{quoted(old)}={quoted(new)}" for old, new in pairs.items()))
    return f"--label_map {text if len(text) <= 1000 else 'FILE.json'}"


def quoted(name: str) -> str:
    """A name as it stands in a flag of pairs."""
    plain = name.isprintable() and not re.search('^$|^[{ ]| $|[",=]', name)
    return name if plain else json.dumps(name, ensure_ascii=not name.isprintable())


def _file(name: str, flag: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MinitrainError(f"{flag} {name}: is not UTF-8; save it as UTF-8") from error
    except OSError as error:
        raise MinitrainError(f"{flag} {name}: cannot be read ({error.strerror or error})") from error


def _pairs_of_json(text: str, where: str, expected: str) -> list[tuple[Any, Any]]:
    try:
        pairs = json.loads(text, object_pairs_hook=tuple)  # keeps duplicate keys
    except (ValueError, RecursionError) as error:
        raise MinitrainError(f"{where}: is not valid JSON ({error}); write {expected}") from error
    if not isinstance(pairs, tuple):
        raise MinitrainError(f"{where}: is {shown(pairs)}; expected an object, {expected}")
    return list(pairs)


def _pairs(text: str, flag: str, expected: str) -> list[tuple[Any, Any]]:
    pairs: list[tuple[Any, Any]] = []
    at = 0
    while at < len(text) or not pairs:
        found = _PAIR.match(text, at)
        if found is None or (found[3] and found.end() == len(text)):
            raise MinitrainError(f"{flag} {text}: {expected}")
        try:
            old, new = (json.loads(name) if name[0] == '"' else name for name in (found[1], found[2]))
        except ValueError as error:
            raise MinitrainError(f"{flag} {text}: a quoted name is not valid JSON ({error})") from error
        pairs.append((old, new))
        at = found.end()
    return pairs


def _checked(pairs: list[tuple[Any, Any]]) -> dict[str, str]:
    if not pairs:
        raise MinitrainError(f"--label_map: is empty; {EXPECTED}")
    result: dict[str, str] = {}
    for old, new in pairs:
        if not isinstance(old, str | int | float) or not isinstance(new, str | int) or new == "":
            raise MinitrainError(f"--label_map: {shown(old)} becomes {shown(new)}; expected names of classes")
        if str(old) in result:
            raise MinitrainError(f"--label_map: names {shown(str(old))} twice; give it one new name")
        text = str(new)
        result[str(old)] = text.strip() if text.strip().removeprefix("-").isdecimal() else text
    return result
