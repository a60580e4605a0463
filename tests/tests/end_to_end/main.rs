//! What "it works" means, shown against the built binary; one file a subject.
//!
//! One executable, because each more costs a link; nextest still runs every test in a process of its own.

mod api;
mod attempts;
mod attribution;
mod cgroup_example;
mod counts;
mod cp;
mod crash;
mod engine_habits;
mod engines;
mod errors;
mod escapes;
mod explain;
mod export;
mod faq;
mod fields;
mod filters;
mod guard;
mod history;
mod hostile;
mod images;
mod interop;
mod isolation;
mod leak_events;
mod leaks;
mod lifecycle;
mod limits;
mod memory;
mod network;
mod news;
mod observe;
mod oci;
mod options;
mod packages;
mod page;
mod prometheus;
mod quiet;
mod races;
mod resources;
mod restart;
mod rootless;
mod selftest;
mod top;
mod usage;
mod web_config;
