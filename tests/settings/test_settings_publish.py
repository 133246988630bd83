"""Where files may be published, and which addresses are refused without being repeated."""

import pytest

from resources.publish_address import PublishAddress
from tests.support.variables import SECRET, load, refusal

AZURE = "@account1.dfs.core.windows.net"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/srv/shared/", PublishAddress("file", "file:///srv/shared", "/srv/shared")),
        ("/srv/../mnt/a b", PublishAddress("file", "file:///mnt/a%20b", "/mnt/a b")),
        ("file:///mnt/a%20b", PublishAddress("file", "file:///mnt/a%20b", "/mnt/a b")),
        ("s3://company-reports", PublishAddress("s3", "s3://company-reports", "company-reports")),
        ("s3://company-reports/a/b=1/", PublishAddress("s3", "s3://company-reports/a/b=1", "company-reports/a/b=1")),
        ("gs://company.reports/a_b", PublishAddress("gs", "gs://company.reports/a_b", "company.reports/a_b")),
        (f"abfs://devin{AZURE}/a", PublishAddress("abfs", f"abfs://devin{AZURE}/a", "devin/a", "account1")),
        (f"abfss://devin{AZURE}", PublishAddress("abfs", f"abfss://devin{AZURE}", "devin", "account1")),
    ],
)
def test_files_are_published_to_a_directory_or_a_bucket(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: PublishAddress
) -> None:
    assert load(monkeypatch, devin_publish_url=value).published_folder == expected


def test_each_enterprise_has_a_folder_of_its_own_there(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = load(
        monkeypatch, devin_publish_url="s3://company-reports/devin/", devin_enterprise="Acme"
    ).published_folder
    assert folder == PublishAddress("s3", "s3://company-reports/devin/acme", "company-reports/devin/acme", depth=2)
    folder = load(monkeypatch, devin_publish_url="/srv/a b").published_folder
    assert folder == PublishAddress("file", "file:///srv/a%20b/acme", "/srv/a b/acme", depth=2)


def test_without_an_address_nothing_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch).published_folder is None


@pytest.mark.parametrize(
    "value",
    [
        f"s3://key:{SECRET}@company-reports/devin",
        f"s3://{SECRET}@company-reports",
        f"gs://user:{SECRET}@company-reports",
        f"abfs://devin:{SECRET}{AZURE}/a",
        f"abfss://:{SECRET}{AZURE}/a",
    ],
)
def test_credentials_in_the_address_are_refused_and_never_repeated(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    message = refusal(monkeypatch, devin_publish_url=value)
    assert message.startswith("DEVIN_PUBLISH_URL is refused (credentials do not belong in it: set those that the ")
    assert SECRET not in message


@pytest.mark.parametrize(
    ("value", "why"),
    [
        *((value, "neither a directory nor a place in a bucket") for value in ("shared", "./a", "~/a", "md:a", "off")),
        *((value, "neither a directory nor a place in a bucket") for value in ("http://h/a", f"s3:/k:{SECRET}@b")),
        *(
            (value, "neither a directory nor a place in a bucket")
            for value in ("s3://", "s3:///a", "s3://b/a", "gs://b-")
        ),
        *((value, "neither a directory nor a place in a bucket") for value in ("s3://bucket/../a", "s3://bucket/a//b")),
        *(
            (value, "neither a directory nor a place in a bucket")
            for value in ("abfs://c/a", "abfs://c@host.example/a")
        ),
        *(
            (value, "options do not belong in it")
            for value in (f"s3://bucket/a?secret_key={SECRET}", "gs://bucket/a#b")
        ),
        *((value, "after file:// comes an absolute path") for value in ("file://host/a", "file://a")),
        *((value, "a directory of its own is needed") for value in ("/", "//", "file:///", "/a/..")),
        *(
            (f"file:///a{hidden}", "it contains a character that is not visible")
            for hidden in ("%00", "%0A", "%E2%80%8B")
        ),
        ("file:///a%FF", "after a % comes a character in UTF-8"),
    ],
)
def test_what_is_no_such_place_is_refused(monkeypatch: pytest.MonkeyPatch, value: str, why: str) -> None:
    message = refusal(monkeypatch, devin_publish_url=value)
    assert message.startswith(f"DEVIN_PUBLISH_URL is refused ({why}")
    assert "Allowed: an absolute path of a directory, s3://bucket/folder, " in message
    assert SECRET not in message
