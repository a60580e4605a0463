//! A spec becomes a running container, and goes away whole.
