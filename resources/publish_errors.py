"""What stands in the way of publishing: what was attempted, what came back, and who can fix it.

A cloud's client has one error for everything, with the service's code in its text. The code decides, and it alone is
shown: the text is the service's own and might repeat a key.
"""

import re

from resources.file_errors import obstacle


class PublishError(Exception):
    """Files could not be published, or the published ones not be read. The message is for the user."""


class PublishFailedForNow(PublishError):
    """The same may succeed later although nobody has done anything: the network, or the service, is in trouble."""


_CODE = re.compile(
    r"AWS Error (?P<aws>\w+)(?: \(HTTP status (?P<status>\d+)\))?(?: during (?P<operation>\w+) operation)?"
    r"(?:.*?Unable to parse ExceptionName: (?P<name>\w+))?"
    r"|google::cloud::Status\((?P<google>\w+)"
    r"|Azure Error: \[(?P<azure>\w+)\](?: (?P<azure_status>\d+))?",
    re.DOTALL,
)
_REFUSED = "Have the job's identity allowed what docs/publishing.md lists, and check that its credentials are set"
_MISSING = "Create the bucket, or correct DEVIN_PUBLISH_URL"
_FULL = "Free some space there, or raise the quota"
_ELSEWHERE = "Set AWS_REGION to the bucket's region"
_EXPIRED = "Renew the credentials"
_CLOCK = "Set this machine's clock"
_UNKNOWN = "Check that address and the credentials"
_LATER = "Check the network, the credentials, and AWS_ENDPOINT_URL if it is set"
_FIXES = {
    **dict.fromkeys(["NO_SUCH_BUCKET", "RESOURCE_NOT_FOUND", "NOT_FOUND", "ContainerNotFound", "404"], _MISSING),
    **dict.fromkeys(["507", "QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "RESOURCE_EXHAUSTED"], _FULL),
    **dict.fromkeys(["PermanentRedirect", "AuthorizationHeaderMalformed", "301"], _ELSEWHERE),
    **dict.fromkeys(["ExpiredToken", "TokenRefreshRequired"], _EXPIRED),
    "REQUEST_TIME_TOO_SKEWED": _CLOCK,
    **dict.fromkeys(["UNAUTHENTICATED", "PERMISSION_DENIED", "AuthorizationFailure", "AuthenticationFailed"], _REFUSED),
    **dict.fromkeys(["ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "401", "403"], _REFUSED),
}
_PASSING = {
    *("NETWORK_CONNECTION", "SLOW_DOWN", "INTERNAL_FAILURE", "SERVICE_UNAVAILABLE", "UNAVAILABLE", "THROTTLING"),
    *("REQUEST_TIMEOUT", "DEADLINE_EXCEEDED", "408", "429", "500", "502", "503", "504"),
}


def explain(error: OSError, attempted: str, kept: str) -> PublishError:
    """The error for the user. attempted: such as "write a.parquet in s3://bucket". kept: a sentence on what is left."""
    again = "and run the same command again."
    found = _CODE.search(str(error))
    if found is None:
        on_disk = obstacle(error)
        why, fix = (on_disk.why, on_disk.fix) if error.errno else (type(error).__name__, _UNKNOWN)
        return PublishError(f"Could not {attempted}: {why}. {kept} {fix}, {again}")
    status = found["status"] or found["azure_status"] or ""
    code: str = found["name"] or found["aws"] or found["google"] or found["azure"]
    came_back = code + (f" (HTTP status {status})" if status else "")
    came_back += f" during {found['operation']}" if found["operation"] else ""
    if known := _FIXES.get(code) or _FIXES.get(status):
        return PublishError(f"Could not {attempted}: {came_back}. {kept} {known}, {again}")
    if {code, status} & _PASSING:
        return PublishFailedForNow(f"Could not {attempted}: {came_back}. {kept} {_LATER}, {again}")
    return PublishError(f"Could not {attempted}: {came_back}. {kept} Look that code up, {again}")
