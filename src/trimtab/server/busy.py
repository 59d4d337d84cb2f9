"""What could be done, but not now."""

from __future__ import annotations

from trimtab.errors import TrimtabError, Unsupported


class Busy(Unsupported):
    """The server is full: HTTP 503, and the same request may be sent again."""


def status_of(error: TrimtabError) -> tuple[int, str]:
    """(HTTP status, OpenAI's name of the kind): 400 for what was asked, 503 for what may be asked again, 500 for what
    went wrong."""
    if isinstance(error, Busy):
        return 503, "ServiceUnavailableError"
    return (400, "BadRequestError") if error.exit_code == 2 else (500, "InternalServerError")
