"""What the annotations of a record class declare: the types that fields can have."""

from types import NoneType, UnionType
from typing import Annotated, Any, Final, TypeAlias, Union, get_args, get_origin

from fieldsync import edits
from fieldsync.converting import conversion
from fieldsync.errors import SchemaError
from fieldsync.fields import REQUIRED, Field, Options, problem_of_name
from fieldsync.limits import COLLECTION_NAME_BYTES_MAX
from fieldsync.search import TOKENIZER, UNSEARCHABLE, tokenizer_named
from fieldsync.values import CHECKS, SUPPORTED, Check, check_any, check_number, elements, nested, or_none, single

Set = set  # Set[T]: one name beside the others
_COUNTER = "fieldsync.Counter"
Counter: TypeAlias = Annotated[int | float, _COUNTER]
_TEXT, _LIST, _MAP = "fieldsync.Text", "fieldsync.List", "fieldsync.Map"
Text: TypeAlias = Annotated[Any, _TEXT]
List: TypeAlias = Annotated[Any, _LIST]
Map: TypeAlias = Annotated[Any, _MAP]
_ALONE: Final = frozenset({_COUNTER, _TEXT, _LIST, _MAP})
_HINTS: Final[dict[Any, str]] = {
    set: "; it stands alone, and is empty at first",
    frozenset: "; it stands alone, and is empty at first",
    tuple: '; a tuple is for keep="all", a list for many values',
}
_SHARED: Final[dict[str, tuple[Any, type, Check]]] = {
    _TEXT: ("text", str, edits.TEXT),
    _LIST: ("list", list, edits.LIST),
    _MAP: ("map", dict, edits.MAP),
}


def declared(collection: str, name: str, annotation: Any, default: Any) -> Field:
    """The field that one annotated line of a class body declares; SchemaError if it cannot be."""
    label = f"{collection}.{name}"
    if problem := problem_of_name(name):
        raise SchemaError(f"{label}: {problem}")
    options = default if isinstance(default, Options) else Options(default)
    field = _found_by(_as_stored(_typed(collection, name, annotation, options), options), options)
    if options.default_factory is not None:
        if options.default is not REQUIRED:
            raise SchemaError(f"{label}: give default or default_factory, not both")
        return field._replace(default_factory=options.default_factory)
    if field.is_shared and options.default is not REQUIRED:
        field = field._replace(default_factory=None)
    if options.default is REQUIRED:
        return field._replace(default=None) if field.optional else field
    if field.keeps_all and options.default == ():
        return field
    if isinstance(options.default, list | dict):
        raise SchemaError(f"{label}: records would share a default that can change; use default_factory")
    try:
        return field._replace(default=field.check(options.default))
    except TypeError as refusal:
        raise SchemaError(f"default of {refusal}") from None


def _typed(collection: str, name: str, annotation: Any, options: Options) -> Field:
    """The field by its type alone, as if it had no default."""
    label = f"{collection}.{name}"
    if options.keep not in ("latest", "all"):
        raise SchemaError(f'{label}: keep is "latest" or "all", not {options.keep!r}')
    if get_origin(annotation) is Annotated and _COUNTER in get_args(annotation):
        return Field(collection, name, "counter", float, False, 0, None, options.indexed, check_number)
    if get_origin(annotation) is Annotated and (known := _SHARED.keys() & set(map(str, get_args(annotation)[1:]))):
        shared, shown, check = _SHARED[known.pop()]
        return Field(collection, name, shared, shown, False, REQUIRED, shown, options.indexed, check)
    if (get_origin(annotation) or annotation) in (set, frozenset):
        element, _, item = _compiled((get_args(annotation) or (Any,))[0], label)
        if element in (list, dict):
            raise SchemaError(f"{label}: elements of a set cannot be lists or dicts")
        check = elements(item)
        return Field(collection, name, "set", frozenset, False, frozenset(), None, options.indexed, check)
    if options.keep == "all":
        return _keeping_all(collection, name, annotation, options)
    kind, optional, check = _compiled(annotation, label)
    return Field(collection, name, "register", kind, optional, REQUIRED, None, options.indexed, check)


def _as_stored(field: Field, options: Options) -> Field:
    """The field with the name of its cells, and with what it makes of values of other types."""
    label = f"{field.collection}.{field.name}"
    if options.stored_as is not None:
        if problem := problem_of_name(options.stored_as, reserved=frozenset()):
            raise SchemaError(f"{label}: stored_as: {problem}")
        if options.stored_as != field.name:
            field = field._replace(stored_as=options.stored_as)
    if options.converts is None:
        return field
    if field.kind != "register" or field.keeps_all:
        raise SchemaError(f"{label}: converts= is for a field that holds one value; see docs/schema.md for others")
    return field._replace(conversion=conversion(label, field.type, field.optional, options.converts, field.check))


def _found_by(field: Field, options: Options) -> Field:
    """The field with what makes words of it, and with what it refers to; TypeError where it holds no text."""
    label = f"{field.collection}.{field.name}"
    is_text = field.kind == "register" and field.type is str and not field.keeps_all
    if options.search:
        if not is_text and field.kind != "text":
            raise TypeError(f"{label}: search= is for str and Text: words are found in texts")
        if field.name.lower() in UNSEARCHABLE:
            raise SchemaError(f"{label}: SQLite's search keeps this name for itself; take another, or no search=")
        tokenizer = TOKENIZER if options.search is True else tokenizer_named(label, options.search)
        field = field._replace(tokenizer=tokenizer)
    if options.references is None:
        return field
    if not is_text:
        raise TypeError(f"{label}: references= is for str: it holds the key of a record")
    known = getattr(options.references, "_collection", None)
    name = options.references if isinstance(options.references, str) else getattr(known, "name", "")
    if problem := problem_of_name(name, COLLECTION_NAME_BYTES_MAX, frozenset()):
        raise SchemaError(f"{label}: references= is a record class or the name of a collection: {problem}")
    return field._replace(references=name, indexed=True)


def _keeping_all(collection: str, name: str, annotation: Any, options: Options) -> Field:
    arguments = get_args(annotation)
    if get_origin(annotation) is not tuple or len(arguments) != 2 or arguments[1] is not Ellipsis:
        raise SchemaError(f"{collection}.{name}: a field that keeps all is declared as tuple[T, ...]: it shows many")
    kind, optional, item = _compiled(arguments[0], f"{collection}.{name}")
    check = single(or_none(item) if optional else item)
    return Field(collection, name, "register", kind, True, None, None, options.indexed, check, keeps_all=True)


def _compiled(annotation: Any, label: str) -> tuple[type, bool, Check]:
    """An annotation as (type, may it be None, how to check the rest); SchemaError if no register can hold it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        if _ALONE.isdisjoint(map(str, arguments[1:])):
            return _compiled(arguments[0], label)
        raise _unfit(label, arguments[1], "; it stands alone, and is never None")
    if origin in (Union, UnionType) and len(arguments) == 2 and NoneType in arguments:
        kind, _, check = _compiled(arguments[arguments[0] is NoneType], label)
        return kind, True, check
    if origin in (list, dict) and arguments:
        if origin is dict and arguments[0] is not str:
            raise SchemaError(f"{label}: keys of a dict are str")
        _, optional, item = _compiled(arguments[-1], label)
        return origin, False, nested(origin, or_none(item) if optional else item)
    if annotation is Any or annotation is object:
        return object, True, check_any
    kind = origin or annotation
    if isinstance(kind, type) and kind in CHECKS:
        return kind, False, CHECKS[kind]
    raise _unfit(label, annotation, _HINTS.get(kind, ""))


def _unfit(label: str, annotation: Any, hint: str) -> SchemaError:
    name = annotation if isinstance(annotation, str) else repr(annotation)
    return SchemaError(
        f"{label}: {name} is no type of a value{hint}; those are {SUPPORTED}, each | None, and Any. "
        "Set, Counter, Text, List and Map are types of whole fields"
    )
