"""Download files of a Hub repository into huggingface_hub's cache, and explain failures.

huggingface_hub manages the cache and resumes interrupted downloads. Added here: a busy Hub is asked again, a
download is compared with the Hub's digest, file names that leave their folder are refused, and every error names
repository and file.
"""

import os
import re
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, TypeVar

from minitrain.errors import MinitrainError
from minitrain.storage.files import sha256_of

ANSWER_SECONDS = 10.0  # timeout of the first answer: without a network the cache is used soon
WAITS = (1.0, 2.0, 4.0)  # seconds before a busy Hub is asked again
LONGEST_WAIT = 60.0  # of a Retry-After header
BUSY = (408, 429, 500, 502, 503, 504)
WAY_OUT = "`--model demo --dataset demo`, or `--model demo` with files of your own, needs no network"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Result = TypeVar("Result")


class HubError(MinitrainError):
    """The Hub did not deliver, but the cache may have it. reason: why, in a few words."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A model or dataset (`kind`) of the Hub at a branch, tag or commit; None is the main branch."""

    name: str
    kind: str
    revision: str | None = None

    def contents(self, what: str) -> tuple[str, list[str]]:
        """The commit that the revision points to now, and its file names.

        Raises HubError, which names `what` was wanted, and MinitrainError for a name that leaves its folder.
        """
        from huggingface_hub import HfApi

        where: dict[str, Any] = {"repo_type": self.kind, "revision": self.revision, "timeout": ANSWER_SECONDS}
        info: Any = self.asked(what, lambda: HfApi().repo_info(self.name, **where))
        names = [sibling.rfilename for sibling in info.siblings or ()]
        self.check_names(names)
        return info.sha, names

    def check_names(self, names: Iterable[str]) -> None:
        """Raise MinitrainError for a file name that leaves its folder, on this or another system."""
        for name in names:
            if PureWindowsPath(name).anchor or ".." in PureWindowsPath(name).parts:
                raise MinitrainError(
                    f"{self.name}: lists the file {name!r}, a name that leaves its folder: nothing is downloaded; "
                    "do not trust this repository"
                )

    def fetch(self, name: str, revision: str | None) -> Path:
        """A file's path in the cache, after downloading it if necessary.

        Raises HubError if it cannot be downloaded, MinitrainError if its digest is not the Hub's.
        """
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        kind = self.kind
        known = try_to_load_from_cache(self.name, name, repo_type=kind, revision=revision)
        path = self.asked(name, lambda: Path(hf_hub_download(self.name, name, repo_type=kind, revision=revision)))
        if not isinstance(known, str):
            self._check_digest(path, name)
        return path

    def _check_digest(self, path: Path, name: str) -> None:
        """Compare a Git LFS file with its sha256, which is its name in the cache."""
        if not path.is_symlink() or not _SHA256.fullmatch(expected := path.readlink().name):
            return
        if (found := sha256_of(path)) != expected:
            for copy in (path.resolve(), path.parent / path.readlink(), path):
                copy.unlink(missing_ok=True)
            raise MinitrainError(
                f"{self.name}: {name} came with sha256 {found}, the Hub says {expected}: it was changed on its way "
                "and has been removed; run again, or from another network"
            )

    def cached(self, name: str) -> Path | None:
        """A file's path in the cache, as last downloaded at this revision; does not ask the Hub."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.name, name, revision=self.revision, repo_type=self.kind)
        return Path(found) if isinstance(found, str) else None

    def warn_of_cache(self, commit: str, reason: str) -> None:
        """Warn, once a run, that the Hub failed and the cache is used; not if the user chose to be offline."""
        from huggingface_hub import constants

        if not constants.HF_HUB_OFFLINE and os.environ.get("RANK", "0") == "0":
            warnings.warn(f"{self.name}: {reason}; using commit {commit} from the cache", stacklevel=3)

    def asked(self, what: str, question: Callable[[], Result]) -> Result:
        """Call a function that asks the Hub for `what`, again while the Hub is busy. Raises HubError."""
        from huggingface_hub import errors

        try:
            return _patiently(question)
        except UnicodeEncodeError as error:  # the token is sent in a header
            reason = "the token in use holds characters that no token has"
            raise HubError(f"{self.name}: {reason}; set HF_TOKEN anew or run `hf auth login`", reason) from error
        except (errors.HTTPError, errors.EntryNotFoundError, OSError) as error:
            if isinstance(error, FileNotFoundError) and not isinstance(error, errors.EntryNotFoundError):
                raise  # `datasets` says so of patterns without a match
            raise self._hub_error(what, error) from error

    def _hub_error(self, what: str, error: Exception) -> HubError:
        """What happened to what, and what to do."""
        from huggingface_hub import constants, errors

        token = "use a token that may read it" if saved_token() else "set HF_TOKEN or run `hf auth login`"
        cause = error.__cause__ or error if isinstance(error, errors.LocalEntryNotFoundError) else error
        status = status_of(cause)
        if isinstance(cause, errors.GatedRepoError):
            reason, remedy = f"{what} is gated", f"ask for access on the repository's page, and {token}"
        elif isinstance(cause, errors.RepositoryNotFoundError):
            reason = f"{what} not found: no such {self.kind} on the Hub, or it is private (HTTP {status})"
            remedy = f"check the name; for a private one {token}"
        elif isinstance(cause, errors.RevisionNotFoundError):
            reason = f"the Hub has no revision {self.revision!r} of it"
            remedy = f"pass a branch, tag or whole commit as --{self.kind}_revision"
        elif status in (401, 403):
            reason, remedy = f"the Hub refuses {what} (HTTP {status})", token
        elif status == 404:
            reason, remedy = f"has no file {what}, which minitrain needs", "check the name"
        elif status is not None:
            reason, remedy = f"the Hub keeps answering HTTP {status} for {what}", f"try later; {WAY_OUT}"
        elif isinstance(cause, OSError) and cause.filename is not None:
            reason = f"{cause.filename}: cannot be used as a cache ({cause.strerror})"
            remedy = "set HF_HOME to another folder"
        else:
            how = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else type(cause).__name__
            reason = f"the Hub cannot be reached ({how})"
            return HubError(f"{self.name}: {what} is not in the cache and {reason}; {WAY_OUT}", reason)
        return HubError(f"{self.name}: {reason}; {remedy}", reason)


def commit_of(folder: Path) -> str | None:
    """The commit of a folder in the Hub's cache; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name) else None


def without_token(text: str) -> str:
    """A library's message without the user's token."""
    token = saved_token()
    return text.replace(token, "[token]") if token else text


def saved_token() -> str | None:
    """The user's token, as huggingface_hub takes it: from HF_TOKEN, or from `hf auth login`."""
    from huggingface_hub import get_token

    with suppress(OSError):  # an unreadable token file
        return get_token()
    return None


def status_of(error: BaseException) -> int | None:
    """The HTTP status of the answer that an error is about; None if there was none."""
    response = getattr(error, "response", None)
    return None if response is None else response.status_code


def retry_after(error: BaseException) -> float:
    """The seconds that a busy Hub asks to wait for, at most `LONGEST_WAIT`; 0 if the error says nothing of it."""
    response = getattr(error, "response", None)
    seconds = "" if response is None else response.headers.get("Retry-After", "")
    return min(float(seconds), LONGEST_WAIT) if seconds.isdecimal() else 0.0


def _patiently(question: Callable[[], Result]) -> Result:
    from huggingface_hub import errors

    for wait in WAITS:
        try:
            return question()
        except errors.HfHubHTTPError as error:
            if status_of(error) not in BUSY:
                raise
            time.sleep(max(wait, retry_after(error)))
    return question()
