"""The caller's Templates and records: from element names or numbers to the types of the codec."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flowtop.api.errors import EncodeError, encoding
from flowtop.text.suggestions import nearest
from flowtop.wire import iana
from flowtop.wire.ipfix import RecordSet, encode_record
from flowtop.wire.ipfix_template import (
    FIRST_TEMPLATE_ID,
    VARIABLE_LENGTH,
    FieldSpecifier,
    IpfixEncodeError,
    Template,
    field,
)
from flowtop.wire.values import wire_value

FieldDefinition = str | Sequence[str | int] | FieldSpecifier
"""An element: a name, (name, length), or (enterprise number, element id, length); enterprise 0 is IANA."""
Values = Mapping[str, object] | Sequence[object]
"""A record: a mapping from field name to value, or a sequence of values in order. Types of values: GivenValue."""

_MAX_FIELDS = 1 << 14
_PADDING = "paddingOctets"


def template(id: int, fields: Iterable[FieldDefinition], *, scope: int = 0) -> Template:  # noqa: A002 - its name
    """A Template, or an Options Template.

    Args:
        id: 256..65535.
        fields: in order: a name of the IANA registry ("octetDeltaCount"; also reverse elements of RFC 5103,
            "reverseOctetDeltaCount"), (name, length), or (enterprise, number, length). Lengths are in octets; 65535
            means variable length, the default for strings and octet arrays.
        scope: number of Scope Fields at the start; more than 0: an Options Template (RFC 7011 section 3.4).

    Raises EncodeError: unknown element, or RFC 7011 does not allow the Template.
    """
    specifiers = tuple(map(_specifier, fields))
    made = Template(id, specifiers, scope)
    if not 0 <= scope <= len(specifiers) <= _MAX_FIELDS:
        raise EncodeError(f"template {id}: {scope} scope fields of {len(specifiers)}",
                          hint="scope is the number of Scope Fields among the first fields")
    with encoding():
        if not FIRST_TEMPLATE_ID <= id <= 65_535:
            raise IpfixEncodeError(f"template id {id} is not in {FIRST_TEMPLATE_ID}..65535")
        made.octets()
    return made


def _specifier(definition: FieldDefinition) -> FieldSpecifier:
    if isinstance(definition, FieldSpecifier):
        return definition
    match definition:
        case str(name):
            made = _named(name, None)
        case (str(name), int(length)):
            made = _named(name, length)
        case (int(enterprise), int(number), int(length)):
            made = FieldSpecifier(number, length, enterprise)
        case _:
            raise EncodeError(f"{definition!r} is not a field definition",
                              hint="a name, (name, length), or (enterprise, number, length)")
    if not (0 < made.length <= VARIABLE_LENGTH and 0 < made.element_id < 1 << 15 and 0 <= made.enterprise < 1 << 32):
        raise EncodeError(f"{definition!r} is not a field definition", hint="lengths are 1..65535, numbers 1..32767")
    return made


def _named(name: str, length: int | None) -> FieldSpecifier:
    try:
        return field(name, length)
    except KeyError:
        near = nearest(name, iana.names(), 2)
        hint = f"did you mean {' or '.join(near)}?" if near else "give (enterprise, number, length) for any other"
        raise EncodeError(f"the IANA registry has no element {name!r}", hint=hint) from None


def record_set(template: Template, records: Iterable[Values], *, fill: bool = False) -> RecordSet:
    """Encode records.

    Args:
        fill: fields that are missing in a mapping become zeros. Padding always does.

    Raises EncodeError: a value does not fit its field, or a field is missing or not in the Template.
    """
    with encoding():
        return RecordSet(template.id, [_record(template, record, fill) for record in records], template.min_octets)


def _record(template: Template, record: Values, fill: bool) -> bytes:
    names = template.names
    if isinstance(record, Mapping):
        if unknown := record.keys() - set(names):
            raise EncodeError(f"template {template.id} has no field {', '.join(sorted(map(str, unknown)))}",
                              hint=f"it has {', '.join(names)}")
        values: Sequence[object] = [
            record[name] if name in record else _zeros(template, name, specifier, fill)
            for name, specifier in zip(names, template.fields, strict=True)]
    else:
        values = record
    if len(values) != len(names):
        raise EncodeError(f"template {template.id} has {len(names)} fields, not {len(values)}",
                          hint=f"it has {', '.join(names)}")
    return encode_record(template, [wire_value(name, value, specifier)
                                    for name, specifier, value in zip(names, template.fields, values, strict=True)])


def _zeros(template: Template, name: str, specifier: FieldSpecifier, fill: bool) -> bytes:
    if not fill and name.partition("#")[0] != _PADDING:
        raise EncodeError(f"a record of template {template.id} lacks {name}",
                          hint="a record has a value for each field of its template")
    return bytes(0 if specifier.length == VARIABLE_LENGTH else specifier.length)
