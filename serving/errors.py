"""Errors as the OpenAI API shapes them: {"error": {"message", "type", "param", "code"}}, for every status
that this server sends.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from rows.unicode import printable


class ApiError(Exception):
    """What goes wrong with a request; becomes the HTTP answer, or the last event of a stream that
    has begun.
    """

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's shape."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {
            "error": {"message": printable(str(self)), "type": kind, "param": self.param, "code": self.code}
        }


def install_handlers(app: FastAPI, bodies: Mapping[str, type[BaseModel]]) -> None:
    """Makes the app answer its own errors, FastAPI's and Starlette's in the one shape.

    bodies: the request body of each path, whose fields are suggested for an unknown one.
    """
    converters: dict[type[Exception], Callable[[Request, Any], ApiError]] = {
        ApiError: lambda request, error: error,
        RequestValidationError: lambda request, error: _from_validation(bodies, request.url.path, error),
        HTTPException: lambda request, error: ApiError(
            error.status_code, f"{error.detail}; see /docs for what this server answers"
        ),
    }
    for kind, convert in converters.items():
        app.add_exception_handler(kind, _handler(convert))


def _handler(convert: Callable[[Request, Any], ApiError]) -> Callable[[Request, Exception], JSONResponse]:
    def answer(request: Request, error: Exception) -> JSONResponse:
        api_error = convert(request, error)
        return JSONResponse(api_error.body(), api_error.status, headers=getattr(error, "headers", None))

    return answer


def _from_validation(
    bodies: Mapping[str, type[BaseModel]], path: str, error: RequestValidationError
) -> ApiError:
    """The first complaint of pydantic, in words; its place in the body is the `param`."""
    first = error.errors()[0]
    kind = first["type"]
    place = [str(part) for part in first["loc"][1:]]
    if kind == "json_invalid":
        return ApiError(400, f"the body is not valid JSON: {first['ctx']['error']}")
    if not place:
        return ApiError(400, "the body must be a JSON object, sent with Content-Type: application/json")
    param = ".".join(place)
    if kind == "extra_forbidden":
        hint = _hint(bodies, path, param) if len(place) == 1 else ""
        return ApiError(400, f"unknown parameter {param!r}{hint}", param, "unknown_parameter")
    if kind == "missing":
        return ApiError(400, f"the parameter {param!r} is missing", param, "missing_required_parameter")
    if kind == "value_error":
        return ApiError(400, str(first["ctx"]["error"]), param)
    return ApiError(400, f"{param}: {first['msg'][:1].lower()}{first['msg'][1:]}", param)


def _hint(bodies: Mapping[str, type[BaseModel]], path: str, param: str) -> str:
    """What to do about an unknown parameter: the endpoint that has it, or the nearest name here."""
    for other, body in bodies.items():
        if other != path and param in body.model_fields:
            return f"; it belongs to {other}"
    known = bodies[path].model_fields if path in bodies else ()
    nearest = difflib.get_close_matches(param, known, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
