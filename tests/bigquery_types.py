"""Types by BigQuery's names for Google's analyser, and arguments of functions."""

import re

from zetasql.api import TypeFactory
from zetasql.types import (
    FunctionArgumentType,
    FunctionArgumentTypeOptions,
    FunctionEnums,
    SignatureArgumentKind,
    TypeKind,
)

# BigQuery's other names for its types (its reference, "Data types").
ALIASES = {"INTEGER": "INT64", "BIGINT": "INT64", "DECIMAL": "NUMERIC"}


def type_of(name):
    if element := re.fullmatch(r"ARRAY<(.+)>", name):
        return TypeFactory.create_array_type(type_of(element[1]))
    if fields := re.fullmatch(r"STRUCT<(.+)>", name):
        parts = [field.split(" ", 1) for field in fields[1].split(", ")]
        return TypeFactory.create_struct_type([(field, type_of(kind)) for field, kind in parts])
    kind = {"FLOAT64": "DOUBLE"}.get(ALIASES.get(name, name), ALIASES.get(name, name))
    return TypeFactory.create_simple_type(TypeKind[f"TYPE_{kind}"])


def name_of(kind):
    if kind.type_kind == TypeKind.TYPE_ARRAY:
        return f"ARRAY<{name_of(kind.array_type.element_type)}>"
    if kind.type_kind == TypeKind.TYPE_STRUCT:
        fields = (
            f"{field.field_name} {name_of(field.field_type)}" for field in kind.struct_type.field
        )
        return f"STRUCT<{', '.join(fields)}>"
    return kind.type_kind.name.removeprefix("TYPE_").replace("DOUBLE", "FLOAT64")


def argument(kind, **options):
    """An argument of a kind (ARG_…), or of the type of that name; required unless said."""
    cardinality = options.pop("cardinality", FunctionEnums.ArgumentCardinality.REQUIRED)
    settings = FunctionArgumentTypeOptions(cardinality=cardinality, **options)
    if isinstance(kind, str):
        return FunctionArgumentType(
            kind=SignatureArgumentKind.ARG_TYPE_FIXED,
            type=type_of(kind),
            num_occurrences=1,
            options=settings,
        )
    return FunctionArgumentType(kind=kind, num_occurrences=1, options=settings)
