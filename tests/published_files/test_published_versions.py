"""Whoever reads the manifest, and then the files that it names, sees one whole version, whatever becomes of a run."""

import shutil
import threading
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from pyarrow.fs import S3FileSystem

from pipelines.manifest import ForeignManifest, Superseded, is_ours, read_manifest
from pipelines.publishing import publish
from resources.database import Database
from resources.publish_errors import PublishError
from tests.support.bucket import BUCKET, BucketServer
from tests.support.published_versions import (
    NOW,
    Publisher,
    later,
    place_at,
    published,
    read_version,
    restate,
)
from tests.support.warehouse import migrated
from warehouse import parquet

PUTS = len(parquet.published_tables()) + 1  # the lists and the manifest


def names_in(address: str) -> set[str]:
    return set(place_at(address).sizes())


def test_a_version_is_every_table_and_the_report_under_names_of_its_own(filled: Database, address: str) -> None:
    done = published(address, filled, page="<p>2025</p>")
    version = read_version(address)
    assert version is not None and version.manifest["version"] == done.manifest.version
    assert set(version.tables) == {*parquet.published_tables()} - {"user_daily_sessions"}
    months = [file["path"] for file in version.manifest["files"] if file["month"]]
    name = done.manifest.version
    assert months == [f"files/daily_sessions/2025-01.{name}.parquet", f"files/daily_sessions/2025-02.{name}.parquet"]
    place = place_at(address)
    assert names_in(address) == done.manifest.paths
    assert place.read("report.html") == place.read(f"files/report.{name}.html") == b"<p>2025</p>"
    addresses = place.read("lists/daily_sessions/files.txt")
    assert addresses == "".join(f"{place.address}/{path}\n" for path in months).encode()
    assert place.read("lists/user_daily_sessions/files.txt") == b"", "there are no users"


def test_what_has_not_changed_is_not_uploaded_again(filled: Database, address: str) -> None:
    first = published(address, filled)
    again = published(address, filled, later(1))
    assert (again.uploaded, again.kept) == (0, first.uploaded)
    restate(filled, 7)
    third = published(address, filled, later(2))
    changed = {file.path for file in third.manifest.files} - {file.path for file in first.manifest.files}
    assert {path.split(".")[0] for path in changed} == {"files/daily_sessions/2025-02", "files/weekly_sessions"}


def test_a_file_that_someone_removed_or_cut_off_is_uploaded_again(filled: Database, address: str) -> None:
    first = published(address, filled)
    lost, cut = (file.path for file in first.manifest.files[:2])
    place = place_at(address)
    place.remove(lost)
    place.put(cut, b"PAR1")
    again = published(address, filled, later(1))
    assert again.uploaded == 2
    assert read_version(address)


def test_files_stay_for_a_day_and_two_versions_after_their_own(filled: Database, address: str) -> None:
    def publish_anew(count: int, days: float) -> int:
        restate(filled, count)
        return published(address, filled, later(days)).removed

    first = published(address, filled).manifest
    for number, days in enumerate((0.1, 0.2, 0.9, 1.0)):
        assert publish_anew(number, days) == 0, "not yet a day"
        assert first.paths <= names_in(address)
    assert publish_anew(10, 1.2) == 4, "a table and a month, of the first version and of the second"
    assert publish_anew(11, 400) == 4, "the clock is far ahead, and the last two versions stay"
    assert read_version(address)


def test_a_run_with_earlier_data_gives_way_to_one_that_has_published_later_data_meanwhile(
    filled: Database, tmp_path: Path, address: str
) -> None:
    copied = Database(url=f"duckdb:///{tmp_path}/later.duckdb")
    filled.copy_to(copied.path)
    restate(filled, 1)
    published(address, filled)

    def meanwhile(_: sa.Connection) -> str:
        restate(copied, 2)
        published(address, copied, later(1))
        return "<p>late</p>"

    done = publish(place_at(address), filled, as_of=NOW, now=later(1), run_id="run", report=meanwhile)
    assert not done.is_ours
    version = read_version(address)
    assert version is not None and version.counts("weekly_sessions") == {2}
    assert names_in(address) > done.manifest.paths, "what it uploaded is named nowhere"
    restate(filled, 3)
    for days in (2, 3, 4):
        published(address, filled, later(days), as_of=NOW)  # with no other run meanwhile, the clock doesn't matter
    version = read_version(address)
    assert version is not None and version.counts("weekly_sessions") == {3}
    gone = {each["path"] for each in version.manifest["superseded"]}
    assert names_in(address) == gone | {file["path"] for file in version.manifest["files"]}


def test_an_empty_warehouse_replaces_no_counts(filled: Database, tmp_path: Path) -> None:
    address = f"{tmp_path}/shared"
    empty = migrated(Database(url=f"duckdb:///{tmp_path}/empty.duckdb"))
    for source in (empty, Database(url=f"duckdb:///{tmp_path}/missing.duckdb"), filled):
        published(address, source)
    for source in (empty, Database(url=f"duckdb:///{tmp_path}/missing.duckdb")):
        with pytest.raises(PublishError, match=r"has no counts, but those published to file:///.*: they stay"):
            published(address, source, later(1))
    version = read_version(address)
    assert version is not None and version.tables["daily_sessions"].num_rows == 25


def test_counts_of_other_organizations_are_not_replaced(filled: Database, tmp_path: Path, address: str) -> None:
    theirs = Database(url=f"duckdb:///{tmp_path}/theirs.duckdb")
    filled.copy_to(theirs.path)
    with theirs.transaction() as connection:
        connection.exec_driver_sql("update organizations set org_id = 'their-' || org_id")
    published(address, filled)
    before = place_at(address).read("manifest.json")
    with pytest.raises(
        PublishError, match=r"theirs\.duckdb has none of the organizations whose counts are published to"
    ):
        published(address, theirs, later(1))
    assert place_at(address).read("manifest.json") == before
    with theirs.transaction() as connection:
        connection.exec_driver_sql(
            "update organizations set org_id = replace(org_id, 'their-', '') where org_name = "
            "(select min(org_name) from organizations)"
        )
    published(address, theirs, later(1))


def test_a_warehouse_begun_anew_replaces_no_days_that_it_lacks(filled: Database, tmp_path: Path) -> None:
    address, anew = f"{tmp_path}/shared", Database(url=f"duckdb:///{tmp_path}/anew.duckdb")
    published(address, filled)
    filled.copy_to(anew.path)
    lost = ("delete from daily_totals where day < '2025-02-01'", "delete from daily_sessions where day < '2025-02-01'")
    with anew.transaction() as connection:
        for statement in lost:
            connection.exec_driver_sql(statement)
    published(address, anew, later(1))  # some days are to be read again, such as after a backup was restored
    published(address, filled, later(2))
    with anew.transaction() as connection:
        connection.exec_driver_sql("update daily_totals set run_id = 'another'")
    with pytest.raises(
        PublishError, match=r"are not from the warehouse .*anew\.duckdb, which lacks 2 of their 5 days: "
    ):
        published(address, anew, later(3))
    version = read_version(address)
    assert version is not None and version.tables["daily_sessions"].num_rows == 25
    with filled.transaction() as connection:
        connection.exec_driver_sql("update daily_totals set run_id = 'a third'")
    published(address, filled, later(4))  # every day was read again


def test_nothing_of_anyone_else_is_touched(filled: Database, address: str) -> None:
    place = place_at(address)
    published(address, filled)
    others = [
        "files/mine.parquet",
        "files/daily_sessions/2025-01.parquet",
        "files/theirs/2025-01.20260301T120000Z-0123abcd.parquet",
        "files/daily_sessions/2025-01.20260301T120000Z-0123abcd.html",
        "notes.txt",
    ]
    for name in others:
        place.put(name, b"theirs")
    for days in (1, 2, 3, 4):
        published(address, filled, later(days))
    assert [place.read(name) for name in others] == [b"theirs"] * len(others)
    assert not [name for name in others if is_ours(name)]


def test_a_reader_sees_whole_versions_while_others_replace_them(filled: Database, address: str) -> None:
    restate(filled, 0)
    published(address, filled)
    seen: list[int] = []
    failed: list[BaseException] = []
    over = threading.Event()

    def read() -> None:
        try:
            while not over.is_set():
                version = read_version(address)
                assert version is not None
                (count,) = version.counts("weekly_sessions")
                assert count in version.counts("daily_sessions")
                seen.append(count)
        except BaseException as error:
            failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 9):
        restate(filled, number)
        published(address, filled, later(number))
    over.set()
    reader.join()
    assert not failed, failed
    assert seen == sorted(seen) and len(set(seen)) > 1


def test_a_manifest_that_grows_while_it_is_read_is_read_again(
    filled: Database, bucket: str, bucket_server: BucketServer
) -> None:
    first = published(bucket, filled).manifest
    place, grown = place_at(bucket), threading.Event()
    assert len(first.as_json()) == len(replace(first, superseded=[Superseded("files/a", NOW)] * 20).as_json())
    longer = replace(first, run_id="another", superseded=[Superseded("files/a", NOW)] * 1000)

    def grow(method: str, path: str) -> None:
        if method == "GET" and path.endswith("manifest.json") and not grown.is_set():
            grown.set()  # after its size was asked for, and before its content
            place.put("manifest.json", longer.as_json())

    bucket_server.spoil = grow
    assert read_manifest(place_at(bucket)) == longer
    assert grown.is_set()


def test_two_runs_at_once_leave_one_whole_version(filled: Database, address: str) -> None:
    published(address, filled)
    restate(filled, 5)
    both = [Publisher(address, filled, later(1)) for _ in range(2)]
    assert [each.ended() for each in both] == [0, 0]
    version = read_version(address)
    assert version is not None and version.counts("weekly_sessions") == {5}


def ends_in_one_version(filled: Database, address: str, killed: int) -> None:
    """What holds after runs were killed: the next ones publish, and clean up."""
    left = names_in(address)
    restate(filled, 100)
    published(address, filled, later(killed + 1))
    published(address, filled, later(killed + 3))
    done = published(address, filled, later(killed + 5))
    assert names_in(address) == done.manifest.paths | {each.path for each in done.manifest.superseded}
    assert not left <= names_in(address)
    version = read_version(address)
    assert version is not None and version.counts("weekly_sessions") == {100}


def test_a_run_killed_at_any_file_leaves_a_whole_version_in_a_directory(filled: Database, tmp_path: Path) -> None:
    address = f"{tmp_path}/shared"
    restate(filled, 0)
    published(address, filled)
    changed = 2  # a month and a table
    points = [1, 2, 3, 4, 5, 8, 11, changed + PUTS - 1, changed + PUTS]
    for number, point in enumerate(points, start=1):
        restate(filled, number)
        assert Publisher(address, filled, later(number), dies_before=point).ended() == -9
        version = read_version(address)
        assert version is not None and version.counts("weekly_sessions") == {0}
    assert [path for path in Path(address).rglob(".*") if path.is_file()], "a killed run leaves an unfinished file"
    ends_in_one_version(filled, address, len(points))
    assert not [path for path in Path(address).rglob(".*") if path.is_file()]


def test_a_run_killed_at_any_request_leaves_a_whole_version_in_a_bucket(
    filled: Database, bucket: str, bucket_server: BucketServer
) -> None:
    restate(filled, 0)
    published(bucket, filled)
    manifest = 2 + PUTS  # after a month, a table and the lists
    points = [1, 2, 3, 4, 5, 6, 9, 14, manifest - 2, manifest - 1, manifest]
    for number, point in enumerate(points, start=1):
        restate(filled, number)
        assert killed_at(bucket_server, point, bucket, filled, later(number)) == -9
        version = read_version(bucket)
        assert version is not None
        seen = version.counts("weekly_sessions")
        assert seen == {0} or (point == manifest and seen == {number}), "which had been sent, or not"
    ends_in_one_version(filled, bucket, len(points))


def killed_at(server: BucketServer, point: int, address: str, source: Database, at: datetime) -> int | None:
    """Publish in a process that is killed when it sends its so many-th file; returns its exit code."""
    begun, puts = threading.Event(), 0

    def kill(method: str, path: str) -> None:
        nonlocal puts
        puts += method == "PUT"
        if puts == point:
            begun.wait()
            run.kill()

    server.spoil = kill
    run = Publisher(address, source, at)
    begun.set()
    code = run.ended()
    server.spoil = lambda method, path: None
    return code


def test_objects_are_private_and_what_is_read_by_a_browser_says_what_it_is(
    filled: Database, bucket: str, bucket_server: BucketServer
) -> None:
    published(bucket, filled, page="<p>2025</p>")
    status, _ = bucket_server.send("GET", f"/{BUCKET}/devin/manifest.json")
    assert status == 403
    client = S3FileSystem(endpoint_override=f"http://127.0.0.1:{bucket_server.port}", region="us-east-1")
    names = ("manifest.json", "report.html", "lists/daily_totals/files.txt")
    streams = [client.open_input_stream(f"{BUCKET}/devin/{name}") for name in names]
    types = [stream.metadata()["Content-Type"].decode() for stream in streams]
    assert types == ["application/json", "text/html; charset=utf-8", "text/plain; charset=utf-8"]


def test_whoever_may_read_the_manifest_of_a_directory_may_read_the_next_version(
    filled: Database, tmp_path: Path
) -> None:
    address = tmp_path / "shared"
    published(str(address), filled)
    assert {path.stat().st_mode & 0o777 for path in address.rglob("*") if path.is_file()} == {0o600}
    (address / "manifest.json").chmod(0o644)
    address.chmod(0o2751)
    shutil.rmtree(address / "files" / "daily_sessions")
    shutil.rmtree(address / "lists")
    restate(filled, 4)
    done = published(str(address), filled, later(1))
    new = {address / file.path for file in done.manifest.files if done.manifest.version in file.path}
    assert {path.stat().st_mode & 0o777 for path in {*new, address / "manifest.json"}} == {0o644}
    created = [address / "files" / "daily_sessions", address / "lists", *(address / "lists").iterdir()]
    assert {path.stat().st_mode & 0o7777 for path in created} == {0o2751}


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"format": 2}', b"\xff", b"[" * 100_000])
def test_a_manifest_of_someone_else_is_left_alone(filled: Database, tmp_path: Path, content: bytes) -> None:
    place = place_at(f"{tmp_path}/shared")
    place.put("manifest.json", content)
    with pytest.raises(Exception, match="was not written by this release, so nothing is published there"):
        published(f"{tmp_path}/shared", filled)
    assert place.read("manifest.json") == content
    assert names_in(f"{tmp_path}/shared") == set()


@pytest.mark.parametrize(
    ("found", "damaged"),
    [
        (b"+00:00", b""),
        (b'"format": 1', b'"format": 2'),
        (b'"bytes": ', b'"bytes": "x", "was": '),
        (b'"month": "2025-', b'"month": "2025-9'),
        (b'"files": [', b'"files": {}, "were": ['),
    ],
)
def test_a_manifest_with_a_damaged_value_is_left_alone(
    filled: Database, tmp_path: Path, found: bytes, damaged: bytes
) -> None:
    address = f"{tmp_path}/shared"
    published(address, filled)
    content = (tmp_path / "shared" / "manifest.json").read_bytes()
    assert found in content
    (tmp_path / "shared" / "manifest.json").write_bytes(content.replace(found, damaged))
    with pytest.raises(ForeignManifest):
        published(address, filled, later(1))


def test_a_manifest_is_read_as_it_was_written(filled: Database, tmp_path: Path) -> None:
    address = f"{tmp_path}/shared"
    first = published(address, filled, page="<p>2025</p>").manifest
    restate(filled, 4)
    second = published(address, filled, later(1)).manifest
    assert read_manifest(place_at(address)) == second
    assert {each.path for each in second.superseded} == first.paths - second.paths
