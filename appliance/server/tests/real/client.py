"""Every path through the official OpenAI client, unchanged:  client.py URL"""

import sys

import openai
from pydantic import BaseModel

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
USER = [{"role": "user", "content": "Hello"}]

names = [model.id for model in client.models.list()]
assert names == ["chat", "classify", "embed", "tuned"], names
assert client.models.retrieve("chat").owned_by == "local"

whole = client.chat.completions.create(model="chat", messages=USER, seed=5, max_tokens=20)
assert whole.usage.completion_tokens <= 20 and whole.choices[0].finish_reason in ("stop", "length")
pieces = client.chat.completions.create(
    model="chat", messages=USER, seed=5, max_tokens=20, stream=True, stream_options={"include_usage": True}
)
text, usage = "", None
for piece in pieces:
    text += "".join(choice.delta.content or "" for choice in piece.choices)
    usage = piece.usage or usage
assert text == whole.choices[0].message.content and usage == whole.usage

told = client.chat.completions.create(model="tuned", messages=USER, max_tokens=3, logprobs=True, top_logprobs=2)
assert all(len(token.top_logprobs) == 2 for token in told.choices[0].logprobs.content)


class Answer(BaseModel):
    mood: bool
    number: int


parsed = client.chat.completions.parse(model="chat", messages=USER, response_format=Answer, max_tokens=200, seed=1)
assert isinstance(parsed.choices[0].message.parsed, Answer) or parsed.choices[0].finish_reason == "length"

tool = {"type": "function", "function": {"name": "look", "parameters": {
    "type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"], "additionalProperties": False}}}
called = client.chat.completions.create(
    model="chat", messages=USER, tools=[tool], tool_choice={"type": "function", "function": {"name": "look"}},
    parallel_tool_calls=False, max_tokens=80,
)
assert called.choices[0].message.tool_calls[0].function.name == "look"

assert client.completions.create(model="chat", prompt=["a", "b"], max_tokens=4, logprobs=1).choices[1].index == 1
assert "".join(piece.choices[0].text for piece in client.completions.create(model="chat", prompt="a", stream=True, seed=1))

vectors = client.embeddings.create(model="embed", input=["one", "two"])
plain = client.embeddings.create(model="embed", input=["one", "two"], encoding_format="float")
assert [item.embedding for item in vectors.data] == [item.embedding for item in plain.data]

classes = client.post("/classify", body={"model": "classify", "input": "x"}, cast_to=object)
assert classes["data"][0]["num_classes"] == 3

for wrong, kind in [
    (dict(model="none", messages=USER), openai.NotFoundError),
    (dict(model="chat", messages=USER, temperature=9), openai.BadRequestError),
    (dict(model="chat", messages=[{"role": "user", "content": "x" * 9000}]), openai.BadRequestError),
]:
    try:
        client.chat.completions.create(**wrong)
    except kind as error:
        assert error.body["message"] and error.type == "invalid_request_error"
    else:
        raise SystemExit(f"{wrong} was taken")
print("every path answered")
