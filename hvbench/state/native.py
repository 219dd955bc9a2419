"""What compiled code sees of the host's memory: three Numba types over raw addresses.

`HostType` is a pair of addresses: the host's header, and the slot of the policy that looks (0 for the
kernel). Its attributes are the header's scalars, its tables, and the policy's own `params`, `own` and `box`.
`TableType` is what `host.vcpu` gives, `RowType` what `host.vcpu[i]` gives: the kernel's fields and
the policy's own fields stand together in a row, whatever array they lie in.

Why not NumPy record arrays: one pair of addresses is passed instead of a tuple of forty arrays (nothing to
count references of, nothing to spill), kernel fields are read-only for policies *when the policy is compiled*,
and the index of every access by a policy is checked whatever flags it is compiled with.

All hooks share one signature, `HOOK_SIGNATURE`: (header address, slot address, five arguments) -> int64.
The hook table holds the native addresses, so that one binary of the kernel serves all policies. An
exception in a compiled hook propagates through `invoke_hook` and the event loop to the caller.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, errors
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_global, signature
from numba.extending import (
    infer_getattr,
    intrinsic,
    lower_builtin,
    lower_getattr_generic,
    lower_setattr_generic,
    models,
    register_model,
)

from hvbench.state import schema

I64 = ir.IntType(64)
NUMBA_TYPE = {
    "i1": types.int8,
    "u1": types.uint8,
    "i2": types.int16,
    "u2": types.uint16,
    "i4": types.int32,
    "u4": types.uint32,
    "i8": types.int64,
    "u8": types.uint64,
    "f8": types.float64,
}
HOOK_SIGNATURE = types.int64(*[types.int64] * 7)

Key = tuple[tuple[str, int, str], ...]


def wide(code: str) -> Any:
    """The type that a stored field has once it is read."""
    return {"f8": types.float64, "u8": types.uint64}.get(code, types.int64)


class RowType(types.Type):
    """One row: the kernel's fields at `base`, the looking policy's own fields at `own`."""

    def __init__(self, table: str, fields: Key, own: Key, writable: bool):
        self.table, self.fields, self.own, self.writable = table, fields, own, writable
        super().__init__(name=f"Row({table},{fields},{own},{writable})")

    def find(self, attr: str) -> tuple[str, int, str] | None:
        for where, group in (("own", self.own), ("base", self.fields)):
            for name, offset, code in group:
                if name == attr:
                    return where, offset, code
        return None


class TableType(types.Type):
    """A table: address, address of the policy's own rows, number of rows."""

    def __init__(self, table: str, fields: Key, stride: int, own: Key, own_stride: int, writable: bool):
        self.table, self.fields, self.stride = table, fields, stride
        self.own, self.own_stride, self.writable = own, own_stride, writable
        super().__init__(name=f"Table({table},{fields},{stride},{own},{own_stride},{writable})")

    @property
    def row(self) -> RowType:
        return RowType(self.table, self.fields, self.own, self.writable)


class HostType(types.Type):
    """The host as the kernel (`writable`) or as one policy sees it.

    `own` maps a table's name, or one of `params`, `own`, `box`, to (key, stride) of the policy's records.
    """

    def __init__(self, own: tuple[tuple[str, Key, int], ...] = (), writable: bool = False):
        self.own, self.writable = own, writable
        super().__init__(name=f"Host({schema.DIGEST},{own},{writable})")

    def own_of(self, name: str) -> tuple[Key, int]:
        for table, key, stride in self.own:
            if table == name:
                return key, stride
        return (), 0


KERNEL = HostType(writable=True)


@register_model(RowType)
class _RowModel(models.StructModel):
    def __init__(self, dmm: Any, fe_type: Any):
        super().__init__(dmm, fe_type, [("base", types.intp), ("own", types.intp)])


@register_model(TableType)
class _TableModel(models.StructModel):
    def __init__(self, dmm: Any, fe_type: Any):
        super().__init__(dmm, fe_type, [("base", types.intp), ("own", types.intp), ("rows", types.intp)])


@register_model(HostType)
class _HostModel(models.StructModel):
    def __init__(self, dmm: Any, fe_type: Any):
        super().__init__(dmm, fe_type, [("header", types.intp), ("slot", types.intp)])


def _load(builder: Any, base: Any, offset: int, llvm_type: Any = I64) -> Any:
    return builder.load(_pointer(builder, base, offset, llvm_type))


def _pointer(builder: Any, base: Any, offset: int, llvm_type: Any) -> Any:
    return builder.inttoptr(builder.add(base, ir.Constant(I64, offset)), llvm_type.as_pointer())


def _read(context: Any, builder: Any, base: Any, offset: int, code: str) -> Any:
    stored = NUMBA_TYPE[code]
    value = _load(builder, base, offset, context.get_data_type(stored))
    return context.cast(builder, value, stored, wide(code))


def _write(context: Any, builder: Any, base: Any, offset: int, code: str, value: Any, value_type: Any) -> None:
    stored = NUMBA_TYPE[code]
    pointer = _pointer(builder, base, offset, context.get_data_type(stored))
    builder.store(context.cast(builder, value, value_type, stored), pointer)


# rows ----------------------------------------------------------------------------------------------


@infer_getattr
class _RowAttribute(AttributeTemplate):
    key = RowType

    def generic_resolve(self, row: Any, attr: str) -> Any:  # type: ignore[override]
        found = row.find(attr)
        if found is None:
            legal = ", ".join(name for name, _, _ in row.own + row.fields)
            raise errors.TypingError(f"{row.table} has no field {attr!r}; it has: {legal}")
        return wide(found[2])


@lower_getattr_generic(RowType)
def _row_getattr(context: Any, builder: Any, typ: RowType, value: Any, attr: str) -> Any:
    found = typ.find(attr)
    assert found is not None
    where, offset, code = found
    row = cgutils.create_struct_proxy(typ)(context, builder, value=value)
    return _read(context, builder, getattr(row, where), offset, code)


@lower_setattr_generic(RowType)
def _row_setattr(context: Any, builder: Any, sig: Any, args: Any, attr: str) -> None:
    typ, value_type = sig.args
    found = typ.find(attr)
    assert found is not None
    where, offset, code = found
    if where == "base" and not typ.writable:
        raise errors.TypingError(
            f"{typ.table}.{attr} belongs to the kernel and is read-only for a policy; "
            f"keep your own value in a @state({typ.table!r}) class"
        )
    row = cgutils.create_struct_proxy(typ)(context, builder, value=args[0])
    _write(context, builder, getattr(row, where), offset, code, args[1], value_type)


# tables --------------------------------------------------------------------------------------------


@infer_global(operator.getitem)
class _TableGetItem(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if len(args) == 2 and isinstance(args[0], TableType) and isinstance(args[1], types.Integer):
            return signature(args[0].row, args[0], types.int64)
        return None


@lower_builtin(operator.getitem, TableType, types.Integer)
def _table_getitem(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    typ = sig.args[0]
    table = cgutils.create_struct_proxy(typ)(context, builder, value=args[0])
    index = args[1]
    if not typ.writable:
        outside = builder.icmp_unsigned(">=", index, table.rows)
        with cgutils.if_unlikely(builder, outside):
            context.call_conv.return_user_exc(
                builder, IndexError, (f"index of {typ.table} is outside of its rows",)
            )
    row = cgutils.create_struct_proxy(typ.row)(context, builder)
    row.base = builder.add(table.base, builder.mul(index, ir.Constant(I64, typ.stride)))
    row.own = builder.add(table.own, builder.mul(index, ir.Constant(I64, typ.own_stride)))
    return row._getvalue()


@infer_global(len)
class _TableLen(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], TableType):
            return signature(types.intp, args[0])
        return None


@lower_builtin(len, TableType)
def _table_len(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0]).rows


# host ----------------------------------------------------------------------------------------------


def _host_attribute(typ: HostType, attr: str) -> Any:
    if attr in schema.SCALARS:
        return wide(schema.SCALARS[attr][1])
    if attr in schema.TABLES:
        table = schema.TABLES[attr]
        own, own_stride = typ.own_of(attr)
        return TableType(attr, table.layout.key, table.layout.stride, own, own_stride, typ.writable)
    if attr in schema.SLOT_ROWS:
        return RowType(attr, (), typ.own_of(attr)[0], typ.writable)
    return None


@infer_getattr
class _HostAttribute(AttributeTemplate):
    key = HostType

    def generic_resolve(self, host: Any, attr: str) -> Any:  # type: ignore[override]
        found = _host_attribute(host, attr)
        if found is None:
            legal = ", ".join([*schema.SLOT_ROWS, *schema.TABLES, *schema.SCALARS])
            raise errors.TypingError(f"host has no {attr!r}; it has: {legal}")
        return found


@lower_getattr_generic(HostType)
def _host_getattr(context: Any, builder: Any, typ: HostType, value: Any, attr: str) -> Any:
    host = cgutils.create_struct_proxy(typ)(context, builder, value=value)
    if attr in schema.SCALARS:
        offset, code = schema.SCALARS[attr]
        return _read(context, builder, host.header, offset, code)
    found = _host_attribute(typ, attr)
    made = cgutils.create_struct_proxy(found)(context, builder)
    if attr in schema.TABLES:
        made.base = _load(builder, host.header, schema.TABLES[attr].offset)
        made.rows = _load(builder, host.header, schema.TABLES[attr].offset + 8)
        if found.own:
            made.own = _load(builder, host.slot, schema.SLOT_OFFSETS[attr])
        else:
            made.own = ir.Constant(I64, 0)
    else:
        made.base = ir.Constant(I64, 0)
        made.own = _load(builder, host.slot, schema.SLOT_OFFSETS[attr])
    return made._getvalue()


@lower_setattr_generic(HostType)
def _host_setattr(context: Any, builder: Any, sig: Any, args: Any, attr: str) -> None:
    typ, value_type = sig.args
    if attr not in schema.SCALARS or not typ.writable:
        raise errors.TypingError(f"host.{attr} is read-only for a policy; keep your own value in @state('host')")
    host = cgutils.create_struct_proxy(typ)(context, builder, value=args[0])
    offset, code = schema.SCALARS[attr]
    _write(context, builder, host.header, offset, code, args[1], value_type)


def host_at(typ: HostType) -> Any:
    """An intrinsic `f(header_address, slot_address)` that gives a host of `typ`."""

    @intrinsic
    def host_view(typing_context: Any, header: Any, slot: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            host = cgutils.create_struct_proxy(typ)(context, builder)
            host.header, host.slot = args
            return host._getvalue()

        return typ(types.int64, types.int64), codegen

    return host_view


@intrinsic
def kernel_view(typing_context: Any, host: Any) -> Any:
    """The same host with the kernel's rights, for the services that a policy calls."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        seen = cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0])
        host = cgutils.create_struct_proxy(KERNEL)(context, builder)
        host.header, host.slot = seen.header, seen.slot
        return host._getvalue()

    return KERNEL(host), codegen


@intrinsic
def whole(typing_context: Any, value: Any) -> Any:
    """A policy's answer as int64; refuses, when the policy is compiled, what is not an integer on every path."""
    if not isinstance(value, (types.Integer, types.Boolean)):
        raise errors.TypingError(f"the answer has no integer type: it is {value}; use // or int() for whole numbers")

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.cast(builder, args[0], sig.args[0], types.int64)

    return types.int64(value), codegen


@intrinsic
def call_c_address(
    typing_context: Any, address: Any, header: Any, slot: Any, a: Any, b: Any, c: Any, d: Any, e: Any
) -> Any:
    """Call a C function (a ctypes callback into plain Python) by its address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.FunctionType(I64, [I64] * 7).as_pointer())
        return builder.call(pointer, args[1:])

    return types.int64(*[types.int64] * 8), codegen


@intrinsic
def bit_length_native(typing_context: Any, value: Any) -> Any:
    """Number of bits of a non-negative int64, 0 for 0."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        zeros = builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))
        return builder.sub(ir.Constant(I64, 64), zeros)

    return types.int64(types.int64), codegen


@intrinsic
def trailing_zeros_native(typing_context: Any, value: Any) -> Any:
    """Index of the lowest set bit of an int64, 64 for 0."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), codegen


@intrinsic
def slot_index_of(typing_context: Any, host: Any) -> Any:
    """Index of the looking policy's slot, -1 for the kernel."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        seen = cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0])
        out = cgutils.alloca_once_value(builder, ir.Constant(I64, -1))
        with builder.if_then(builder.icmp_unsigned("!=", seen.slot, ir.Constant(I64, 0))):
            builder.store(_load(builder, seen.slot, schema.SLOT_INDEX_OFFSET), out)
        return builder.load(out)

    return types.int64(host), codegen


def _arena_pointer(context: Any, builder: Any, typ: Any, value: Any, index: Any) -> Any:
    seen = cgutils.create_struct_proxy(typ)(context, builder, value=value)
    arena = _load(builder, seen.slot, schema.SLOT_ARENA_OFFSET)
    return builder.inttoptr(builder.add(arena, builder.shl(index, ir.Constant(I64, 3))), I64.as_pointer())


@intrinsic
def arena_get(typing_context: Any, host: Any, index: Any) -> Any:
    """Word `index` of the looking policy's arena."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_arena_pointer(context, builder, sig.args[0], *args))

    return types.int64(host, types.int64), codegen


@intrinsic
def arena_set(typing_context: Any, host: Any, index: Any, value: Any) -> Any:
    """Set word `index` of the looking policy's arena."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], _arena_pointer(context, builder, sig.args[0], args[0], args[1]))
        return context.get_dummy_value()

    return types.void(host, types.int64, types.int64), codegen


def _mix(builder: Any, digest: Any, value: Any) -> Any:
    def constant(number: int) -> Any:
        return ir.Constant(I64, number)

    def rotate(x: Any, left: int) -> Any:
        return builder.or_(builder.shl(x, constant(left)), builder.lshr(x, constant(64 - left)))

    x = builder.mul(value, constant(0x87C37B91114253D5))
    x = builder.mul(rotate(x, 31), constant(0x4CF5AD432745937F))
    x = rotate(builder.xor(x, digest), 27)
    return builder.add(builder.mul(x, constant(5)), constant(0x52DCE729))


@intrinsic
def mix(typing_context: Any, digest: Any, value: Any) -> Any:
    """See hvbench.kernel.access.mix: the same arithmetic, wrapping around in 64 bits."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _mix(builder, args[0], args[1])

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def scatter(typing_context: Any, stream: Any, number: Any) -> Any:
    """See hvbench.kernel.access.scatter: the same arithmetic, wrapping around in 64 bits."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def constant(value: int) -> Any:
            return ir.Constant(I64, value)

        def fold(z: Any, shift: int) -> Any:
            return builder.xor(z, builder.lshr(z, constant(shift)))

        z = builder.add(args[0], builder.mul(args[1], constant(0x9E3779B97F4A7C15)))
        z = builder.mul(fold(z, 30), constant(0xBF58476D1CE4E5B9))
        z = builder.mul(fold(z, 27), constant(0x94D049BB133111EB))
        return fold(z, 31)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def machine_code(typing_context: Any) -> Any:
    """See hvbench.kernel.access.machine_code."""
    return types.boolean(), lambda context, builder, sig, args: context.get_constant(types.boolean, True)


@intrinsic
def prefetch(typing_context: Any, table: Any, index: Any) -> Any:
    """Begin to fetch a row for writing, to be kept in all caches; an address that does not exist is no fault."""
    stride = table.stride

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        seen = cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0])
        address = builder.add(seen.base, builder.mul(args[1], ir.Constant(I64, stride)))
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        form = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", (byte,), form)
        builder.call(function, [builder.inttoptr(address, byte), *[ir.Constant(word, x) for x in (1, 3, 1)]])
        return context.get_dummy_value()

    return types.void(table, types.int64), codegen


@intrinsic
def invoke_hook(typing_context: Any, host: Any, row: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
    """Call the implementation in row `row` of the hook table by its native address."""
    table = schema.TABLES["hook"]
    offsets = {f.name: f.offset for f in table.layout.fields}

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        seen = cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0])
        base = _load(builder, seen.header, table.offset)
        entry = builder.add(base, builder.mul(args[1], ir.Constant(I64, table.layout.stride)))
        address = _load(builder, entry, offsets["address"])
        slot = _load(builder, entry, offsets["slot"])
        convention = context.call_conv
        pointer_type = convention.get_function_type(HOOK_SIGNATURE.return_type, HOOK_SIGNATURE.args).as_pointer()
        status, result = convention.call_function(
            builder,
            builder.inttoptr(address, pointer_type),
            HOOK_SIGNATURE.return_type,
            HOOK_SIGNATURE.args,
            [seen.header, slot, *args[2:]],
        )
        with cgutils.if_unlikely(builder, status.is_error):
            convention.return_status_propagate(builder, status)
        return result

    return types.int64(host, *[types.int64] * 6), codegen


@intrinsic
def digest_call(
    typing_context: Any, digest: Any, row: Any, a: Any, b: Any, c: Any, d: Any, e: Any, answer: Any
) -> Any:
    """See hvbench.kernel.access.digest_call: the same arithmetic, wrapping around in 64 bits."""
    from hvbench.kernel.access import _K

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        total = ir.Constant(I64, 0)
        for weight, word in zip(_K, args[1:], strict=True):
            total = builder.add(total, builder.mul(word, ir.Constant(I64, weight)))
        return _mix(builder, args[0], total)

    return types.int64(*[types.int64] * 8), codegen
