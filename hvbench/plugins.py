"""Finding, loading and checking plugins; the registry of policies.

Policies come from entry points of the group `hvbench` (each names a module; the bundled ones are among
them) and from files (`./mine.py`). They are loaded one by one in the order of their names: one that does not
import, or whose hooks are wrong, is named in `Registry.failed` with its origin and the error, and the
rest load. pluggy checks hooks against `hvbench.hookspecs`; what it lets pass in silence (a misspelt hook
name, a forgotten `@hookimpl`, no hook at all) is an error here.

HVBENCH_LOAD_PLUGINS restricts the entry points: a comma-separated list of entry-point or distribution
names; empty means none. Nothing here imports Numba.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import typing
from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pluggy
from attrs import define, field

from hvbench import units
from hvbench.axes import AXES, COST_AXES, axis_of_hook, looks_like_hook
from hvbench.errors import UserError
from hvbench.guarded_import import ImportEnded, guarded
from hvbench.honours import properties_of
from hvbench.nearest import did_you_mean
from hvbench.related import source_digest
from hvbench.stacks import STACK_HOOK

GROUP = "hvbench"
PROJECT = "hvbench"
IMPORT_PREFIX = "import."
"""Entry points of this prefix are formats that `hvbench import` reads, and no policies."""


@define(frozen=True)
class ParamInfo:
    """One parameter of a policy.

    `alias` is what people see and write: its name without the unit (`timeslice` for `timeslice_ns`), or the whole name
    where another parameter of the policy would have the same (`sample_ns` beside `sample_pages`).
    """

    name: str
    alias: str
    unit: str
    default: int | float | bool
    kind: type
    help: str
    source: str
    low: int | float | None = None
    high: int | float | None = None

    def parse(self, text: str, unit_named: bool = False) -> int | float | bool:
        """The value written as `text`; UserError saying what is legal.

        A time or a size needs a unit, but where the name that was written has it (`timeslice_ns=5000000`).
        """
        value: int | float | bool
        if self.kind is bool:
            words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False}
            words |= {"off": False, "0": False}
            if text.lower() not in words:
                raise UserError(f"{text!r} is neither true nor false")
            return words[text.lower()]
        parse = units.parse_value if unit_named else units.parse_written
        value = parse(text, self.unit, whole=self.kind is int)
        if self.low is not None and value < self.low:
            raise UserError(f"{text!r} is below the least legal value, {self.format(self.low)}")
        if self.high is not None and value > self.high:
            raise UserError(f"{text!r} is above the greatest legal value, {self.format(self.high)}")
        return value

    def format(self, value: int | float | bool) -> str:
        """The text that `parse` reads as `value`."""
        return str(value).lower() if self.kind is bool else units.format_value(value, self.unit or "count")


@define(frozen=True, eq=False)
class Policy:
    """One policy, loaded and checked. `path` is set for a policy that a user gave as a file."""

    name: str
    axis: str
    module: ModuleType
    summary: str
    doc: str
    params_class: type | None
    params: tuple[ParamInfo, ...]
    control: Any
    claims: frozenset[str]
    honours: frozenset[str]
    """Schedulers: what a `[[vm]]` sets that it acts upon (hvbench.honours.PROPERTIES)."""
    digest: str
    origin: str
    path: Path | None = None
    hooks: tuple[str, ...] = ()

    @property
    def from_file(self) -> bool:
        """Whether its cells run in worker processes: code that nobody installed may never return."""
        return self.path is not None

    def param(self, name: str) -> ParamInfo:
        """The parameter of that name, with or without its unit; UserError naming the ones that exist."""
        for info in self.params:
            if name in (info.name, info.alias):
                return info
        several = [info.alias for info in self.params if without_unit(info.name, info.unit) == name]
        if several:
            raise UserError(f"{self.axis} {self.name}: {name!r} may be {' or '.join(several)}; write the whole name")
        if not self.params:
            raise UserError(f"{self.axis} {self.name}: no parameter {name!r}; it has no parameters")
        known = ", ".join(
            f"{info.alias} ({info.unit or info.kind.__name__}, default {info.format(info.default)})"
            for info in self.params
        )
        hint = did_you_mean(name, [info.alias for info in self.params])
        raise UserError(f"{self.axis} {self.name}: no parameter {name!r}{hint}; it has {known}")


@define
class Registry:
    """All policies that loaded, and who did not."""

    policies: dict[tuple[str, str], Policy] = field(factory=dict)
    files: dict[Path, Policy] = field(factory=dict)
    extensions: list[ModuleType] = field(factory=list)
    """Plugins with `hvbench_*` hooks only: they belong to no axis."""
    failed: list[tuple[str, str]] = field(factory=list)

    def axis(self, axis: str) -> list[Policy]:
        """The policies of one axis, sorted by name."""
        return sorted((p for p in self.policies.values() if p.axis == axis), key=lambda p: p.name)

    def get(self, axis: str, name: str) -> Policy:
        """A policy by name; UserError with the nearest names, or with why it did not load."""
        policy = self.policies.get((axis, name))
        if policy is not None:
            return policy
        for origin, error in self.failed:
            if re.search(rf"(^|[\W_]){re.escape(name)}($|[\W_])", origin):
                raise UserError(f"{axis} {name}: did not load: {origin}: {error}")
        elsewhere = [p.axis for p in self.policies.values() if p.name == name]
        if elsewhere:
            raise UserError(f"{name} is a policy of the axis {elsewhere[0]}, not {axis}")
        hint = did_you_mean(name, [p.name for p in self.axis(axis)], always=True)
        raise UserError(f"no {axis} policy {name!r}{hint}; a file is written ./{name}.py")

    def load_file(self, path: Path) -> Policy:
        """The policy in a file, loaded once. UserError where it does not import or is no policy."""
        resolved = path.resolve()
        if resolved in self.files:
            return self.files[resolved]
        policy = _describe(import_file(path), str(path), path=resolved)
        if isinstance(policy, ModuleType):
            raise UserError(f"{path}: has no policy: set AXIS to one of {', '.join(AXES)}")
        if (policy.axis, policy.name) in self.policies:
            # A copy of a bundled policy under test keeps its name's place in tables, told apart by its path.
            policy = attrs.evolve(policy, name=str(path))
        self.files[resolved] = policy
        self.policies[policy.axis, policy.name] = policy
        return policy

    def forget_file(self, path: Path) -> None:
        """Load the file anew when it is next asked for (it has changed)."""
        policy = self.files.pop(path.resolve(), None)
        if policy is not None:
            self.policies.pop((policy.axis, policy.name), None)


def load_registry(files: Iterable[Path] = (), strict: bool = False) -> Registry:
    """All installed policies and the given files. `strict` raises the first error instead of noting it."""
    registry = Registry()
    for point in wanted_entry_points():
        if point.name.startswith(IMPORT_PREFIX):
            continue  # formats of traces: hvbench.traces.importers.registry finds them when something is imported
        origin = origin_of(point)
        try:
            loaded = _describe(import_module(point.value), origin)
            if isinstance(loaded, ModuleType):
                registry.extensions.append(loaded)
            elif (loaded.axis, loaded.name) in registry.policies:
                first = registry.policies[loaded.axis, loaded.name].origin
                raise UserError(f"the {loaded.axis} policy {loaded.name!r} is already there, from {first}")
            else:
                registry.policies[loaded.axis, loaded.name] = loaded
        except UserError as error:
            if strict:
                raise UserError(f"{origin}: {error}") from error
            registry.failed.append((origin, str(error)))
    for path in files:
        registry.load_file(path)
    return registry


def manager_of(policies: Iterable[Policy]) -> pluggy.PluginManager:
    """A plugin manager that holds exactly the given policies, the first one called first."""
    from hvbench import hookspecs

    manager = hookspecs.plugin_manager()
    # pluggy calls the last registered first.
    for policy in reversed(list(policies)):
        manager.register(policy.module, name=f"{policy.axis}.{policy.name}")
    return manager


# --- finding -------------------------------------------------------------------------------------------


def wanted_entry_points() -> list[EntryPoint]:
    """Entry points sorted by name: their own order is arbitrary."""
    found = sorted(entry_points(group=GROUP), key=lambda p: (p.name, p.value))
    # An editable install beside a wheel lists the same point twice.
    points = list({(point.name, point.value): point for point in found}.values())
    wanted = os.environ.get("HVBENCH_LOAD_PLUGINS")
    if wanted is None:
        return points
    names = {name.strip() for name in wanted.split(",") if name.strip()}
    return [p for p in points if p.name in names or (p.dist is not None and p.dist.name in names)]


def origin_of(point: EntryPoint) -> str:
    if point.dist is None:
        return f"entry point {point.name}"
    if point.dist.name == PROJECT:
        return f"bundled {point.name}"
    return f"{point.dist.name} {point.dist.version}, entry point {point.name}"


def import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UserError(_one_line(error)) from error


def import_file(path: Path) -> ModuleType:
    """Import a file under a name of its own: two files called mine.py must not replace each other."""
    if not path.is_file():
        raise UserError(f"{path}: no such policy file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    stem = re.sub(r"\W", "_", path.stem)
    unique = hashlib.blake2b(str(path.resolve()).encode() + b"\0" + content, digest_size=8).hexdigest()
    name = f"hvbench_file_{stem}_{unique}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: not a Python file; a policy file ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with guarded():
            spec.loader.exec_module(module)
    except KeyboardInterrupt:
        del sys.modules[name]
        raise
    except BaseException as error:
        del sys.modules[name]
        raise UserError(f"{path}: does not import: {_one_line(error, path)}") from error
    return module


def _one_line(error: BaseException, path: Path | None = None) -> str:
    """An exception as one line, with the line of `path` it came from."""
    line = 0
    if isinstance(error, SyntaxError):
        line = error.lineno or 0
    elif path is not None:
        trace = error.__traceback__
        while trace is not None:
            if Path(trace.tb_frame.f_code.co_filename) == path.resolve():
                line = trace.tb_lineno
            trace = trace.tb_next
    text = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    if not isinstance(error, ImportEnded):
        text = f"{type(error).__name__}: {text}"
    return text + (f" (line {line})" if line else "")


# --- checking ------------------------------------------------------------------------------------------


def _describe(module: ModuleType, origin: str, path: Path | None = None) -> Policy | ModuleType:
    """A module as a policy; the module itself where it has coarse hooks only. Raises UserError."""
    where = f"{path}: " if path is not None else ""
    try:
        hooks = check_hooks(module)
        axis = _find_axis(module, hooks)
        if axis is None:
            return module
        params_class = getattr(module, "Params", None)
        params = _read_params(params_class) if params_class is not None else ()
        honours = _read_honours(module, axis)
        if STACK_HOOK in hooks and (axis != "memory" or len(hooks) > 1):
            raise UserError(f"{STACK_HOOK} names other memory policies: this one is of that axis and has no other hook")
        if not hooks and not (axis in COST_AXES and params):
            raise UserError("registered nothing: no function is marked with @hookimpl")
    except UserError as error:
        raise UserError(f"{where}{error}") from error
    doc = inspect.getdoc(module) or ""
    stem = path.stem if path is not None else module.__name__.rpartition(".")[2]
    # A package's module is hvbench_my_policy by convention, so that it meets no other one; its policy is my-policy.
    stem = stem.removeprefix("hvbench_") or stem
    return Policy(
        name=str(getattr(module, "NAME", stem.replace("_", "-"))),
        axis=axis,
        module=module,
        summary=doc.split("\n", 1)[0],
        doc=doc,
        params_class=params_class,
        params=params,
        control=getattr(module, "CONTROL", None),
        claims=frozenset(getattr(module, "CLAIMS", ())),
        honours=honours,
        digest=source_digest(module),
        origin=origin,
        path=path,
        hooks=hooks,
    )


def check_hooks(module: ModuleType) -> tuple[str, ...]:
    """Names of the module's hooks, after pluggy has accepted them."""
    from hvbench import hookspecs

    specs = {name: value for name, value in vars(hookspecs).items() if hasattr(value, "hvbench_spec")}
    hooks: list[str] = []
    for name, value in vars(module).items():
        if not inspect.isfunction(value):
            continue
        options = getattr(value, "hvbench_impl", None)
        if options is None:
            # Helpers imported from elsewhere may be called anything.
            if looks_like_hook(name) and value.__module__ == module.__name__:
                if name in specs:
                    raise UserError(f"{name} is not marked with @hookimpl")
                hint = did_you_mean(name, list(specs))
                raise UserError(f"{name} is named like a hook, but is none{hint}; rename it, or mark it @hookimpl")
            continue
        hook = options.get("specname") or name
        if hook not in specs:
            raise UserError(f"unknown hook {hook}{did_you_mean(hook, list(specs), always=True)}")
        legal = list(inspect.signature(specs[hook]).parameters)
        unknown = [argument for argument in inspect.signature(value).parameters if argument not in legal]
        if unknown:
            raise UserError(f"{hook} has the unknown argument {unknown[0]!r}; it may have {', '.join(legal)}")
        hooks.append(hook)
    manager = hookspecs.plugin_manager()
    try:
        manager.register(module)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise UserError(" ".join(str(error).split())) from error
    return tuple(sorted(hooks))


def _find_axis(module: ModuleType, hooks: tuple[str, ...]) -> str | None:
    """The axis that the module states, else the one its hooks belong to; None for coarse hooks only."""
    axes = sorted({axis for hook in hooks if (axis := axis_of_hook(hook)) is not None})
    stated = getattr(module, "AXIS", None)
    if stated is not None:
        if stated not in AXES:
            raise UserError(f"AXIS = {stated!r} is no axis; legal: {', '.join(AXES)}")
        foreign = [axis for axis in axes if axis != stated]
        if foreign:
            raise UserError(f"AXIS is {stated!r}, but it has hooks of the axis {foreign[0]}")
        return str(stated)
    if len(axes) > 1:
        raise UserError(f"has hooks of several axes ({', '.join(axes)}); a policy is of one")
    if axes:
        return axes[0]
    if not hooks:
        raise UserError("registered nothing: no function is marked with @hookimpl")
    return None


def _read_honours(module: ModuleType, axis: str) -> frozenset[str]:
    """What a policy says that it honours; nothing where it says nothing."""
    stated = getattr(module, "HONOURS", ())
    if isinstance(stated, str) or not isinstance(stated, Collection):
        raise UserError(f"HONOURS = {stated!r} is no set of names; write frozenset({{'weight', 'pinning'}})")
    legal = properties_of(axis)
    if stated and not legal:
        raise UserError(f"HONOURS is for schedulers and memory policies; this is a policy of the axis {axis}")
    for name in stated:
        if name not in legal:
            raise UserError(f"HONOURS has {name!r}, which no [[vm]] can set; legal: {', '.join(legal)}")
    return frozenset(stated)


def _read_params(cls: type) -> tuple[ParamInfo, ...]:
    """The parameters that a `Params` class declares."""
    if not attrs.has(cls):
        raise UserError("Params is not an attrs class; decorate it with @attrs.define or @attrs.frozen")
    try:
        types = typing.get_type_hints(cls)
    except Exception as error:
        raise UserError(f"Params: a type cannot be resolved: {_one_line(error)}") from error
    found = []
    for attribute in attrs.fields(cls):
        kind, default = types.get(attribute.name), attribute.default
        if kind not in (int, float, bool):
            raise UserError(f"Params.{attribute.name}: annotate it as int, float or bool")
        if default is attrs.NOTHING or isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            raise UserError(f"Params.{attribute.name}: has no default; write it with param(default, help=...)")
        unit = attribute.metadata.get("unit", "")
        _check_default(attribute.name, kind, default, unit, attribute.metadata)
        found.append(
            ParamInfo(
                name=attribute.name,
                alias=without_unit(attribute.name, unit),
                unit=unit,
                default=default,
                kind=kind,
                help=attribute.metadata.get("help", ""),
                source=attribute.metadata.get("source", ""),
                low=attribute.metadata.get("low"),
                high=attribute.metadata.get("high"),
            )
        )
    written = [name for info in found for name in {info.name, info.alias}]
    return tuple(attrs.evolve(info, alias=info.name) if written.count(info.alias) > 1 else info for info in found)


def without_unit(name: str, unit: str) -> str:
    """A parameter's name without the suffix of its unit: `timeslice` for `timeslice_ns`."""
    suffix = {"page_count": "pages"}.get(unit, units.canonical_unit(unit))
    return name.removesuffix(f"_{suffix}") if unit else name


def _check_default(name: str, kind: type, default: Any, unit: str, metadata: Mapping[str, Any]) -> None:
    """UserError where a default is of another type, or outside of the range that the parameter states itself."""
    what = f"Params.{name}: its default {default!r}{f' {unit}' if unit else ''}"
    if not isinstance(default, kind) and not (kind is float and type(default) is int):
        told = "; a part of a unit needs a smaller unit, or the annotation float" if isinstance(default, float) else ""
        raise UserError(f"{what} is no {kind.__name__}, as it is annotated{told}")
    low, high = metadata.get("low"), metadata.get("high")
    if low is not None and default < low:
        raise UserError(f"{what} is below its own low, {low}; is it in another unit?")
    if high is not None and default > high:
        raise UserError(f"{what} is above its own high, {high}; is it in another unit?")


# --- parameters ----------------------------------------------------------------------------------------


def bind_params(policy: Policy, settings: Mapping[str, str]) -> Any:
    """The policy's `Params` with `settings` applied, e.g. `{"timeslice": "5ms"}`; None where it has none.

    Raises UserError: an unknown parameter (naming the existing ones), a bad value (naming its unit), one
    that is set twice, or one that the class itself refuses.
    """
    values: dict[str, int | float | bool] = {}
    for name, text in settings.items():
        info = policy.param(name)
        if info.name in values:
            raise UserError(f"{policy.axis} {policy.name}: {info.alias} is set twice")
        try:
            values[info.name] = info.parse(text, name == info.name != without_unit(name, info.unit))
        except UserError as error:
            raise UserError(f"{policy.axis} {policy.name}: {info.alias}: {error}") from error
    if policy.params_class is None:
        return None
    try:
        return policy.params_class(**{_init_name(name): value for name, value in values.items()})
    except (ValueError, TypeError) as error:
        raise UserError(f"{policy.axis} {policy.name}: {_one_line(error)}") from error


def _init_name(name: str) -> str:
    """attrs drops leading underscores in `__init__`."""
    return name.lstrip("_")


def params_dict(params: Any) -> dict[str, int | float | bool]:
    """A `Params` instance as plain values; empty for None."""
    return {} if params is None else attrs.asdict(params)


def changed_params(policy: Policy, params: Any) -> dict[str, str]:
    """The parameters that differ from their defaults, as text that `bind_params` reads back."""
    values = params_dict(params)
    return {info.alias: info.format(values[info.name]) for info in policy.params if values[info.name] != info.default}
