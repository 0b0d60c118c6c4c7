"""Errors as the OpenAI API shapes them: {"error": {"message", "type", "param", "code"}}, for every status
that this server sends.
"""

import difflib
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse


class ApiError(Exception):
    """What goes wrong with a request; becomes the HTTP answer, or the last event of a stream that has "
    "begun."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's shape."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def install_handlers(app: FastAPI, parameters: Collection[str]) -> None:
    """Makes the app answer its own errors, FastAPI's and Starlette's in the one shape; parameters: names to
    suggest for an unknown one.
    """
    converters: dict[type[Exception], Callable[[Any], ApiError]] = {
        ApiError: lambda error: error,
        RequestValidationError: partial(_from_validation, parameters),
        HTTPException: lambda error: ApiError(
            error.status_code, f"{error.detail}; see /docs for what this server answers"
        ),
    }
    for kind, convert in converters.items():
        app.add_exception_handler(kind, _handler(convert))


def _handler(convert: Callable[[Any], ApiError]) -> Callable[[Request, Exception], JSONResponse]:
    def answer(request: Request, error: Exception) -> JSONResponse:
        api_error = convert(error)
        return JSONResponse(api_error.body(), api_error.status, headers=getattr(error, "headers", None))

    return answer


def _from_validation(parameters: Collection[str], error: RequestValidationError) -> ApiError:
    """The first complaint of pydantic, in words; its place in the body is the `param`."""
    first = error.errors()[0]
    kind = first["type"]
    path = [str(part) for part in first["loc"][1:]]
    if kind == "json_invalid":
        return ApiError(400, f"the body is not valid JSON: {first['ctx']['error']}")
    if not path:
        return ApiError(400, "the body must be a JSON object, sent with Content-Type: application/json")
    param = ".".join(path)
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(param, parameters, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return ApiError(400, f"unknown parameter {param!r}{hint}", param, "unknown_parameter")
    if kind == "missing":
        return ApiError(400, f"the parameter {param!r} is missing", param, "missing_required_parameter")
    if kind == "value_error":
        return ApiError(400, str(first["ctx"]["error"]), param)
    return ApiError(400, f"{param}: {first['msg'][:1].lower()}{first['msg'][1:]}", param)
