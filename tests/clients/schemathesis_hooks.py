"""What the tester may find without our being wrong: each refusal with its reason. Any other finding fails the test."""

import json

import schemathesis

# The field at fault (its beginning), a part of the sentence, and why no schema says it.
REFUSALS = [
    # Either of two parameters, never both: OpenAPI has no word for it.
    ("known_until", "say the same in two ways"),
    # `where` is a small language; the description has an example for each read model, which a test of ours asks for.
    ("where", "is no filter"),
    ("where", "does not end"),
    ("query", "there is no column"),
    ("query", "does not fit the column"),
    ("query", "is compared with null"),
    # A position is of a log: another log has other shards, and an end.
    ("at_least", "in no shard"),
    ("at_least", "beyond the end of the log"),
    ("known_until", "is in it twice"),
    # When it is depends on when it is asked.
    ("effective_at", "lies in the future"),
    ("effective_at", "before the year 1"),
    ("Idempotency-Key", "days"),
    ("Idempotency-Key", "lies in the future"),
    # An id carries the slot of what it belongs to, which another field of the same command names.
    ("id", "does not carry the slot"),
    # A key means a stream; what kind of stream it is depends on the field, or is said.
    ("about", "say which stream the key is of"),
    # An item of a bundle may be named in a bundle only, where a schema is shared with commands that stand alone.
    ("", "item"),
    # A star asks for a stream that is begun, which a command without an id begins.
    ("If-Match", "this command begins one"),
    # What a text consists of is decided by its characters' properties, which patterns of JSON schema do not name.
    ("", "must not contain control characters"),
    ("", "visible character"),
    # Days and times of three centuries: a format has no bounds.
    ("", "lies outside of"),
    # 1.0 is an integer to JSON schema, and a float to whoever counts points.
    ("", "invalid type: floating point"),
    ("limit", "is no limit"),
    # A header's value has no white space at its ends, and a pattern's `$` lets a line end pass.
    ("X-", "it is no actor"),
    ("X-", "visible ASCII characters"),
]


def refusal(response):
    """The field at fault, and the sentence."""
    try:
        problem = json.loads(response.text)
    except ValueError:
        return "", ""
    return str(problem.get("at", "")), str(problem.get("detail", ""))


@schemathesis.hook
def filter_failure(context, failure, case, response):
    if response is None or response.status_code != 400:
        return True
    field, sentence = refusal(response)
    return not any(field.startswith(at) and part in sentence for at, part in REFUSALS)
