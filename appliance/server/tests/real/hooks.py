"""What no document can say of a request: whether it fits the model that is served, and the server's options."""

import schemathesis

OF_THE_MODEL = {"context_length_exceeded", "dimensions_not_supported", "token_not_found", "too_many_answers"}


@schemathesis.hook
def after_call(context, case, response):
    """Refusing what does not fit this model is as right as not having the model."""
    if response.status_code == 400 and response.json()["error"]["code"] in OF_THE_MODEL:
        response.status_code = 404
