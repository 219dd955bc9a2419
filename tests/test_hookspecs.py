"""Every hook is documented, called and tested; the kernel computes only with what is the same everywhere."""

from __future__ import annotations

import ast
import inspect
import re
from functools import lru_cache
from pathlib import Path

import pytest

from hvbench import hookspecs
from hvbench.axes import AXES
from hvbench.hookspecs import HOOKS, LAYERS, PREFIXES, Hook
from hvbench.kernel import hook_rows
from tests.builders import ROOT

KERNEL = ROOT / "hvbench" / "kernel"
COARSE = [n for n, f in vars(hookspecs).items() if n.startswith("hvbench_") and hasattr(f, "hvbench_spec")]

HEAD = re.compile(
    r"^(?P<summary>\S.*\.) \[(?P<kind>decide|notify)(?P<coarse>, coarse|, once a cell)?(?P<systems>;.*)?\](?P<rest>.*)$"
)


def spec_of(name: str) -> object:
    return getattr(hookspecs, name).hvbench_spec


@pytest.mark.parametrize("name", [*HOOKS, *COARSE])
def test_docstrings_have_the_fixed_form(name: str) -> None:
    doc = inspect.getdoc(getattr(hookspecs, name))
    assert doc, f"{name} has no docstring"
    first = HEAD.match(" ".join(doc.split("\n\n")[0].split()))
    assert first is not None, f"{name}: the first paragraph must end in [decide|notify; system callback; ...]: {doc!r}"
    decides = bool(spec_of(name)["firstresult"])  # type: ignore[index]
    assert first["kind"] == ("decide" if decides else "notify")
    if name in HOOKS:
        assert first["systems"] and len(first["systems"]) > 4, f"{name} names no callback of a real system"
        assert re.search(r"\bWhen: |\bArguments: |\bReturns: ", doc) or not decides
    if decides:
        assert "Returns:" in doc, f"{name} answers: its docstring says what"
        assert "Default:" in doc, f"{name} answers: its docstring says what happens without it"


@pytest.mark.parametrize("name", HOOKS)
def test_arguments_are_what_the_adapters_can_pass(name: str) -> None:
    parameters = list(inspect.signature(getattr(hookspecs, name)).parameters)
    assert parameters[0] == "host"
    assert len(HOOKS[name].arguments) <= 5
    assert parameters[-1] == "now", "every hook knows the time"


def test_memory_hooks_say_how_layers_compose() -> None:
    for name, hook in HOOKS.items():
        if hook.axis == "memory" and hook.decides:
            assert "Layers:" in hook.doc, f"{name} does not say how the layers of a stack compose"


def test_axes_and_prefixes_agree() -> None:
    assert set(PREFIXES.values()) <= set(AXES)
    for hook in HOOKS.values():
        assert hook.axis == PREFIXES[hook.name.split("_")[0]]


def test_no_hook_is_new_to_this_walk() -> None:
    declared = {n for n, f in vars(hookspecs).items() if inspect.isfunction(f) and hasattr(f, "hvbench_spec")}
    assert declared == set(HOOKS) | set(COARSE)


# rows and calls ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", HOOKS.values(), ids=lambda h: h.name)
def test_every_hook_has_a_row_constant(hook: Hook) -> None:
    constant = getattr(hook_rows, hook.name.upper(), None)
    assert constant == hookspecs.row(hook.name)
    assert constant % LAYERS == 0


def test_rows_are_different() -> None:
    rows = [hookspecs.row(n, layer) for n in HOOKS for layer in range(LAYERS)]
    assert len(set(rows)) == len(rows)


@lru_cache(maxsize=1)
def kernel_trees() -> dict[str, ast.Module]:
    return {str(p.relative_to(ROOT)): ast.parse(p.read_text(), str(p)) for p in sorted(KERNEL.rglob("*.py"))}


@lru_cache(maxsize=1)
def rows_used() -> dict[str, set[str]]:
    """Row constants that stand as an argument of a call in the kernel, and the functions called with them."""
    used: dict[str, set[str]] = {}
    for tree in kernel_trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
                for argument in node.args:
                    for inner in ast.walk(argument):
                        if isinstance(inner, ast.Name):
                            used.setdefault(inner.id, set()).add(name)
    return used


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_called_by_the_kernel(name: str) -> None:
    callers = {c for c in rows_used().get(name.upper(), set()) if c == "tell" or "ask" in c}
    assert callers, f"{name} is declared, but nothing in hvbench/kernel asks or tells it"


@lru_cache(maxsize=1)
def sources_of_tests() -> str:
    return "\n".join(p.read_text() for p in sorted((ROOT / "tests").rglob("*.py")) if p.name != Path(__file__).name)


@pytest.mark.parametrize("name", [*HOOKS, *COARSE])
def test_every_hook_is_implemented_by_a_test(name: str) -> None:
    """By a policy or observer that a test makes, or by a bundled policy that a test names."""
    tests = sources_of_tests()
    if re.search(rf"def {name}\(|\b{name}\s*=[^=]", tests):
        return
    bundled = [p for p in (ROOT / "plugins").rglob("*.py") if re.search(rf"^def {name}\(", p.read_text(), re.M)]
    named = [p for p in bundled if re.search(rf"\b{p.stem}\b|\b{p.stem.replace('_', '-')}\b", tests)]
    assert named, f"no test implements {name}, and no bundled policy that a test names"


# lint of what is compiled -----------------------------------------------------------------------------------

FORBIDDEN_NAMES = frozenset({"np", "numpy", "math", "random", "sum", "sorted", "pow", "round", "float", "hash", "id"})
ALLOWED_CALLS = frozenset({"len", "range", "min", "max", "int", "abs", "bool", "IndexError", "ValueError"})
FORBIDDEN_OPERATORS = (ast.Pow, ast.MatMult)


def jitted(tree: ast.Module) -> list[ast.FunctionDef]:
    """Functions of a module that are compiled."""
    return [
        f
        for f in ast.walk(tree)
        if isinstance(f, ast.FunctionDef) and any(isinstance(d, ast.Name) and d.id == "jit" for d in f.decorator_list)
    ]


def complaints(function: ast.FunctionDef) -> list[str]:
    """What a compiled function uses that might differ from machine to machine, or cost a Python object."""
    found = []
    for node in ast.walk(ast.Module(body=function.body, type_ignores=[])):
        where = f"{function.name}:{getattr(node, 'lineno', '?')}"
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, FORBIDDEN_OPERATORS):
            found.append(f"{where}: operator {type(node.op).__name__}")
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(f"{where}: import")
        if isinstance(
            node,
            ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.Dict | ast.Set | ast.List | ast.JoinedStr
            | ast.Lambda | ast.With | ast.Try | ast.Yield | ast.Await | ast.Global | ast.Nonlocal,
        ):
            found.append(f"{where}: {type(node).__name__}")
        if isinstance(node, ast.Name) and node.id in FORBIDDEN_NAMES:
            found.append(f"{where}: name {node.id}")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("np", "math"):
            found.append(f"{where}: {ast.unparse(node)}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            found.append(f"{where}: method call {ast.unparse(node.func)}")
    return found


def test_the_lint_finds_what_it_forbids() -> None:
    bad = "@jit\ndef f(x):\n    y = np.sum(x) ** 2\n    z = [i for i in x]\n    return math.exp(y) + x.sum()\n"
    found = complaints(jitted(ast.parse(bad))[0])
    for what in ("operator Pow", "name np", "name math", "ListComp", "method call x.sum"):
        assert any(what in f for f in found), (what, found)


SQRT = ("name math", "math.sqrt", "method call math.sqrt")
"""Correctly rounded by IEEE 754, so the same everywhere."""

EXCEPTIONS = {
    # a cast that is the same in both modes
    ("hvbench/kernel/arena.py", "word"): ("name np", "np.int64", "method call np.int64"),
    ("hvbench/kernel/disk.py", "positioning_ns"): SQRT,
}


def test_the_kernel_computes_with_integers_and_plain_arithmetic() -> None:
    found = []
    for path, tree in kernel_trees().items():
        for function in jitted(tree):
            allowed = EXCEPTIONS.get((path, function.name), ())
            for complaint in complaints(function):
                if not complaint.split(": ", 1)[1].startswith(allowed or "\0"):
                    found.append(f"{path}: {complaint}")
    assert not found, "\n".join(found)


def test_the_kernel_calls_only_itself() -> None:
    """A compiled function calls builtins of the list above, and functions that are compiled (or dual) themselves."""
    known = set(ALLOWED_CALLS)
    for tree in kernel_trees().values():
        for f in ast.walk(tree):
            if isinstance(f, ast.FunctionDef) and any(
                ast.unparse(d).split("(")[0] in ("jit", "dual") for d in f.decorator_list
            ):
                known.add(f.name)
    strangers = []
    for path, tree in kernel_trees().items():
        for function in jitted(tree):
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id not in known:
                    strangers.append(f"{path}:{node.lineno}: {node.func.id}")
    assert not strangers, strangers


def test_policies_compute_with_integers_and_plain_arithmetic() -> None:
    """Bundled decision policies keep the same rule: what they compute must not differ from machine to machine."""
    found = []
    for axis in ("scheduler", "memory", "storage", "switch"):
        for path in sorted((ROOT / "plugins" / axis).glob("*.py")):
            for function in ast.walk(ast.parse(path.read_text())):
                if isinstance(function, ast.FunctionDef) and not function.name.startswith("hvbench_"):
                    for c in complaints(function):
                        if any(w in c for w in ("Pow", "name np", "name math", "name random", "import")):
                            found.append(f"{path.name}: {c}")
    assert not found, "\n".join(found)
