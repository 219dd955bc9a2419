"""One decorator for everything that runs inside the kernel, and where its compiled code is cached.

A function marked with `@jit` stays a plain Python function: it can be called, stepped through in pdb and
is what interpreted mode runs. `activate()` makes all marked functions known to Numba; only the event loop
and each policy's hooks are compiled as entry points. `dual` marks a function whose compiled form differs
from its Python form (bit counting, wrap-around hashing, reading raw memory).

HVBENCH_INTERPRET=1 runs everything interpreted.

The cache: `HVBENCH_CACHE_DIR`, else the user's cache folder, else a temporary folder (said once on standard error).
Numba's own disk cache looks only at the file of the cached function, so that an edit to a helper in another file
would leave stale code behind: here the folder is named by a digest of all kernel sources, and
entries are keyed by what their owner states (`key`), not by Numba's look at one file. Numba's settings are
left alone: other code in the process keeps its own.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_MARKED: list[Callable[..., Any]] = []
_DUALS: list[tuple[Callable[..., Any], str]] = []
_active: set[int] = set()


def jit(function: F) -> F:
    """Mark a function as part of the kernel, or a helper of a policy. Returns it unchanged."""
    _MARKED.append(function)
    function.__hvbench_marked__ = True  # type: ignore[attr-defined]
    return function


def is_marked(function: Callable[..., Any]) -> bool:
    """Whether a function was marked with `jit`."""
    return getattr(function, "__hvbench_marked__", False) is True


def dual(native: str) -> Callable[[F], F]:
    """Mark a function whose compiled form is `hvbench.state.native.<native>`."""

    def wrap(function: F) -> F:
        _DUALS.append((function, native))
        return function

    return wrap


def interpreted() -> bool:
    """True where HVBENCH_INTERPRET asks for interpreted mode."""
    return os.environ.get("HVBENCH_INTERPRET", "") not in ("", "0")


def activate() -> None:
    """Make all marked functions known to Numba. Cheap when nothing is new."""
    from numba.extending import overload, register_jitable

    from hvbench.state import native

    options: Any = {"pipeline_class": _inner_compiler(), "no_cfunc_wrapper": True}
    for function in _MARKED:
        if id(function) not in _active:
            _active.add(id(function))
            register_jitable(**options)(function)
    for function, name in _DUALS:
        if id(function) not in _active:
            _active.add(id(function))
            overload(function, jit_options=options)(_forwarder(function, getattr(native, name)))


@functools.lru_cache(maxsize=1)
def _inner_compiler() -> Any:
    """A compiler for functions that are only ever part of an entry point.

    Numba optimizes each function on its own, with all that it calls linked in, and makes machine code of it: with
    a deep tree of calls the same code is optimized again and again. Nobody calls a marked function from outside,
    so its module is kept as it is; that of an entry point links them all and is optimized once.
    """
    from numba.core.codegen import JITCodeLibrary
    from numba.core.compiler import CompilerBase, DefaultPassBuilder
    from numba.core.compiler_machinery import register_pass
    from numba.core.typed_passes import NativeLowering

    class InnerLibrary(JITCodeLibrary):
        def finalize(self) -> None:
            self._raise_if_finalized()
            self._finalized = True

        def own_module(self) -> Any:
            """This function alone, so that it can be linked several times."""
            module = self._final_module.clone()
            for function in module.functions:
                if not function.is_declaration and function.linkage.name == "external":
                    function.linkage = "linkonce_odr"
            return module

        def _get_module_for_linking(self) -> Any:
            if self._shared_module is None:
                made = self.own_module()
                seen, left = {id(self)}, list(self._linking_libraries)
                while left:
                    library = left.pop()
                    if id(library) in seen:
                        continue
                    seen.add(id(library))
                    if isinstance(library, InnerLibrary):
                        made.link_in(library.own_module())
                        left.extend(library._linking_libraries)
                    else:
                        made.link_in(library._get_module_for_linking(), preserve=True)
                self._shared_module = made
            return self._shared_module

    @register_pass(mutates_CFG=True, analysis_only=False)
    class KeepModule(NativeLowering):
        _name = "hvbench_keep_module"

        def run_pass(self, state: Any) -> bool:
            state.library = InnerLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
            state.flags.no_compile = True
            super().run_pass(state)
            lowered = state["cr"]
            # stands for a function without an address: Numba wants a built-in one, and each equals only itself
            unique: list[Any] = []
            key = unique.append
            state.targetctx.insert_user_function(key, lowered.fndesc, [state.library])
            state["cr"] = lowered._replace(cfunc=key)
            return True

    class InnerCompiler(CompilerBase):
        def define_pipelines(self) -> list[Any]:
            builder = DefaultPassBuilder.define_nopython_pipeline(self.state)
            builder.passes = [
                (KeepModule if made is NativeLowering else made, why) for made, why in builder.passes
            ]
            builder._finalized = False
            builder.finalize()
            return [builder]

    return InnerCompiler


def _forwarder(function: Callable[..., Any], intrinsic: Any) -> Callable[..., Any]:
    import inspect

    names = ", ".join(inspect.signature(function).parameters)
    scope: dict[str, Any] = {"intrinsic": intrinsic}
    exec(
        f"def outer({names}):\n    def inner({names}):\n        return intrinsic({names})\n    return inner\n",
        scope,
    )
    made: Callable[..., Any] = scope["outer"]
    return made


# the cache ------------------------------------------------------------------------------------------

_KERNEL_SOURCES = ("jit.py", "policy.py", "hookspecs.py", "binding.py", "kernel", "state", "traces/format.py")


@functools.lru_cache(maxsize=1)
def kernel_digest() -> str:
    """Digest of every source that compiled code can contain, of Numba's version and Python's."""
    import numba

    root = Path(__file__).parent
    digest = hashlib.blake2b(digest_size=12)
    digest.update(f"{numba.__version__} {sys.version_info[:2]}".encode())
    for name in _KERNEL_SOURCES:
        path = root / name
        for file in sorted(path.glob("**/*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(root).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _usable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@functools.lru_cache(maxsize=1)
def cache_root() -> Path:
    """The folder that holds compiled code; see the module's docstring for the order."""
    wanted = []
    if os.environ.get("HVBENCH_CACHE_DIR"):
        wanted.append(Path(os.environ["HVBENCH_CACHE_DIR"]))
    home_cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    wanted.append(Path(home_cache) / "hvbench")
    for folder in wanted:
        if _usable(folder):
            return folder
    folder = Path(tempfile.gettempdir()) / f"hvbench-cache-{os.getuid() if hasattr(os, 'getuid') else 0}"
    if not _usable(folder):
        folder = Path(tempfile.mkdtemp(prefix="hvbench-cache-"))
    print(
        f"hvbench: {' and '.join(map(str, wanted))} cannot be written; compiled code goes to {folder} "
        "(set HVBENCH_CACHE_DIR to a folder that can)",
        file=sys.stderr,
    )
    return folder


def clear_cache() -> int:
    """Remove all compiled code of all versions; returns the number of bytes freed."""
    freed = 0
    root = cache_root()
    for folder in root.glob("code-*"):
        freed += sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        shutil.rmtree(folder, ignore_errors=True)
    return freed


def compiled(
    function: Callable[..., Any], signature: Any, name: str, key: str = "", **options: Any
) -> Any:
    """Compile `function` for one explicit signature, or load it: a Numba dispatcher.

    `name` is the entry's file name and `key` everything beyond the kernel's sources that its code depends on
    (a policy's digest). The function may be a closure: neither its file nor its cells are looked at.
    """
    from numba import njit
    from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

    folder = str(cache_root() / f"code-{kernel_digest()}")

    class Locator(_CacheLocator):
        def get_cache_path(self) -> str:
            return folder

        def get_source_stamp(self) -> str:
            return kernel_digest()

        def get_disambiguator(self) -> str:
            return hashlib.blake2b(key.encode(), digest_size=8).hexdigest()

        @classmethod
        def from_function(cls, py_func: Any, py_file: str) -> Any:
            return cls()

    class Impl(CompileResultCacheImpl):
        _locator_classes: Any = [Locator]  # noqa: RUF012

        def get_filename_base(self, fullname: str, abiflags: str) -> str:
            return f"{name}-{self.locator.get_disambiguator()}.py{sys.version_info[0]}{sys.version_info[1]}"

    class Cache(FunctionCache):
        _impl_class = Impl

        def _index_key(self, sig: Any, codegen: Any) -> Any:
            return sig, codegen.magic_tuple(), key

        def load_overload(self, sig: Any, target_context: Any) -> Any:
            try:
                return super().load_overload(sig, target_context)
            except Exception:
                # a damaged or foreign entry is no reason to fail: it is compiled anew and replaced
                return None

        def save_overload(self, sig: Any, data: Any) -> None:
            # a cache that cannot be written (full disk, folder gone) costs time, not the run
            with contextlib.suppress(OSError):
                super().save_overload(sig, data)

    activate()
    dispatcher = njit(nogil=True, **options)(function)
    dispatcher._cache = Cache(function)
    dispatcher.compile(signature)
    return dispatcher


def native_address(dispatcher: Any, signature: Any) -> int:
    """The address to call a compiled function at in Numba's own calling convention."""
    result = dispatcher.get_compile_result(signature)
    return int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))
