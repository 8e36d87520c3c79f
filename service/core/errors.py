"""Every failure that a caller may see, as one tree.

    ServiceError
    ├── InvalidRequest          the request's form is wrong
    ├── InvalidImage            bytes that are no readable image
    ├── InvalidPrompt           a prompt that makes no sense on its image
    ├── InvalidVocabulary       names that cannot be used
    ├── ImageTooLarge           over a limit of bytes or pixels
    ├── UnknownImage            a digest without an embedding
    ├── UnknownVocabulary
    ├── FetchRefused            a URL that the fetch policy does not allow
    ├── Unauthorized / Forbidden
    ├── RateLimited
    ├── Overloaded              a full queue: nothing was done
    ├── Warming                 not ready yet, will be
    ├── BackendUnavailable      the model server does not answer
    ├── SlowUpload              the request's body took too long to come
    └── DeadlineExceeded        the request's time is over

Each says in its message what a client may know. Transports map them in one table (`transports/status.py`).
"""


class ServiceError(Exception):
    """Base of all failures with a public message."""

    def __init__(self, message: str, *, pointer: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.pointer = pointer


class InvalidRequest(ServiceError):
    """The request cannot be understood."""


class InvalidImage(ServiceError):
    """The bytes are not an image of a supported type, or are broken."""


class InvalidPrompt(ServiceError):
    """A prompt is empty, not finite, outside the image, or one of too many."""


class InvalidVocabulary(ServiceError):
    """Class names are missing, too many, too long, or not usable."""


class ImageTooLarge(ServiceError):
    """The image has more bytes or pixels than the limits allow."""


class UnknownImage(ServiceError):
    """No embedding is kept for this digest (any more): upload the image, then retry."""


class UnknownVocabulary(ServiceError):
    """No vocabulary has this name."""


class FetchRefused(ServiceError):
    """The fetch policy does not allow this URL, or it could not be fetched within the limits."""


class Unauthorized(ServiceError):
    """No valid API key came with the request."""


class Forbidden(ServiceError):
    """The API key does not allow this."""


class TemporaryError(ServiceError):
    """A failure that may be gone on the next try, `retry_after` seconds from now."""

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimited(TemporaryError):
    """The caller's own rate is used up."""


class Overloaded(TemporaryError):
    """The queue is full; nothing was done."""


class Warming(TemporaryError):
    """Something is being prepared; the same request will work soon."""


class BackendUnavailable(TemporaryError):
    """The model backend does not answer or answers with a failure."""


class SlowUpload(ServiceError):
    """The request's body did not come whole within the time that an upload may take."""


class DeadlineExceeded(ServiceError):
    """The request's deadline has passed."""
