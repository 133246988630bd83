"""The kinds of failure of the Devin API, by who must act.

DevinAPIError         a request without a usable response
├── Unauthorized      the user: the key is missing or refused
├── Rejected          the key's owner: the API refuses this request, for instance one organization in it
├── Unavailable       no one: try again later
├── SourceDown        no one: the load stopped, run it again later
├── Misrouted         the user: something other than the API responds at its address
├── NetworkRefused    the user: a variable about proxies or certificates has a value that can't be used
└── ContractBroken    the API's owner: the response breaks the contract
"""


class DevinAPIError(Exception):
    """A request without a usable response. The message is meant for the user; the subclass says who must act."""


class Unauthorized(DevinAPIError):
    """The key is missing or refused. Stop at once: the user must fix the key."""


class Rejected(DevinAPIError):
    """The API itself refuses this request, for instance one organization in it. Retrying won't help."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unavailable(DevinAPIError):
    """The API did not answer this request within the allowed number of tries. A later run may succeed."""


class SourceDown(DevinAPIError):
    """The API answered no request for `patience_seconds`. Stop, and run the same command again later."""


class Misrouted(DevinAPIError):
    """Something other than the API responds at its address. Stop: the user must fix the address or the network."""


class NetworkRefused(DevinAPIError):
    """A variable of the environment about proxies or certificates can't be used. Nothing was sent."""


class ContractBroken(DevinAPIError):
    """A response with status 200 that breaks the contract. None of it may be stored."""
