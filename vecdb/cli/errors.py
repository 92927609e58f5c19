"""From an exception to one line and an exit code."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import Any

import click

from vecdb.cli.app import cli
from vecdb.cli.codes import exit_code
from vecdb.cli.foreign import show_warnings
from vecdb.cli.hints import hint_for
from vecdb.cli.output import clean
from vecdb.errors import VecdbError
from vecdb.interchange import dumps

__all__ = ["run"]


def run(arguments: list[str]) -> int:
    """Run the program without letting a traceback out."""
    as_json = "--json" in arguments
    logger, handler = logging.getLogger("vecdb"), show_warnings()
    logger.addHandler(handler)
    try:
        return _run(arguments, as_json)
    finally:
        logger.removeHandler(handler)


def _run(arguments: list[str], as_json: bool) -> int:
    try:
        code = cli.main(args=arguments, prog_name="vecdb", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except VecdbError as error:
        return _fail(error.message, hint_for(error), exit_code(error), as_json, error)
    except click.UsageError as error:
        hint = f"see: {error.ctx.command_path} --help" if error.ctx else None
        return _fail(error.format_message(), hint, 2, as_json, error)
    except click.ClickException as error:
        return _fail(error.format_message(), None, 2, as_json, error)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted.", None, 130, as_json, None)
    except BrokenPipeError:
        return _pipe_closed()
    except SystemExit as error:  # click's own answer to a closed pipe is to exit with 1, which means problems here
        if isinstance(error.__context__, BrokenPipeError):
            return _pipe_closed()
        raise
    except OSError as error:
        return _fail(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "), None, 7, as_json, error)
    except Exception as error:  # the last door: a bug must not look like an answer
        return _bug(error, as_json)


def _pipe_closed() -> int:
    # Python flushes stdout once more at exit; it must not meet the closed pipe again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def _bug(error: Exception, as_json: bool) -> int:
    if os.environ.get("VECDB_TRACEBACK"):
        traceback.print_exc()
    message = f"internal error: {type(error).__name__}: {error}"
    return _fail(message, "set VECDB_TRACEBACK=1 to see where, and report it.", 70, as_json, error)


def _fail(message: str, hint: str | None, code: int, as_json: bool, error: Exception | None) -> int:
    if not message.endswith((".", "?", "!", ")")):
        message += "."
    line = message if hint is None else f"{message} Hint: {hint}"
    click.echo(f"vecdb: error: {clean(' '.join(line.split()))}", err=True)
    if as_json:
        kind = type(error).__name__ if error is not None else "Interrupted"
        facts: dict[str, Any] = {"type": kind, "message": message, "hint": hint, "exit_code": code}
        click.echo(dumps({"error": facts | _attributes(error)}))
    return code


def _attributes(error: Exception | None) -> dict[str, Any]:
    """Return the error's attributes as far as JSON can hold them; the rest as text."""
    if not isinstance(error, VecdbError):
        return {}
    found = {name: getattr(error, name) for name in error.fields}
    return {name: _plain(value) for name, value in found.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return str(value)
