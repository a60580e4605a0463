//! Probes in; metrics, events and findings out.
