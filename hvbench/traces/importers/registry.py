"""Which formats there are: from entry points whose name begins with `import.`, and from files."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
from attrs import define, field

from hvbench import plugins
from hvbench.errors import UserError
from hvbench.nearest import did_you_mean
from hvbench.traces.importers.api import Format, Head
from hvbench.traces.importers.sources import first_head

HOOK = "hvbench_import_format"
_WRAPPINGS = (".gz", ".xz", ".zst", ".bz2", ".tar", ".tgz")
SURE = 0.1
"""The least confidence that a guess is taken at."""


@define
class Formats:
    """All formats that loaded, by name, and who did not."""

    by_name: dict[str, Format] = field(factory=dict)
    failed: list[tuple[str, str]] = field(factory=list)

    def get(self, name: str) -> Format:
        """A format by name, or from a file (`./mine.py`, which states exactly one); UserError with the nearest."""
        if name.endswith(".py"):
            made = formats_of(plugins.import_file(Path(name)), name)
            if len(made) > 1:
                raise UserError(f"{name}: states {len(made)} formats; a file given as a format states one")
            return made[0]
        if name in self.by_name:
            return self.by_name[name]
        for origin, error in self.failed:
            if name in origin:
                raise UserError(f"format {name}: did not load: {origin}: {error}")
        hint = did_you_mean(name, list(self.by_name), always=True)
        raise UserError(f"no format {name!r}{hint}; `hvbench import --list` lists them")

    def guess(self, path: Path) -> Format:
        """The format that recognises a file; UserError where none does, or two do equally."""
        name, data = first_head(path)
        return self.recognise(Head(bare_name(name), data), str(path))

    def recognise(self, head: Head, where: str) -> Format:
        """The format that is surest of a head. A fitting extension decides between equals."""
        scored = []
        for format in self.by_name.values():
            sure = format.sniff(head)
            fits = any(head.name.endswith(extension) for extension in format.extensions)
            if sure >= SURE:
                scored.append((round(sure, 3), fits, format))
        if not scored:
            if hint := what_helps(head):
                raise UserError(f"{where}: {hint}")
            raise UserError(
                f"{where}: no format recognises it; name one: `hvbench import FORMAT FILE…` "
                f"({', '.join(sorted(self.by_name))})"
            )
        scored.sort(key=lambda item: item[:2], reverse=True)
        if len(scored) > 1 and scored[0][:2] == scored[1][:2]:
            names = [item[2].name for item in scored if item[:2] == scored[0][:2]]
            raise UserError(f"{where}: may be {' or '.join(sorted(names))}; name the format")
        return scored[0][2]


_MAGIC = (
    (b"PERFILE2", "perf's binary data: write it as text, `perf script -i FILE > x.txt`, and import that"),
    (b"2ELIFREP", "perf's binary data of a big-endian machine: `perf script -i FILE > x.txt`, and import that"),
    (b"\x17\x08Dtracing", "trace-cmd's binary data: write it as text, `trace-cmd report FILE > x.txt`"),
    (b"\xc1\x1f\xfc\xc1", "a CTF trace: write it as text, `babeltrace2 FOLDER > x.txt`; what can be read is in --list"),
    (b"\x96\xd5", "sar's binary data: write it as JSON, `sadf -j FILE -- -A > x.json`, and import that"),
    (b"\xd5\x96", "sar's binary data: write it as JSON, `sadf -j FILE -- -A > x.json`, and import that"),
)


def what_helps(head: Head) -> str:
    """What a file that no format recognises seems to be, and what to do with it; "" where nothing is known."""
    if not head.data:
        return "is empty"
    for magic, hint in _MAGIC:
        if head.data.startswith(magic):
            return hint
    lines = [line for line in head.lines(5) if line] if head.is_text else []
    commas = {line.count(b",") for line in lines}
    if len(commas) == 1 and commas.pop() >= 2:
        return (
            "no format recognises it; a CSV of block requests is read with its columns named: "
            "`hvbench import block FILE --columns time,op,offset,size --time-unit us -o NEW.parquet`"
        )
    return ""


def bare_name(name: str) -> str:
    """A file's name without the endings of compressions and archives."""
    stem = os.path.basename(name)
    while stem.endswith(_WRAPPINGS):
        stem = stem.rpartition(".")[0]
    return stem


def load_formats() -> Formats:
    """All installed formats, sorted by entry point. HVBENCH_LOAD_PLUGINS restricts them as it does policies."""
    formats = Formats()
    for point in plugins.wanted_entry_points():
        if not point.name.startswith(plugins.IMPORT_PREFIX):
            continue
        origin = plugins.origin_of(point)
        try:
            for format in formats_of(plugins.import_module(point.value), origin):
                if format.name in formats.by_name:
                    raise UserError(f"the format {format.name!r} is there already")
                formats.by_name[format.name] = format
        except UserError as error:
            formats.failed.append((origin, str(error)))
    return formats


def formats_of(module: ModuleType, origin: str) -> tuple[Format, ...]:
    """What a module's hook states; UserError where it has none or answers something else."""
    if HOOK not in plugins.check_hooks(module):
        raise UserError(f"{origin}: has no hook {HOOK}, marked @hookimpl: it is no format")
    from hvbench import hookspecs

    manager = hookspecs.plugin_manager()
    manager.register(module)
    stated: Any = manager.hook.hvbench_import_format()
    made = stated if isinstance(stated, tuple) else (stated,)
    for format in made:
        if not isinstance(format, Format):
            raise UserError(f"{origin}: {HOOK} answered {format!r}; legal: a Format, or a tuple of them")
    doc = inspect.getdoc(module) or ""
    return tuple(format if format.doc else attrs.evolve(format, doc=doc) for format in made)
