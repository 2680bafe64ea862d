"""What the tester may find without our being wrong: each refusal with its reason. Any other finding fails the test."""

import json
import re

import schemathesis

COMMAND = r"POST /api/[a-z]+(/\{id\})?"
COMMAND_WITH_ID = r"POST /api/[a-z]+/\{id\}"
BUNDLE = r"POST /api/bundle"
QUESTION = r"(GET /api/\w+(\.csv)?|POST /api/\w+/query)"

# Any column, if the question has a filter that is written out.
WRITTEN = object()

# The route, the field at fault, the sentence, and why no schema says it.
REFUSALS = [
    # `where` is a small language, and what fits a column depends on the column; each read model has an example, which a
    # test of ours asks for.
    (QUESTION, r"where", r".* is no filter; .*|.* has a quoted value that does not end; .*"),
    (QUESTION, WRITTEN, r"there is no column .*|.* does not fit the column .*|.* is compared with null; .*"),
    # With a past time, `pipeline` answers with sums, which have other columns than the cards of now.
    (r"(GET /api/pipeline(\.csv)?|POST /api/pipeline/query)", r"[a-z_]+", r"there is no column .*"),
    # Two parameters of a URL that exclude each other: OpenAPI has no word for it. The schema of the body says it.
    (r"GET /api/\w+(\.csv)?", r"known_until", r"known_at and known_until say the same in two ways; .*"),
    # A position is of one log: another one has other shards, and ends elsewhere.
    (QUESTION, r"at_least", r".* is in no shard of this log; .*|.* lies beyond the end of the log: .*"),
    # Within a text that lists positions: a pattern does not remember the shards before.
    (QUESTION, r"known_until", r"shard \d+ is in it twice"),
    # It depends on when it is asked.
    (COMMAND, r"effective_at", r".* lies in the future: .*"),
    # What a thing is follows from what other fields say of it, by a hash.
    (COMMAND_WITH_ID, r"id", r"the command identifies [a-z]+ [0-9a-f-]{36}; .*"),
    (COMMAND_WITH_ID, r"id", r"the id does not carry the slot of what it belongs to; .*"),
    (BUNDLE, r"commands\[\d+\]\.id", r"the command identifies [a-z]+ [0-9a-f-]{36}; .*"),
    (BUNDLE, r"commands\[\d+\]\.id", r"the id does not carry the slot of what it belongs to; .*"),
    # An item's customer goes to its command, and some commands have none.
    (BUNDLE, r"commands\[\d+\]\.command\.customer", r"unknown field `customer`, .*"),
    (BUNDLE, r"\.", r"the streams of a bundle live in one slot; .*"),
    # An item of a bundle is one before it in the list; a command that stands alone has none before it.
    (COMMAND, r"[a-z]+(\[\d+\])?", r"there is no earlier item \d+ in the bundle"),
    (BUNDLE, r"commands\[\d+\]\.command\.[a-z]+(\[\d+\])?", r"there is no earlier item \d+ in the bundle"),
    # A schema counts characters, a store bytes.
    (QUESTION, r"[a-z_]+", r"the text has \d+ bytes, 800 at most"),
    (r"(GET|POST) /api/[a-z]+/\{id\}", r"id", r"the text has \d+ bytes, 800 at most"),
    (COMMAND, r"[a-z_.\[\]0-9]+", r"the text has \d+ bytes, (800|100000) at most"),
    (BUNDLE, r"commands\[\d+\]\.[a-z_.\[\]0-9]+", r"the text has \d+ bytes, (800|100000) at most"),
]


# The tester writes nothing but letters and digits into a header whose value it makes up, and leaves these empty, which
# their schema refuses.
ACTORS = ("X-Actor", "X-On-Behalf-Of")


@schemathesis.hook
def before_call(context, case, kwargs):
    is_well_formed = case.meta is not None and case.meta.generation.mode.value == "positive"
    for header in ACTORS:
        if is_well_formed and case.headers.get(header) == "":
            case.headers[header] = "user:mei"


def refusal(response):
    """The field at fault, and the sentence."""
    try:
        problem = json.loads(response.text)
    except ValueError:
        return "", ""
    return str(problem.get("at", "")), str(problem.get("detail", ""))


def names(case, column):
    """Whether a written filter of the question names the column."""
    asked = case.body if case.method == "POST" else case.query
    written = asked.get("where") if isinstance(asked, dict) else None
    written = [written] if isinstance(written, str) else written or []
    return any(column in filter for filter in written)


@schemathesis.hook
def filter_failure(context, failure, case, response):
    if response is None or response.status_code != 400:
        return True
    at, sentence = refusal(response)
    return not any(
        re.fullmatch(route, case.operation.label)
        and (names(case, at) if field is WRITTEN else re.fullmatch(field, at))
        and re.fullmatch(says, sentence, re.DOTALL)
        for route, field, says in REFUSALS
    )
