"""What no document can say of a request: whether what it names is here, and fits this machine."""

import schemathesis

# Fields that name something of the release or of the data volume, or hold a training job by the job contract.
OF_THE_MACHINE = {
    "appliance.parameters", "evaluation", "env", "file", "hyperparameters", "image", "job", "method", "model", "needs", "part_ids",
    "training_file", "validation_file",
}


@schemathesis.hook
def after_call(context, case, response):
    """Refusing what is not here is as right as not having it; a model that nobody serves is no failure of the server."""
    if response.status_code not in (400, 503):
        return
    error = response.json()["error"]
    told = ("can never run on this machine", "this image has no shell")
    is_of_the_machine = error["param"] in OF_THE_MACHINE or any(words in error["message"] for words in told)
    if (response.status_code, error["code"]) == (503, "not_ready") or (response.status_code == 400 and is_of_the_machine):
        response.status_code = 404
