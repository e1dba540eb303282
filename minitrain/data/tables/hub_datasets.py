"""A dataset of the Hub, or what the cache has of it: `datasets` reads the files, `download.py` fetches them.

Nothing else is downloaded: a file that the dataset names outside of its repository is refused.
"""

from pathlib import Path
from typing import Any

from minitrain.data.tables.dataset_folder import check_names, declares_files
from minitrain.errors import MinitrainError
from minitrain.storage.download import HubError, Repository, nobody_asked

CARD = "README.md"  # of a dataset: which files belong to which subset


def dataset_of_hub(repository: Repository, subset: str | None) -> tuple[str, Any, bool]:
    """A commit, its splits, and whether they were text files (CSV, JSON).

    `datasets` is left nothing to download: what it reads has been checked.
    """
    import datasets

    what = "the dataset" if subset is None else f"the dataset's {subset}"
    try:
        commit, names = repository.contents(what)
        if CARD in names:
            repository.fetch(CARD, commit)  # a refusal, in our words
        builder = repository.asked(
            what, lambda: datasets.load_dataset_builder(repository.name, subset, revision=commit)
        )
        if not Path(builder.cache_dir).is_dir():  # else its rows are there
            card = repository.fetch(CARD, commit) if CARD in names else None
            for name in _data_files(builder, repository, commit, card):
                repository.fetch(name, commit)
            builder.download_and_prepare()
        if CARD in names:  # the cache learns that the branch stood for this commit
            repository.fetch(CARD, repository.revision)
    except HubError as error:
        builder = _cached_builder(repository, subset, error)
        repository.warn_of_cache(builder.hash, error.reason)
    return builder.hash, builder.as_dataset(), builder.name in ("csv", "json")


def _data_files(builder: Any, repository: Repository, commit: str, card: Path | None = None) -> list[str]:
    """The names of the files that a subset is made of, all of them in the repository."""
    inside = f"hf://datasets/{repository.name}@{commit}/"
    addresses = [address for split in (builder.config.data_files or {}).values() for address in split]
    for address in addresses:
        if not address.startswith(inside):
            raise MinitrainError(
                f"{repository.name}: its {CARD} names {address!r}, a file outside of the repository, which is not "
                "read; download it and pass it as --train_file"
            )
    if card is None or not declares_files(card):
        splits = (builder.config.data_files or {}).items()
        check_names(repository.name, {str(split): [a.removeprefix(inside) for a in part] for split, part in splits})
    names = [address.removeprefix(inside) for address in addresses]
    repository.check_names(names)
    return names


def _cached_builder(repository: Repository, subset: str | None, error: HubError) -> Any:
    """What `datasets` has prepared before, where that is the revision that is asked for; else `error` is raised."""
    import datasets

    with nobody_asked():
        try:
            builder = datasets.load_dataset_builder(repository.name, subset)
        except Exception as nothing:  # an error of no type of its own
            raise error from nothing
    card = repository.cached(CARD)
    if repository.revision not in (None, builder.hash) and (card is None or card.parent.name != builder.hash):
        raise error
    return builder
