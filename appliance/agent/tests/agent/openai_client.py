"""The official OpenAI client, unchanged, from a file to an answer of the new model:

    openai_client.py URL TOKEN CERTIFICATE EXAMPLES
"""

import os
import ssl
import sys
import tempfile
import time

url, token, certificate, examples = sys.argv[1:]
with open(certificate, "rb") as der, tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False) as pem:
    pem.write(ssl.DER_cert_to_PEM_cert(der.read()))
os.environ["SSL_CERT_FILE"] = pem.name

import openai  # noqa: E402  after the certificate is known

client = openai.OpenAI(base_url=url + "/v1", api_key=token, max_retries=0)


def wait(what, look, done, failed=()):
    until = time.monotonic() + 300
    while True:
        found = look()
        if done(found):
            return found
        assert found not in failed and time.monotonic() < until, f"{what}: {found}"
        time.sleep(0.3)


def own(method, path, **body):
    """The appliance's own part of the API, by the client's way to undocumented paths."""
    call = {"GET": client.get, "POST": client.post}[method]
    return call(path, cast_to=object, **({"body": body} if method == "POST" else {}))


# Files: whole, and in parts.
with open(examples, "rb") as file:
    whole = client.files.create(file=file, purpose="fine-tune")
assert client.files.wait_for_processing(whole.id, poll_interval=0.2).status == "processed"
content = open(examples, "rb").read()
assert client.files.content(whole.id).read() == content
upload = client.uploads.create(filename="parts.jsonl", purpose="fine-tune", bytes=len(content), mime_type="text/jsonl")
half = len(content) // 2
parts = [client.uploads.parts.create(upload.id, data=data).id for data in (content[:half], content[half:])]
parted = client.uploads.complete(upload.id, part_ids=parts)
assert parted.status == "completed" and parted.file.bytes == len(content)
assert {file.id for file in client.files.list()} == {whole.id, parted.file.id}
client.files.wait_for_processing(parted.file.id, poll_interval=0.2)
assert client.files.delete(parted.file.id).deleted

# Fine-tuning, its events and checkpoints.
job = client.fine_tuning.jobs.create(
    model="tiny", training_file=whole.id, suffix="mine", seed=1,
    method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 8}}},
)
job = wait(
    "the training", lambda: client.fine_tuning.jobs.retrieve(job.id),
    lambda job: job.status not in ("validating_files", "queued", "running"),
)
events = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=2)]
assert job.status == "succeeded", (job.error, events)
assert events[0] == "succeeded" and len(events) > 2, events
assert client.fine_tuning.jobs.checkpoints.list(job.id).data[0].step_number > 0
assert job.id in {other.id for other in client.fine_tuning.jobs.list()}
model = job.fine_tuned_model
assert model.startswith("ft:tiny:mine:") and {"tiny", model} <= {other.id for other in client.models.list()}

# The new model answers.
server = own("POST", "/appliance/jobs", kind="serve", model=model)["id"]
wait("the server", lambda: client.models.retrieve(model).is_served, bool)
USER = [{"role": "user", "content": "Who looks after this appliance?"}]
answer = client.chat.completions.create(model=model, messages=USER, max_tokens=8, temperature=0)
assert answer.model == model and answer.usage.completion_tokens > 0
pieces = client.chat.completions.create(model=model, messages=USER, max_tokens=8, temperature=0, stream=True)
streamed = "".join(choice.delta.content or "" for piece in pieces for choice in piece.choices)
assert streamed == answer.choices[0].message.content, (streamed, answer)

# It is measured, and then answers under a stable name.
evaluation = own("POST", "/appliance/jobs", kind="eval", job="measure", model=model, file="dataset:site")["id"]
wait("the evaluation", lambda: own("GET", f"/appliance/jobs/{evaluation}")["state"], "succeeded".__eq__, ("failed",))
promotion = own("POST", "/appliance/promotions", name="support", model=model, evaluation=evaluation)
assert promotion["findings"][0]["is_met"] and promotion["findings"][0]["value"] > 1, promotion
again = client.chat.completions.create(model="support", messages=USER, max_tokens=8, temperature=0)
assert again.choices[0].message.content == answer.choices[0].message.content and again.model == model
assert client.models.retrieve("support").parent == model

# Refusals are the client's own exceptions.
for wrong, kind in [
    (lambda: client.chat.completions.create(model="none", messages=USER), openai.NotFoundError),
    (lambda: client.fine_tuning.jobs.create(model="tiny", training_file="file-none"), openai.BadRequestError),
    (lambda: client.files.retrieve(parted.file.id), openai.NotFoundError),
    (lambda: client.with_options(api_key="wrong").models.list(), openai.AuthenticationError),
]:
    try:
        wrong()
    except kind as error:
        assert error.body["message"], error
    else:
        raise SystemExit("it was not refused")
own("POST", f"/appliance/jobs/{server}/cancel")
wait("the server's end", lambda: own("GET", f"/appliance/jobs/{server}")["state"], "cancelled".__eq__)
print("from a file to an answer")
