"""Upload files to a model repository of the Hub in one commit, and explain failures.

huggingface_hub sends the large files first and then makes the commit: until then the repository is as it was, and
what has arrived is not sent again. Added here: what can be known before hours of training is checked before them, a
busy or unreachable Hub is asked again, and the names in the commit are compared with those that were sent.

Source of the requests: huggingface_hub 2.4, hf_api.py and _commit_api.py. Its upload_folder makes several commits
where hf_xet is installed, so create_commit is called.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from minitrain.errors import MinitrainError, cut, shown
from minitrain.storage.download import BUSY, retry_after, saved_token, status_of, without_token

WAITS = (2.0, 8.0, 30.0)  # seconds before an upload is tried again
LOGIN = "run `hf auth login`, or set HF_TOKEN, with a token that may write"
_XET = re.compile(r"hf_xet|xet-\w+-token|xethub")
Result = TypeVar("Result")


class UploadError(MinitrainError):
    """The Hub did not take an upload; says why, and what to do about it."""


def check_upload(name: str, private: bool = False) -> str:
    """Check, as far as that leaves no trace on the Hub, that a repository can be uploaded to; return OWNER/NAME.

    Args:
        name: OWNER/NAME, or NAME for one of the user whose token it is.
        private: Whether nobody else may see it.

    Raises:
        MinitrainError: It is no name, there is no network or no token, the token may not write there, or the
            repository exists and is public although `private` is asked for.
    """
    from huggingface_hub import HfApi, constants, errors
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except errors.HFValidationError as error:
        expected = "OWNER/NAME or NAME, of letters, digits, '-', '_' and '.', as in me/reviews"
        raise MinitrainError(f"{shown(name)}: is no name of a repository; expected {expected}") from error
    if constants.HF_HUB_OFFLINE:
        raise UploadError(f"{name}: HF_HUB_OFFLINE is set, so nothing can be uploaded: unset it")
    if not saved_token():
        raise UploadError(f"{name}: to upload, the Hub wants to know who you are: {LOGIN}")
    user: dict[str, Any] = _patiently(name, lambda: HfApi().whoami())
    if (user.get("auth") or {}).get("accessToken", {}).get("role") == "read":
        raise UploadError(f"{name}: the token of {user['name']} may only read: {LOGIN}")
    owner = name.split("/")[0] if "/" in name else user["name"]
    own = [user["name"], *(group["name"] for group in user.get("orgs") or ())]
    if owner.lower() not in [each.lower() for each in own]:
        raise UploadError(
            f"{name}: the token is of {user['name']}, who cannot write to {owner}; expected one of "
            f"{', '.join(own)} before the slash, or another token"
        )
    full_name = f"{owner}/{name.split('/')[-1]}"
    if private:
        _patiently(name, lambda: _check_private(full_name))
    return full_name


def upload(
    name: str,
    files: Mapping[str, Path | bytes],
    title: str,
    private: bool = False,
    log: Callable[[str], object] = lambda line: None,
) -> str:
    """Upload files, replacing those of their names, and return the address of the commit.

    The repository is made if it is missing; its other files stay.

    Args:
        name: OWNER/NAME.
        private: Whether nobody else may see it. A repository that exists stays as public or private as it is.
        files: Contents by name in the repository.
        title: Of the commit.
        log: Is told of each attempt that failed.

    Raises:
        UploadError: It failed for good, or too often.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    def attempt() -> str:
        api = HfApi()
        api.create_repo(name, private=private or None, exist_ok=True)
        if private:
            _check_private(name)
        operations = [CommitOperationAdd(path_in_repo=file, path_or_fileobj=at) for file, at in files.items()]
        commit = api.create_commit(name, operations, commit_message=title)
        if missing := files.keys() - set(api.list_repo_files(name, revision=commit.oid)):
            raise UploadError(
                f"{name}: took no {', '.join(sorted(missing))}: does its .gitignore leave that out? Remove it "
                "there, and upload again"
            )
        return str(commit.commit_url)

    return _patiently(name, attempt, log)


def _check_private(full_name: str) -> None:
    """Raise UploadError for a repository that is public."""
    from huggingface_hub import HfApi, errors

    try:
        public = not HfApi().model_info(full_name).private
    except errors.RepositoryNotFoundError:
        return  # there is none yet
    if public:
        raise UploadError(
            f"{full_name}: is there already and public, not private; make it private in its settings on the "
            "Hub, or choose another name"
        )


def _patiently(
    name: str, question: Callable[[], Result], log: Callable[[str], object] = lambda line: None
) -> Result:
    """Ask the Hub, again if what failed may pass. Raises UploadError."""
    from huggingface_hub import errors

    for number, wait in enumerate((*WAITS, None), start=2):
        try:
            return question()
        except MinitrainError:
            raise
        # RuntimeError: of a large file over plain HTTP; hf_xet raises that, ConnectionError and others of OSError.
        except (errors.HTTPError, OSError, RuntimeError, ValueError) as error:
            reason, passes = _explain(error)
            if wait is None or not passes:
                raise UploadError(f"{name}: nothing was uploaded: {reason}") from error
            seconds = max(wait, *map(retry_after, _chain(error)))
            log(f"upload   {reason}; attempt {number} of {len(WAITS) + 1} in {seconds:.0f} s")
            time.sleep(seconds)
    raise AssertionError  # the last attempt returns or raises


def _explain(error: BaseException) -> tuple[str, bool]:
    """What happened, with what to do about it; and whether it may pass."""
    from huggingface_hub import errors

    chain = list(_chain(error))
    said = cut(without_token(": ".join(dict.fromkeys(str(each) for each in (error, chain[-1])))))
    status = next(filter(None, map(status_of, chain)), None)
    if status in BUSY:
        return f"the Hub answers HTTP {status}", True
    if status in (401, 403):
        return f"the token may not write there (HTTP {status}): {LOGIN}", False
    if status is not None:
        return f"the Hub refuses it (HTTP {status}): {cut(without_token(str(error)))}", False
    if isinstance(error, UnicodeEncodeError):  # the token is sent in a header
        return f"the token in use holds characters that no token has: {LOGIN}", False
    if isinstance(error, json.JSONDecodeError):  # the check of README.md reads a busy Hub's answer as JSON
        return "the Hub's answer is no JSON", True
    if _XET.search(f"{type(error).__module__} {said}"):  # hf_xet's errors have no status, only a text
        refused = isinstance(error, PermissionError) or "client error" in said
        return f"{said}; HF_HUB_DISABLE_XET=1 in the environment uploads without hf_xet", not refused
    if any(isinstance(each, errors.HTTPError | ConnectionError | TimeoutError) for each in chain):
        return f"the connection to the Hub failed ({type(chain[-1]).__name__})", True
    return said, False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__
