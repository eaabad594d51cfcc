"""Secrets by reference: tables hold where a password is, never the password.

    ${env:BROKER_PASSWORD}     environment variable
    ${file:secrets/broker}     first line of a file, beside the tables unless absolute
    ${cred:broker}             file in $CREDENTIALS_DIRECTORY, as systemd hands it in
    anything else              the text itself, for laboratories

A value is resolved when it is used and not kept; error texts name the reference, never a value.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from framegate.contract.errors import Misconfigured

SECRET_BYTES_MAX = 65_536
_REFERENCE = re.compile(r"\$\{([a-z]+):([^{}]+)\}")


def resolve(reference: str, base: Path | None = None) -> str:
    """The secret a reference stands for.

    base    folder that relative `${file:...}` paths start from; the working folder if absent
    raises  Misconfigured E2010 - the reference leads nowhere
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        if "${" in reference:
            # The text may be half a password: it is not repeated.
            raise _missing(
                "a reference in credentials", "cannot be read", "write ${env:NAME}, ${file:path} or ${cred:name}"
            )
        return reference
    kind, name = match.groups()
    if kind == "env":
        return _from_environment(name)
    if kind == "file":
        return _from_file(reference, (base or Path()) / name)
    if kind == "cred":
        return _from_credentials_directory(reference, name)
    raise _missing(reference, f'has the unknown kind "{kind}"', "allowed: env, file, cred")


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise _missing(f"${{env:{name}}}", "is not set in the gateway's environment", f"export {name} before the start")
    return value


def _from_credentials_directory(reference: str, name: str) -> str:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder is None:
        raise _missing(
            reference,
            "needs $CREDENTIALS_DIRECTORY, which is not set",
            f"add LoadCredential={name}:/path to the systemd unit, or use ${{file:path}}",
        )
    if "/" in name or name in {".", ".."}:
        raise _missing(reference, "holds a path", "a credential is a bare name; use ${file:path} for a path")
    return _from_file(reference, Path(folder) / name)


def _from_file(reference: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(SECRET_BYTES_MAX + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise _missing(reference, f"cannot be read from {path} ({reason})", "correct the path or its rights") from error
    if len(data) > SECRET_BYTES_MAX:
        raise _missing(
            reference, f"leads to {path}, larger than {SECRET_BYTES_MAX} bytes", "name a file with one secret"
        )
    try:
        return data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise _missing(reference, f"leads to {path}, which is not UTF-8 text", "save the secret as text") from None


def _missing(reference: str, what: str, hint: str) -> Misconfigured:
    return Misconfigured(f"{reference} {what}; {hint}", code="E2010")
