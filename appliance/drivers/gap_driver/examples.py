"""Examples: from the rows of a file to token ids and labels.

The rows are those that `gapimage dataset` prepares: instructions, conversations, preferences, texts; and TRL's `prompt`
and `completion`. A model with a chat template sees everything but texts through it.
"""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from .failure import Failure
from .output import sha256

IGNORED = -100


@dataclass
class Examples:
    """What a file came to."""

    role: str
    path: Path
    rows: list[dict] = field(default_factory=list)
    read: int = 0
    truncated: int = 0
    dropped: int = 0

    @cached_property
    def sha256(self) -> str:
        return sha256(self.path)

    def to_lineage(self) -> dict:
        return {
            "role": self.role,
            "name": self.path.name,
            "sha256": self.sha256,
            "bytes": self.path.stat().st_size,
            "examples": self.read,
            "truncated": self.truncated,
        }


def supervised(path: str, role: str, tokenizer, job) -> Examples:
    """`input_ids` and `labels` of each example, cut to `max_length`."""
    examples = Examples(role, Path(path))
    for place, row in _rows(examples):
        ids, counts = _supervised_row(row, place, tokenizer, job.completion_only_loss)
        examples.truncated += len(ids) > job.max_length
        labels = [token if counted else IGNORED for token, counted in zip(ids, counts)][: job.max_length]
        if any(label != IGNORED for label in labels[1:]):
            examples.rows.append({"input_ids": ids[: job.max_length], "labels": labels})
        else:
            examples.dropped += 1
    return _not_empty(examples)


def preferences(path: str, role: str, tokenizer, job) -> Examples:
    """`prompt_ids`, `chosen_ids` and `rejected_ids` of each preference; TRL cuts them to `max_length`."""
    examples = Examples(role, Path(path))
    for place, row in _rows(examples):
        if not {"prompt", "chosen", "rejected"} <= row.keys():
            raise _bad(place, "is no preference (`prompt`, `chosen`, `rejected`), which `method` dpo learns from")
        sides = []
        for name in ("chosen", "rejected"):
            ids, counts = _answer(row["prompt"], row[name], place, tokenizer, row.get("tools"))
            sides.append((ids, counts.index(True) if True in counts else len(ids)))
        (chosen, chosen_start), (rejected, rejected_start) = sides
        shared = min(chosen_start, rejected_start)
        examples.truncated += max(len(chosen), len(rejected)) > job.max_length
        if shared < job.max_length and shared < len(chosen) and shared < len(rejected):
            examples.rows.append(
                {"prompt_ids": chosen[:shared], "chosen_ids": chosen[shared:], "rejected_ids": rejected[shared:]}
            )
        else:
            examples.dropped += 1
    return _not_empty(examples)


def _not_empty(examples: Examples) -> Examples:
    if not examples.rows:
        raise Failure(
            "invalid_data",
            f"{examples.path.name} has {examples.read} examples and none that can be used: "
            f"{examples.dropped} have no answer within `max_length`",
            f"{examples.role}_file",
        )
    return examples


def _rows(examples: Examples):
    param = f"{examples.role}_file"
    try:
        with open(examples.path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                place = (examples.path.name, number, param)
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise _bad(place, f"is no JSON: {error}") from error
                if not isinstance(row, dict):
                    raise _bad(place, "is no object")
                examples.read += 1
                yield place, row
    except OSError as error:
        raise Failure("invalid_data", f"{examples.path} cannot be read: {error.strerror}", param) from error
    except UnicodeDecodeError as error:
        raise Failure("invalid_data", f"{examples.path} is not UTF-8: {error}", param) from error


def _bad(place: tuple, what: str) -> Failure:
    name, number, param = place
    return Failure("invalid_data", f"line {number} of {name} {what}", param)


def _supervised_row(row: dict, place: tuple, tokenizer, completion_only: bool) -> tuple[list[int], list[bool]]:
    if (turns := row.get("messages", row.get("conversations"))) is not None:
        turns = _turns(turns, place)
        ids, counts = _conversation(turns, place, tokenizer, row.get("tools"), find=completion_only)
    elif "prompt" in row and "completion" in row:
        tools = row.get("tools")
        ids, counts = _answer(row["prompt"], row["completion"], place, tokenizer, tools, completion_only)
    elif "instruction" in row:
        ids, counts = _instruction(row, place, tokenizer, completion_only)
    elif isinstance(row.get("text"), str):
        ids = _with_end(tokenizer(row["text"])["input_ids"], tokenizer)
        return ids, [True] * len(ids)
    else:
        raise _bad(place, "has none of `messages`, `instruction`, `prompt` with `completion`, `text`")
    return ids, counts if completion_only else [True] * len(ids)


def _instruction(row: dict, place: tuple, tokenizer, find: bool) -> tuple[list[int], list[bool]]:
    parts = [row.get("system"), row["instruction"], row.get("input")]
    if not all(part is None or isinstance(part, str) for part in [*parts, row.get("output")]) or not row.get("output"):
        raise _bad(place, "has an `instruction` whose `output`, `input` or `system` is no text")
    system, *asked = parts
    asked = "\n\n".join(part for part in asked if part)
    if tokenizer.chat_template:
        turns = [{"role": "system", "content": system}] if system else []
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]
        return _conversation(turns, place, tokenizer, None, find=find)
    prompt = "".join(part + "\n\n" for part in (system, asked) if part)
    return _continuation(prompt, row["output"], tokenizer)


def _answer(prompt, answer, place: tuple, tokenizer, tools, find: bool = True) -> tuple[list[int], list[bool]]:
    """A prompt and what follows it: both texts, or both lists of turns."""
    if isinstance(prompt, str) and isinstance(answer, str):
        return _continuation(prompt, answer, tokenizer)
    prompt, answer = _turns(prompt, place), _turns(answer, place)
    return _conversation(prompt + answer, place, tokenizer, tools, len(prompt), find)


def _continuation(prompt: str, answer: str, tokenizer) -> tuple[list[int], list[bool]]:
    encoded = tokenizer(prompt + answer, return_offsets_mapping=True)
    # A token that begins with the end of the prompt, as with the space before a word, is the first of the answer.
    counts = [begin >= len(prompt) or end > len(prompt) for begin, end in encoded["offset_mapping"]]
    ids = _with_end(encoded["input_ids"], tokenizer)
    return ids, counts + [True] * (len(ids) - len(counts))


def _with_end(ids: list[int], tokenizer) -> list[int]:
    end = tokenizer.eos_token_id
    return ids if end is None or ids[-1:] == [end] else [*ids, end]


def _turns(turns, place: tuple) -> list[dict]:
    whole = isinstance(turns, list) and turns and all(
        isinstance(turn, dict) and isinstance(turn.get("role"), str) for turn in turns
    )
    if not whole:
        raise _bad(place, "has turns that are not a list of `role` and `content`")
    return turns


def _conversation(
    turns: list[dict], place: tuple, tokenizer, tools, start: int = 0, find: bool = True
) -> tuple[list[int], list[bool]]:
    """The whole conversation. The assistant's turns from `start` on count, if they are to be found."""
    if not tokenizer.chat_template:
        raise _bad(place, "is a conversation, and the model has no chat template; take texts, or a chat model")

    def render(upto: int, prompting: bool) -> str:
        return tokenizer.apply_chat_template(
            turns[:upto], tools=tools, tokenize=False, add_generation_prompt=prompting
        )

    answers = [index for index, turn in enumerate(turns) if index >= start and turn["role"] == "assistant"]
    try:
        text = render(len(turns), False)
        around = [(render(index, True), render(index + 1, False)) for index in answers] if find else []
    except Exception as error:  # a template may raise whatever it likes
        raise _bad(place, f"does not fit the model's chat template: {error}") from error
    if find and not answers:
        raise _bad(place, "is of no use: no turn is the assistant's")
    spans = []
    for index, (before, until) in zip(answers, around):
        content = turns[index].get("content")
        span = _span(text, before, until, content if isinstance(content, str) else "")
        if span is None:
            what = f"turn {index + 1} differently within the conversation; end the example there"
            raise _bad(place, f"is of no use: the chat template writes {what}")
        spans.append(span)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    counts = [_has_part(begin, end, spans) for begin, end in encoded["offset_mapping"]]
    return encoded["input_ids"], counts


def _has_part(begin: int, end: int, spans: list[tuple[int, int]]) -> bool:
    return any(begin < last and (end > first or begin >= first) for first, last in spans)


def _span(text: str, before: str, until: str, content: str) -> tuple[int, int] | None:
    """Where an answer lies in the whole text: after what the template writes before it, to where it closes it."""
    if not text.startswith(before):
        return None
    start = len(before)
    if len(until) >= start and text.startswith(until):
        return start, len(until)
    # Some templates write the last turn differently (Qwen3's empty thoughts): take what closes it from there.
    content = content.strip()
    last, found = until.rfind(content), text.find(content, start)
    if last < 0 or found < 0:
        return None
    end, close = found + len(content), until[last + len(content) :]
    return (start, end + len(close)) if text.startswith(close, end) else None
