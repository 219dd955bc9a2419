"""Importers: what people already have, as traces. A format a file; `hvbench import` finds them by their entry points.

A format is a module with one hook (`hvbench.hookspecs.hvbench_import_format`) and an entry point of the group `hvbench`
whose name begins with `import.`; the bundled ones have no other door:

    [project.entry-points.hvbench]
    "import.mine" = "my_package.mine"

`hvbench import ./mine.py FILE…` takes one from a file. `docs/importing.md` has a whole example. What a module needs:

- `hvbench.traces.importers.api`: `Format` (what a format is), `option` (what a user may set), `Import` (what `read` is
  handed: files, threads, notes, bad lines, clocks), `Batch` (rows of a trace, in any order);
- `hvbench.traces.importers.sources`: `Source` (a file or an archive's member, decompressed, as blocks of lines or of
  fixed records), `Lines`;
- `hvbench.traces.demand`: for formats that give averages over intervals and not operations;
- `hvbench.traces.importers.run.import_files`: the whole import, as the command does it.
"""
