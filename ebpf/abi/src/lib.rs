//! The records and map keys that the eBPF programs and user space share.
#![no_std]
