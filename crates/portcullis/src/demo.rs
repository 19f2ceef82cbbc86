//! `portcullis demo`.

mod authority;
mod commands;
mod folder;
mod upstream;
