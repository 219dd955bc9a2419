"""JSON of any size, piece by piece (ijson), with what a user has to be told when it is damaged or cut off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hvbench.errors import UserError
from hvbench.traces.importers.api import Import
from hvbench.traces.importers.sources import Source

Event = tuple[str, str, Any]


def events(source: Source) -> Iterator[Event]:
    """(prefix, event, value) of everything in a file; numbers are floats."""
    try:
        import ijson
    except ImportError as error:
        raise UserError("JSON is read with the library ijson, which is missing: pip install 'hvbench[json]'") from error
    return iter(ijson.parse(source, use_float=True))


def objects(
    job: Import, source: Source, stream: Iterator[Event], whole: tuple[str, ...], scalars: tuple[str, ...] = ()
) -> Iterator[tuple[str, Any]]:
    """What lies at the prefixes `whole` (built up) and `scalars`, in the order of the file.

    A file that ends early gives what is complete; that is noted, as it may still be written.
    """
    import ijson

    builder: Any = None
    inside = ""
    try:
        for prefix, event, value in stream:
            if builder is not None:
                builder.event(event, value)
                if prefix == inside and event in ("end_map", "end_array"):
                    made, builder = builder.value, None
                    yield inside, made
            elif prefix in whole and event in ("start_map", "start_array"):
                builder, inside = ijson.ObjectBuilder(), prefix
                builder.event(event, value)
            elif prefix in scalars and event in ("string", "number", "boolean"):
                yield prefix, value
    except ijson.IncompleteJSONError as error:
        if "premature EOF" not in str(error) and "ncomplete" not in str(error):
            raise UserError(f"{source.name}: not JSON: {_reason(error)}") from error
        job.note(f"{source.name}: the JSON ends early (still being written?): read up to there")
    except ijson.JSONError as error:
        raise UserError(f"{source.name}: not JSON: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    return " ".join(text.split())[:120]
