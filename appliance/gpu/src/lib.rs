//! GPUs of a machine: found, provisioned, checked and described for containers.
