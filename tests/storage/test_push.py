"""Uploads to a Hub on 127.0.0.1 that is busy, refuses or drops connections, over plain HTTP."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hub_online import TOKEN
from hub_online import online as online
from hub_server import COMMIT, Fault, Hub, Repository, nobody

from minitrain.errors import MinitrainError
from minitrain.storage.push import UploadError, check_upload, upload

# huggingface_hub 2.4 hands a file to httpx as it no longer wants it.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NAME = "me/reviews"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path | bytes]:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(range(256)) * 4000)
    return {"model.safetensors": weights, "README.md": b"---\nlicense: mit\n---\n# hi", "config.json": b"{}"}


def arrived(hub: Hub, files: dict[str, Path | bytes], name: str = NAME) -> bool:
    """Whether the repository holds the files, byte for byte, in one commit."""
    sent = {file: at.read_bytes() if isinstance(at, Path) else at for file, at in files.items()}
    return hub.repositories["model", name].files == sent and hub.commits == ["title"]


def test_an_upload_arrives_in_one_commit_and_again_changes_nothing(
    online: Callable[..., Hub], files: dict[str, Path | bytes]
) -> None:
    hub = online()
    address = upload(NAME, files, "title")
    assert arrived(hub, files) and address.startswith(f"{hub.url}/{NAME}/commit/")
    assert not hub.repositories["model", NAME].private
    assert upload(NAME, files, "title") == address
    assert arrived(hub, files) and len(hub.uploaded) == 1
    upload(NAME, {"config.json": b"[]"}, "another")
    assert hub.repositories["model", NAME].files.keys() == files.keys() and len(hub.uploaded) == 1


FAULTS = {
    "making the repository is busy": Fault("repos/create", 2, 429, {"Retry-After": "0"}),
    "the check of the card is busy": Fault("validate-yaml", 1, 503),
    "the first question is busy": Fault("preupload", 1, 503),
    "half of the weights": Fault("PUT /lfs", 1, cut=True),
    "the storage is busy": Fault("PUT /lfs", 1, 500),
    "the commit is cut": Fault("/commit/", 2, cut=True),
    "the commit is busy": Fault("/commit/", 3, 503),
    "the commit is too often": Fault("/commit/", 1, 429, {"Retry-After": "0"}),
    "the answer to the commit is lost": Fault("/commit/", 1, late=True),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_interrupted_upload_arrives_whole(
    online: Callable[..., Hub],
    files: dict[str, Path | bytes],
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    said: list[str] = []
    hub = online(faults=(FAULTS[fault],))
    upload(NAME, files, "title", log=said.append)
    assert arrived(hub, files) and FAULTS[fault].injected == FAULTS[fault].times
    assert len(hub.uploaded) == 1  # what has arrived is not sent again
    own = fault.startswith(("making", "the check", "the commit", "the answer"))  # huggingface_hub asks again itself
    assert len(said) == FAULTS[fault].times * own
    assert all(line.startswith("upload   the ") and "; attempt " in line for line in said)


@pytest.mark.parametrize(
    ("where", "status", "said", "asked"),
    [
        ("/commit/", 403, "the token may not write there (HTTP 403): run `hf auth login`", 1),
        ("preupload", 401, "the token may not write there (HTTP 401): run `hf auth login`", 1),
        ("repos/create", 404, "the Hub refuses it (HTTP 404): ", 1),
        ("/commit/", 503, "the Hub answers HTTP 503", 4),
    ],
)
def test_what_cannot_pass_is_not_tried_again_and_an_end_is_made_of_what_does_not(
    online: Callable[..., Hub], files: dict[str, Path | bytes], where: str, status: int, said: str, asked: int
) -> None:
    fault = Fault(where, status=status)
    hub = online(faults=(fault,))
    with pytest.raises(UploadError) as raised:
        upload(NAME, files, "title")
    assert str(raised.value).startswith(f"{NAME}: nothing was uploaded: {said}")
    assert TOKEN not in str(raised.value) and fault.injected == asked and hub.commits == []


def test_nobody_there_a_file_that_is_gone_and_a_card_that_is_refused_are_said(
    online: Callable[..., Hub], files: dict[str, Path | bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online()
    with pytest.raises(UploadError, match=f"{tmp_path}/gone' is not a file"):
        upload(NAME, {"config.json": tmp_path / "gone"}, "title")
    with pytest.raises(
        UploadError, match=r"the Hub refuses it \(HTTP 400\): Invalid metadata in README.md.\n- refused"
    ):
        upload(NAME, {"README.md": b"---\nrefused: yes\n---\n"}, "title")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", nobody())
    with pytest.raises(UploadError, match=r"the connection to the Hub failed \(ConnectError"):
        upload(NAME, files, "title")


def test_a_gitignore_in_the_repository_that_leaves_something_out_is_said(
    online: Callable[..., Hub], files: dict[str, Path | bytes]
) -> None:
    hub = online(Repository(NAME, {COMMIT: {".gitignore": b"config.json\n"}}))
    with pytest.raises(UploadError, match=f"{NAME}: took no config.json: does its .gitignore leave that out"):
        upload(NAME, files, "title")
    assert "config.json" not in hub.repositories["model", NAME].files


def test_without_hf_xets_storage_the_way_out_is_named(
    online: Callable[..., Hub], files: dict[str, Path | bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With hf_xet installed huggingface_hub does not fall back to Git LFS."""
    pytest.importorskip("hf_xet")
    hub = online()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    with pytest.raises(UploadError, match=r"404 Not Found.*; HF_HUB_DISABLE_XET=1 in the environment uploads"):
        upload(NAME, files, "title")
    assert len([request for request in hub.requests if "xet-write-token" in request.path]) == 1
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    upload(NAME, files, "title")
    assert arrived(hub, files)


# --- before the training ---


@pytest.mark.parametrize(
    ("name", "full"), [("reviews", "me/reviews"), ("me/reviews", "me/reviews"), ("Team/x", "Team/x")]
)
def test_a_name_is_completed_and_the_check_leaves_no_trace(
    online: Callable[..., Hub], name: str, full: str
) -> None:
    hub = online()
    assert check_upload(name) == check_upload(name, private=True) == full
    assert hub.repositories == {} and {request.method for request in hub.requests} == {"GET"}


@pytest.mark.parametrize(
    "name", ["a/b/c", "me/", "https://huggingface.co/me/x", "me/x y", "-x", "me/x.git", "a--b"]
)
def test_what_is_no_name_is_refused_before_the_hub_is_asked(online: Callable[..., Hub], name: str) -> None:
    hub = online()
    with pytest.raises(MinitrainError, match="is no name of a repository; expected OWNER/NAME or NAME"):
        check_upload(name)
    assert hub.requests == []


def test_without_network_token_or_rights_it_is_said_before_the_training(
    online: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = online(Repository("me/public", {COMMIT: {}}), Repository("me/hidden", {COMMIT: {}}, private=True))
    with pytest.raises(
        UploadError, match="the token is of me, who cannot write to google; expected one of me, team"
    ):
        check_upload("google/x")
    with pytest.raises(UploadError, match="me/public: is there already and public, not private"):
        check_upload("public", private=True)
    assert check_upload("me/hidden", private=True) == "me/hidden" and check_upload("public") == "me/public"
    hub.role = "read"
    with pytest.raises(UploadError, match="the token of me may only read: run `hf auth login`"):
        check_upload(NAME)
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(UploadError, match=r"the token may not write there \(HTTP 401\): run `hf auth login`"):
        check_upload(NAME)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UploadError, match="HF_HUB_OFFLINE is set, so nothing can be uploaded: unset it"):
        check_upload(NAME)


def test_without_a_token_it_says_how_to_log_in(
    online: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = online()
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(
        UploadError, match="the Hub wants to know who you are: run `hf auth login`, or set HF_TOKEN"
    ):
        check_upload(NAME)
    assert hub.requests == []
    (tmp_path / "token").write_text(TOKEN)
    assert check_upload(NAME) == NAME


def test_what_is_private_stays_private(online: Callable[..., Hub], files: dict[str, Path | bytes]) -> None:
    hub = online(Repository("me/public", {COMMIT: {}}))
    upload(NAME, files, "title", private=True)
    assert hub.repositories["model", NAME].private
    upload(NAME, {"config.json": b"[]"}, "title")
    assert hub.repositories["model", NAME].private
    with pytest.raises(UploadError, match="is there already and public"):
        upload("me/public", files, "title", private=True)
    assert hub.repositories["model", "me/public"].files == {}
