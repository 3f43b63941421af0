//! Jobs: the queue, where each runs, and the container around it.
