"""One table from error classes to what clients see, for every transport."""

from dataclasses import dataclass

import grpc

from service.core import errors


@dataclass(frozen=True, slots=True)
class Status:
    """How an error class looks from outside."""

    http: int
    grpc: grpc.StatusCode
    code: str
    title: str


STATUSES: dict[type[errors.ServiceError], Status] = {
    errors.InvalidRequest: Status(400, grpc.StatusCode.INVALID_ARGUMENT, "malformed", "Malformed request"),
    errors.Unauthorized: Status(401, grpc.StatusCode.UNAUTHENTICATED, "unauthorized", "API key missing or wrong"),
    errors.Forbidden: Status(403, grpc.StatusCode.PERMISSION_DENIED, "forbidden", "Not allowed"),
    errors.FetchRefused: Status(403, grpc.StatusCode.PERMISSION_DENIED, "fetch-refused", "URL not allowed"),
    errors.UnknownImage: Status(404, grpc.StatusCode.NOT_FOUND, "image-unknown", "Image not known"),
    errors.UnknownVocabulary: Status(404, grpc.StatusCode.NOT_FOUND, "vocabulary-unknown", "Vocabulary not known"),
    errors.ImageTooLarge: Status(413, grpc.StatusCode.INVALID_ARGUMENT, "too-large", "Too large"),
    errors.InvalidImage: Status(415, grpc.StatusCode.INVALID_ARGUMENT, "not-an-image", "Not a readable image"),
    errors.InvalidPrompt: Status(422, grpc.StatusCode.INVALID_ARGUMENT, "invalid-prompt", "Invalid prompt"),
    errors.InvalidVocabulary: Status(422, grpc.StatusCode.INVALID_ARGUMENT, "invalid-vocabulary", "Invalid names"),
    errors.RateLimited: Status(429, grpc.StatusCode.RESOURCE_EXHAUSTED, "rate-limited", "Too many requests"),
    errors.Overloaded: Status(503, grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded", "Overloaded"),
    errors.Warming: Status(503, grpc.StatusCode.UNAVAILABLE, "warming", "Not ready yet"),
    errors.BackendUnavailable: Status(
        503, grpc.StatusCode.UNAVAILABLE, "backend-unavailable", "Model backend unavailable"
    ),
    errors.SlowUpload: Status(408, grpc.StatusCode.DEADLINE_EXCEEDED, "slow-upload", "Upload too slow"),
    errors.DeadlineExceeded: Status(504, grpc.StatusCode.DEADLINE_EXCEEDED, "deadline", "Time limit exceeded"),
}


def status_of(error: errors.ServiceError) -> Status:
    """The row of an error's class or of its nearest base."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
