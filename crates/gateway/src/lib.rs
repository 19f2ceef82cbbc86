//! The data path: listeners, snapshot, stages, stack.
