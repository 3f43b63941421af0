//! Serves language, embedding and classification models over OpenAI's API, from local directories only.
