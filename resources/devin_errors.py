"""The kinds of failure of the Devin API, by who must act.

DevinAPIError         a question that got no usable answer
├── Unauthorized      the user: the key is missing or refused
├── Rejected          the key's owner: the API refuses this question, such as one organization in it
├── Unavailable       nobody: ask again later
├── SourceDown        nobody: ask again later; the load has ended
├── Misrouted         the user: something else answers at the API's address
└── ContractBroken    the API's owner: the answer is not what the contract says
"""


class DevinAPIError(Exception):
    """A question that got no usable answer. The message is a sentence for the user; the subclass says who must act."""


class Unauthorized(DevinAPIError):
    """The key is missing or refused: stop at once, the user must mend the key."""


class Rejected(DevinAPIError):
    """The API itself refuses this question, for instance one organization in it. Asking again is of no use."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unavailable(DevinAPIError):
    """No answer of the API's to this question for as many tries as are allowed. A later run may succeed."""


class SourceDown(DevinAPIError):
    """The API answered nobody for as long as patience has: stop, and run the same again later."""


class Misrouted(DevinAPIError):
    """Something else than the API answers at its address: stop, the user must see to the address or the network."""


class ContractBroken(DevinAPIError):
    """An answer with status 200 that is not what the contract says. Nothing of it may be stored."""
