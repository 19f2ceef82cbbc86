//! Carries an admitted request to an upstream and its answer back.
