//! Placeholder room
