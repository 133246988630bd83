"""What stands in the way of publishing is said, costs no version and no secret, and stops nothing else."""

import os
import shutil
from pathlib import Path

import dagster as dg
import pytest

from pipelines.behind import behind
from pipelines.command.status import status
from resources.database import Database
from resources.publish_errors import PublishError, PublishFailedForNow
from tests.support.bucket import BUCKET, KEY, SECRET, BucketServer, Spoil
from tests.support.command import in_this_process
from tests.support.http import http, raw, set_proxies
from tests.support.published_versions import later, place_at, published, read_version, restate
from tests.support.world import World

STAYS = "The version of 2026-03-01 12:00 UTC stays whole, and everything is stored."
AGAIN = "and run the same command again."


def on_put(status: int, code: str) -> Spoil:
    return lambda method, path: (status, code) if method == "PUT" else None


def of_manifest(status: int, code: str) -> Spoil:
    return lambda method, path: (status, code) if method == "PUT" and path.endswith("manifest.json") else None


@pytest.mark.parametrize(
    ("spoil", "came_back", "fix"),
    [
        (on_put(403, "AccessDenied"), "ACCESS_DENIED during PutObject", "Have the job's identity allowed what "),
        (on_put(403, "InvalidAccessKeyId"), "INVALID_ACCESS_KEY_ID during PutObject", "Have the job's identity "),
        (of_manifest(403, "AccessDenied"), "ACCESS_DENIED during PutObject", "Have the job's identity allowed what "),
        (on_put(404, "NoSuchBucket"), "NO_SUCH_BUCKET during PutObject", "Create the bucket, or correct "),
        (on_put(507, "XMinioStorageFull"), "XMinioStorageFull (HTTP status 507) during PutObject", "Free some space "),
        (on_put(403, "QuotaExceeded"), "QuotaExceeded (HTTP status 403) during PutObject", "Free some space there, "),
        (on_put(301, "PermanentRedirect"), "PermanentRedirect (HTTP status 301) during PutObject", "Set AWS_REGION "),
        (on_put(400, "ExpiredToken"), "ExpiredToken (HTTP status 400) during PutObject", "Renew the credentials, "),
        (on_put(409, "Unheard"), "Unheard (HTTP status 409) during PutObject", "Look that code up, "),
        (lambda method, path: (403, "AccessDenied"), "ACCESS_DENIED during HeadObject", "Have the job's identity "),
    ],
)
def test_a_bucket_that_refuses_keeps_its_version_and_the_message_says_what_came_back_and_what_to_do(
    filled: Database, bucket: str, bucket_server: BucketServer, spoil: Spoil, came_back: str, fix: str
) -> None:
    restate(filled, 1)
    published(bucket, filled)
    restate(filled, 2)
    bucket_server.spoil = spoil
    with pytest.raises(PublishError) as raised:
        published(bucket, filled, later(1))
    message = str(raised.value)
    attempted, _, rest = message.partition(": ")
    assert attempted.startswith((f"Could not write {bucket}/", f"Could not read {bucket}"))
    kept = STAYS if "write" in attempted else "Everything is stored in the warehouse."
    assert rest.removeprefix(f"s3://{BUCKET}").startswith(f"{came_back}. {kept} {fix}")
    assert message.endswith(AGAIN)
    assert KEY not in message and SECRET not in message
    assert not isinstance(raised.value, PublishFailedForNow)
    bucket_server.spoil = lambda method, path: None
    version = read_version(bucket)
    assert version is not None and version.counts("weekly_sessions") == {1}
    published(bucket, filled, later(2))
    version = read_version(bucket)
    assert version is not None and version.counts("weekly_sessions") == {2}


def test_a_service_in_trouble_is_asked_three_times_and_then_may_be_asked_later(
    filled: Database, bucket: str, bucket_server: BucketServer
) -> None:
    published(bucket, filled)
    restate(filled, 2)
    bucket_server.requests.clear()
    bucket_server.spoil = on_put(503, "SlowDown")
    with pytest.raises(PublishFailedForNow, match=r"SLOW_DOWN during PutObject\. .* Check the network"):
        published(bucket, filled, later(1))
    assert [method for method, _ in bucket_server.requests].count("PUT") == 3


def test_a_bucket_that_is_gone_in_the_middle_is_no_version_without_its_files(
    filled: Database, bucket: str, bucket_server: BucketServer
) -> None:
    restate(filled, 1)
    published(bucket, filled)
    restate(filled, 2)

    def lose(method: str, path: str) -> tuple[int, str] | None:
        is_written = any(method == "PUT" and "/files/" in path for method, path in sent)
        return (404, "NoSuchBucket") if is_written and method != "PUT" else None

    sent = bucket_server.requests
    sent.clear()
    bucket_server.spoil = lose
    with pytest.raises(PublishError, match=r"was written with \d+ bytes, and now nothing is there\. The version of "):
        published(bucket, filled, later(1))
    assert not [path for method, path in sent if method == "PUT" and "manifest" in path]


def test_nobody_at_the_address_is_said_within_seconds(
    filled: Database, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(PublishFailedForNow, match=r"Could not read s3://reports/devin: NETWORK_CONNECTION during "):
        published(bucket, filled)


@pytest.mark.parametrize("endpoint", ["http://minio.example", "http://10.0.0.1:9000", "https://u:p4ss@minio.example"])
def test_an_endpoint_to_which_the_credentials_would_travel_unencrypted_is_refused(
    filled: Database, bucket: str, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    with pytest.raises(PublishError, match=r"^AWS_ENDPOINT_URL_S3 is refused\. Allowed: an https:// address") as raised:
        published(bucket, filled)
    assert "p4ss" not in str(raised.value)


def test_a_store_beyond_this_machine_is_reached_through_the_environments_proxy(
    filled: Database, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://minio.invalid")
    with raw(http(b"", "502 No")) as proxy:
        set_proxies(monkeypatch, proxy.url.replace("http://", "http://user:p4ss@"))
        with pytest.raises(PublishError) as raised:
            published(bucket, filled)
    assert proxy.requests[0].startswith(b"CONNECT minio.invalid:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic " in proxy.requests[0]
    assert "p4ss" not in str(raised.value)
    set_proxies(monkeypatch, "socks5://user:p4ss@127.0.0.1:9")
    with pytest.raises(PublishError, match=r"^http.?_proxy is refused: socks5:// proxies are not supported") as raised:
        published(bucket, filled)
    assert "p4ss" not in str(raised.value)


def test_files_that_may_not_be_removed_are_a_warning_after_the_version_is_published(
    filled: Database, bucket: str, bucket_server: BucketServer
) -> None:
    for days in range(3):
        restate(filled, days)
        published(bucket, filled, later(days))
    bucket_server.spoil = lambda method, path: (403, "AccessDenied") if method == "DELETE" else None
    restate(filled, 7)
    done = published(bucket, filled, later(3))
    assert "ACCESS_DENIED during DeleteObject. The new version is published." in str(done.not_removed)
    version = read_version(bucket)
    assert version is not None and version.counts("weekly_sessions") == {7}
    bucket_server.spoil = lambda method, path: None
    for days in range(4, 7):
        removed = published(bucket, filled, later(days))
    assert removed.not_removed is None
    assert not removed.manifest.superseded


@pytest.mark.parametrize("what", ["no parent", "a file", "read-only"])
def test_a_directory_that_cannot_be_written_is_reported(filled: Database, tmp_path: Path, what: str) -> None:
    place = tmp_path / "shared"
    if what == "no parent":
        place = tmp_path / "not mounted" / "shared"
    elif what == "a file":
        place.write_text("not a directory")
    else:
        place.symlink_to("/proc")
    with pytest.raises(PublishError) as raised:
        published(str(place), filled)
    attempted, why = {
        "no parent": ("write", f"No such file or directory: {place}"),
        "a file": ("read", f"Not a directory: {place} has to be a directory"),
        "read-only": ("write", f"No such file or directory: {place}/files"),
    }[what]
    message = str(raised.value)
    assert message.startswith(f"Could not {attempted} {place.as_uri()}")
    assert f": {why}. " in message
    assert "Everything is stored in the warehouse." in message


def test_a_run_that_cannot_publish_fails_after_everything_is_stored_and_the_report_is_written(
    published_world: World, bucket_server: BucketServer, capsys: pytest.CaptureFixture[str]
) -> None:
    world = published_world
    bucket_server.spoil = lambda method, path: (403, "AccessDenied")
    result = world.run("2025-02-01", "2025-02-02")
    assert not result.success
    assert [event.step_key for event in result.get_step_failure_events()] == ["published_files"]
    message = world.failures(result)
    assert message.startswith("Could not read s3://reports/devin: ACCESS_DENIED during HeadObject. Everything is ")
    assert world.cells() == world.truth("2025-02-01", "2025-02-02")
    report = world.settings.published_report
    assert report and report.exists()
    assert behind(world.settings).assets == ["published_files"]
    world.configure(devin_start_date="2025-02-01")
    shown = status(world.settings, None).to_do
    assert "Behind the stored days: published_files. To catch up: devin-sessions backfill --missing" in shown
    code, output = in_this_process(capsys, world.environment, "backfill", "2025-02-01", "2025-02-02")
    assert code == 1
    assert "ACCESS_DENIED" in output
    assert f"Report: {report}" in output
    assert "Published:" not in output
    bucket_server.spoil = lambda method, path: None
    code, output = in_this_process(capsys, world.environment, "backfill", "2025-02-01", "2025-02-02")
    assert code == 0
    assert f"Published: s3://{BUCKET}/devin" in output
    assert behind(world.settings).assets == []
    secrets = (KEY, SECRET, os.environ["DEVIN_API_KEY"])
    assert not [secret for secret in secrets if secret in output + message]
    version = read_version(f"s3://{BUCKET}/devin")
    assert version is not None
    place = place_at(f"s3://{BUCKET}/devin")
    everything = [*place.sizes(), "manifest.json", "report.html", *(f"lists/{t}/files.txt" for t in version.tables)]
    assert version.manifest["report"] in everything
    for name in everything:
        content = place.read(name)
        assert content is not None
        assert not [secret for secret in secrets if secret.encode() in content], name
    world.database.path.unlink()
    shutil.rmtree(report.parent)  # beside its copies, no new warehouse would be begun
    code, output = in_this_process(capsys, world.environment, "backfill", "2025-02-02")
    assert code == 1
    lost = f"are not from the warehouse {world.database.name}, which lacks 1 of their 2 days: they stay."
    assert lost in " ".join(output.split())


def test_without_an_address_there_is_no_such_asset(world: World) -> None:
    assert dg.AssetKey("published_files") not in world.definitions.resolve_asset_graph().get_all_asset_keys()
