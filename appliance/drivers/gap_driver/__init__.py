"""Engines of the job contract (docs/jobs.md) on TRL and PEFT."""
