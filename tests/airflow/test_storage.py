from __future__ import annotations

import json
import logging
import os

import google.auth
import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from airflow.sdk.io import attach
from airflow.sdk.io.store import _STORE_CACHE
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from google.oauth2.credentials import Credentials

from airflow_provider_geminibatch.core.errors import (
    BadConnection,
    BadWindow,
    StoreTooWeak,
    StoreUnreadable,
    Superseded,
    Unusable,
)
from airflow_provider_geminibatch.emulator import Emulator, running
from airflow_provider_geminibatch.hooks import config, storage
from airflow_provider_geminibatch.hooks.errors import airflow_errors
from airflow_provider_geminibatch.hooks.storage import AirflowFiles, open_store, open_workspace
from airflow_provider_geminibatch.provider_info import get_provider_info
from airflow_provider_geminibatch.storage import facts, stores
from airflow_provider_geminibatch.storage.doors import store_door

SECTION = get_provider_info()["config"]["geminibatch"]["options"]


class Forgetful(stores.MemoryStore):
    """A store whose second exclusive create succeeds, as a check followed by a write does."""

    def create(self, path, data):
        self.write(path, data)
        return True


def test_the_fallbacks_are_the_defaults_of_the_metadata():
    assert config.workspace() == SECTION["workspace"]["default"]
    assert config.first_event_after().total_seconds() == float(SECTION["first_event_after"]["default"])
    assert config.poll_interval().total_seconds() == float(SECTION["poll_interval"]["default"])
    assert config.settle_time().total_seconds() == float(SECTION["settle_time"]["default"])
    assert config.allow_weak_workspace() is (SECTION["allow_weak_workspace"]["default"] == "True")
    assert (config.models(), config.prices()) == (SECTION["models"]["default"], SECTION["prices"]["default"])
    assert config.allow_fields() == json.loads(SECTION["allow_fields"]["default"] or "{}")
    assert len(SECTION) == 8


def test_a_workspace_keeps_its_id(tmp_path):
    one = open_workspace(str(tmp_path / "w"))
    assert open_workspace(str(tmp_path / "w")).id == one.id
    assert open_workspace(f"file://{tmp_path}/w").id == one.id
    assert one.store.uri == str(tmp_path / "w")


def test_the_configured_workspace_is_used_where_the_task_names_none(workspace):
    assert open_workspace(None).store.uri == workspace
    assert open_workspace("  ").store.uri == workspace


def test_a_store_that_cannot_create_exclusively_is_refused_unless_that_is_accepted(monkeypatch):
    monkeypatch.setattr(stores, "open_store", Forgetful)
    with pytest.raises(StoreTooWeak, match="allow_weak_workspace"):
        open_workspace("memory://forgetful")
    monkeypatch.setenv("AIRFLOW__GEMINIBATCH__ALLOW_WEAK_WORKSPACE", "True")
    assert open_workspace("memory://forgetful").id


@pytest.mark.parametrize(
    ("executor", "warns"),
    [
        ("LocalExecutor", False),
        ("airflow.executors.local_executor.LocalExecutor", False),
        ("LocalExecutor,CeleryExecutor", True),
        ("KubernetesExecutor", True),
    ],
)
def test_a_local_workspace_under_workers_elsewhere_warns_once(tmp_path, monkeypatch, caplog, executor, warns):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    with caplog.at_level(logging.WARNING, logger=storage.__name__):
        open_workspace(str(tmp_path))
        open_workspace(str(tmp_path))
    assert [record.levelname for record in caplog.records] == (["WARNING"] if warns else [])


@pytest.fixture
def bucket(tmp_path):
    """``s3://faces@bucket`` as an Airflow provider would make it from a connection, but on the disk."""
    attach("s3", "faces", fs=DirFileSystem(str(tmp_path), LocalFileSystem(auto_mkdir=True)))
    yield "s3://faces@bucket"
    _STORE_CACHE.pop("s3-faces")


def test_a_connection_in_the_uri_goes_through_airflows_provider(bucket, tmp_path):
    store = open_store(f"{bucket}/here")
    assert store.uri == "s3://faces@bucket/here"
    assert store.create("a/b", b"1")
    assert (tmp_path / "bucket" / "here" / "a" / "b").read_bytes() == b"1"
    assert not store.create("a/b", b"2")
    assert store.read("a/b") == b"1"


def test_a_scheme_that_nothing_can_open_is_named():
    with pytest.raises(StoreUnreadable, match="nfs9"):
        open_store("nfs9://bucket/folder")
    with pytest.raises(StoreUnreadable, match="the connection or the provider of nfs9:// is missing"):
        open_store("nfs9://conn@bucket/folder")


def test_a_relative_path_is_no_place():
    with pytest.raises(Unusable, match="relative path"):
        open_store("folder/here")


def test_files_are_read_plain_and_through_a_connection(bucket, tmp_path):
    (tmp_path / "bucket").mkdir()
    for name in ("a", "b"):
        (tmp_path / "bucket" / f"{name}.csv").write_text(name)
    files = AirflowFiles()
    for folder in (f"{tmp_path}/bucket", bucket):
        found = files.match(f"{folder}/*.csv")
        assert found[0] == f"{folder}/a.csv"
        assert len(found) == 2
        opened = []
        for uri in found:
            with files.open(uri) as file:
                opened.append(file.read())
        assert opened == [b"a", b"b"]


def test_an_error_that_a_retry_may_cure_is_airflows_ordinary_one():
    with pytest.raises(AirflowException) as caught, airflow_errors():
        raise Superseded("shard 0", "another attempt")
    assert not isinstance(caught.value, AirflowFailException)
    assert str(caught.value) == str(Superseded("shard 0", "another attempt"))


def test_an_error_that_only_a_person_can_cure_fails_the_task_at_once():
    with pytest.raises(AirflowFailException, match="No window: it is a test"), airflow_errors():
        raise BadWindow("it is a test")


def test_errors_of_others_pass_unchanged():
    with pytest.raises(KeyError), airflow_errors():
        raise KeyError("theirs")


def test_probing_happens_once_per_process(tmp_path, monkeypatch):
    open_workspace(str(tmp_path))
    monkeypatch.setattr(stores.LocalStore, "delete", lambda *_: pytest.fail("probed again"))
    open_workspace(str(tmp_path))
    assert str(tmp_path) in facts._probed


def test_sizes_are_told_plain_and_through_a_connection(bucket, tmp_path):
    (tmp_path / "bucket").mkdir()
    for name in ("a", "bb"):
        (tmp_path / "bucket" / f"{name}.csv").write_text(name)
    (tmp_path / "bucket" / "folder").mkdir()
    files = AirflowFiles()
    for folder in (f"{tmp_path}/bucket", bucket):
        assert files.sizes(f"{folder}/*.csv") == {f"{folder}/a.csv": 1, f"{folder}/bb.csv": 2}
        assert files.sizes(f"{folder}/bb.csv") == {f"{folder}/bb.csv": 2}
    assert set(files.sizes(f"{bucket}/*")) == {f"{bucket}/a.csv", f"{bucket}/bb.csv"}


@pytest.fixture
def cloud(monkeypatch):
    """An emulated Cloud Storage, a connection of ours that leads there, and one of the Developer API."""
    pytest.importorskip("gcsfs")
    with running(Emulator()) as server:
        extra = {
            "project": "p",
            "location": "us-central1",
            "staging": "gs://bucket/staging",
            "storage_endpoint": server.url,
        }
        made = {"conn_type": "geminibatch", "host": server.url, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_VERTEX_EU", json.dumps(made))
        monkeypatch.setenv("AIRFLOW_CONN_KEY_ONLY", json.dumps({"conn_type": "geminibatch", "password": "key"}))
        yield server


def test_our_own_connection_opens_cloud_storage_without_googles_provider(cloud):
    workspace = open_workspace("gs://vertex_eu@bucket/ws")

    assert workspace.store.uri == "gs://vertex_eu@bucket/ws"
    assert workspace.store.create("fact", b"1")
    assert not workspace.store.create("fact", b"2")
    assert cloud.emulator.buckets.get("bucket", "ws/fact").blob.read(0, 9) == b"1"
    assert open_workspace("gs://vertex_eu@europe-west4@bucket/ws").id == workspace.id


def test_a_connection_is_opened_once_until_it_says_something_else(cloud, monkeypatch):
    def opened():
        return open_store("gs://vertex_eu@bucket/ws").file_system

    first = opened()
    assert opened() is first

    made = json.loads(os.environ["AIRFLOW_CONN_VERTEX_EU"])
    made["extra"]["project"] = "another"
    monkeypatch.setenv("AIRFLOW_CONN_VERTEX_EU", json.dumps(made))
    assert opened() is not first


def test_a_key_file_that_was_exchanged_is_read_anew(cloud, monkeypatch, tmp_path):
    path = tmp_path / "key.json"
    key = {"type": "service_account", "client_email": "a@b", "token_uri": "https://x", "private_key": a_key()}
    path.write_text(json.dumps(key))
    made = json.loads(os.environ["AIRFLOW_CONN_VERTEX_EU"])
    made["extra"]["key_path"] = str(path)
    monkeypatch.setenv("AIRFLOW_CONN_VERTEX_EU", json.dumps(made))

    def account():
        return open_store("gs://vertex_eu@bucket/ws").file_system.credentials.credentials.service_account_email

    assert (account(), account()) == ("a@b", "a@b")
    path.write_text(json.dumps({**key, "client_email": "exchanged@b"}))
    assert account() == "exchanged@b"


@pytest.mark.parametrize(
    ("extra", "goes"),
    [
        ({}, True),
        ({"keyfile_dict": "service"}, True),
        ({"keyfile_dict": "user"}, False),
        ({"impersonation_chain": "robot@p.iam.gserviceaccount.com", "keyfile_dict": "service"}, False),
    ],
)
def test_what_other_processes_are_handed_are_credentials_as_data(monkeypatch, extra, goes):
    pytest.importorskip("gcsfs")
    monkeypatch.setattr(google.auth, "default", lambda **_: (Credentials("token"), "p"))
    keys = {
        "service": {"type": "service_account", "client_email": "a@b", "token_uri": "https://x", "private_key": a_key()},
        "user": {"type": "authorized_user", "client_id": "a", "client_secret": "b", "refresh_token": "c"},
    }
    said = {**extra, **({"keyfile_dict": keys[extra["keyfile_dict"]]} if "keyfile_dict" in extra else {})}
    made = {"conn_type": "geminibatch", "extra": {"project": "my-project", "location": "us-central1", **said}}
    monkeypatch.setenv("AIRFLOW_CONN_ROBOT", json.dumps(made))

    store = open_store("gs://robot@bucket/ws")

    assert (store_door(store) is not None) is goes
    assert "PRIVATE" not in repr(store.file_system)


def a_key():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(*form).decode()


def test_sources_are_found_through_our_own_connection(cloud):
    open_store("gs://vertex_eu@bucket/rows").write("a.csv", b"key\na\n")
    files = AirflowFiles()

    assert files.match("gs://vertex_eu@bucket/rows/*.csv") == ["gs://vertex_eu@bucket/rows/a.csv"]
    assert files.sizes("gs://vertex_eu@bucket/rows/*.csv") == {"gs://vertex_eu@bucket/rows/a.csv": 6}
    with files.open("gs://vertex_eu@bucket/rows/a.csv") as file:
        assert file.read() == b"key\na\n"


def test_a_connection_of_the_developer_api_opens_no_cloud_storage(cloud):
    with pytest.raises(BadConnection, match="no Cloud Storage"):
        open_store("gs://key_only@bucket/ws")


def test_a_connection_that_is_not_there_opens_nothing(cloud):
    with pytest.raises(StoreUnreadable, match="nobody"):
        open_store("gs://nobody@bucket/ws")
