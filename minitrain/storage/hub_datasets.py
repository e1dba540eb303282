"""Datasets of the Hub, or of its cache: we fetch the checked files, and the `datasets` library reads them.

A file outside of the dataset's own repository is refused.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minitrain.errors import MinitrainError, cut
from minitrain.storage.download import HubError, Repository, without_token

CARD = "README.md"  # declares which files belong to which subset

# (dataset card, file names by split): raises MinitrainError for files that are in the wrong split.
CheckFiles = Callable[[Path | None, Mapping[str, Sequence[str]]], None]


def load_hub_dataset(
    name: str, subset: str | None, revision: str | None, check_files: CheckFiles
) -> tuple[str, Any, bool]:
    """Download a dataset's subset, or take it from the cache if the Hub fails.

    Args:
        check_files: Called before anything but the card is downloaded.

    Returns:
        The commit, the splits (a `DatasetDict`), and whether they were read from text files (CSV, JSON).
    """
    import datasets

    repository = Repository(name=name, kind="dataset", revision=revision)
    what = "the dataset" if subset is None else f"the dataset's {subset}"
    try:
        commit, names = repository.contents(what)
        card = repository.fetch(CARD, commit) if CARD in names else None
        builder = repository.asked(what, lambda: datasets.load_dataset_builder(name, subset, revision=commit))
        if not Path(builder.cache_dir).is_dir():  # not prepared yet
            for file in _data_files(builder, repository, commit, card, check_files):
                repository.fetch(file, commit)
            builder.download_and_prepare()
        if card is not None:  # records in the cache that the branch is at this commit
            repository.fetch(CARD, revision)
    except HubError as error:
        builder = _cached_builder(repository, subset, error)
        repository.warn_of_cache(builder.hash, error.reason)
    return builder.hash, builder.as_dataset(), builder.name in ("csv", "json")


def first_lines(error: BaseException) -> str:
    """The start of an error message of `datasets`, without the 200 suffixes it lists."""
    text = " ".join(str(error).splitlines()[:2])
    return cut(without_token(text.split(" with any supported extension")[0])) or type(error).__name__


def _data_files(
    builder: Any, repository: Repository, commit: str, card: Path | None, check_files: CheckFiles
) -> list[str]:
    """The names of a subset's files in the repository."""
    inside = f"hf://datasets/{repository.name}@{commit}/"
    files: dict[str, list[str]] = {}
    for split, addresses in (builder.config.data_files or {}).items():
        for address in addresses:
            if not address.startswith(inside):
                raise MinitrainError(
                    f"{repository.name}: its {CARD} names {address!r}, a file outside of the repository, which is "
                    "not read; download it and pass it as --train_file"
                )
        files[str(split)] = [address.removeprefix(inside) for address in addresses]
    check_files(card, files)
    names = [name for part in files.values() for name in part]
    repository.check_names(names)
    return names


def _cached_builder(repository: Repository, subset: str | None, error: HubError) -> Any:
    """The builder of a dataset prepared earlier; raises `error` if there is none of the requested revision."""
    import datasets

    with _offline_datasets():
        try:
            builder = datasets.load_dataset_builder(repository.name, subset)
        except Exception as nothing:  # its errors share no type
            raise error from nothing
    card = repository.cached(CARD)
    if repository.revision not in (None, builder.hash) and (card is None or card.parent.name != builder.hash):
        raise error
    return builder


@contextmanager
def _offline_datasets() -> Iterator[None]:
    """Let `datasets` look into its cache at once and silently; else it retries the Hub for long, and logs that."""
    import datasets
    from huggingface_hub import constants

    before, level = (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE), datasets.logging.get_verbosity()
    try:
        datasets.logging.set_verbosity_error()
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        yield
    finally:
        datasets.logging.set_verbosity(level)
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
